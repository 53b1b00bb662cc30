"""How names are shown and compared."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from erasure_core import Concept, Erasure, common_concepts, parse_concepts
from erasure_core.concepts.common import COMMON, sharing_no_word
from erasure_core.concepts.names import Named, distinct, finder, folded, key, singular, spelled, words
from erasure_core.erasures.erasure_record import Origin
from erasure_core.quoting import excerpt
from erasure_core.sampling.purify import names_a_concept

PUNCTUATION = st.text(st.characters(categories=("P", "S", "Z")), max_size=3)
CATS = (
    "cat", "Cat", "CATS", "cat's", "cat’s", "cats'", "cat.", "cat,", "cat_", "-cat", "(cat)", "a cat", "the  cat",
    "\tcat", "cat!", '"cat"', "cat™", "ｃａｔ", "ca\u00adt", "cat\u200b", "<cat>", "#cat", "my cat_ears", "red-cat",
    "cat2", "cat:1", "cat㉈", "Ⅳcat", "cat½", "cat\ufe0f",
    "\ufeffcat", "cat\u3164",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("van gogh", "van gogh"),
        ("Café 猫", "Café 猫"),
        ("half \ud83d", "half \\ud83d"),
        ("c\x00at\n\x1b[31m", "c\\x00at\\n\\x1b[31m"),
        ("\u202etac", "\\u202etac"),
        ("x" * 100, "x" * 77 + "..."),
        (None, "None"),
        (["\ud800"], "['\\ud800']"),
    ],
)
def test_what_is_quoted_can_be_printed(text: object, expected: str) -> None:
    assert excerpt(text) == expected


@given(st.text(st.characters(codec=None, categories=("Cs", "Cc", "Cf", "L", "P", "Z"))))
def test_any_text_is_quoted_in_utf8(text: str) -> None:
    assert excerpt(text).encode().decode().isprintable()


@pytest.mark.parametrize("name", CATS)
def test_a_cat_by_any_name_is_not_preserved(name: str) -> None:
    kept = common_concepts([Concept(name)])
    assert "cat" not in kept and {"", "dog", "in the style of monet"} <= set(kept)


@given(st.sampled_from(COMMON), PUNCTUATION, PUNCTUATION, st.sampled_from(["", "'s", "'", "’s"]))
def test_no_name_survives_among_what_is_preserved(name: str, before: str, behind: str, ending: str) -> None:
    assert name not in common_concepts([Concept(f"{before}{name}{ending}{behind}")])
    assert name not in sharing_no_word([Concept(f"big{before or ' '}{name.upper()}{behind}")], COMMON)


@example("0\u0c00")
@given(st.text())
def test_spelling_and_words_stay_what_they_are(text: str) -> None:
    assert spelled(spelled(text)) == spelled(text)
    assert folded(folded(text)) == folded(text)
    assert words(" ".join(words(text))) == words(text)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("cat", "cats"), ("fox", "foxes"), ("cherry", "cherries"), ("church", "churches"), ("bus", "buses"),
        ("house", "houses"), ("glass", "glasses"), ("dress", "dresses"), ("rose", "roses"), ("shoe", "shoes"),
        ("movie", "movies"), ("potato", "potatoes"), ("boy", "boys"), ("tree", "trees"), ("pie", "pies"),
        ("octopus", "octopuses"), ("bush", "bushes"), ("horse", "horses"), ("face", "faces"), ("prize", "prizes"),
        ("man", "men"), ("snowman", "snowmen"), ("person", "people"), ("mouse", "mice"), ("goose", "geese"),
    ],
)  # fmt: skip
def test_a_plural_is_the_same_word(one: str, many: str) -> None:
    assert singular(one) == singular(many) and key(f"the {one}") == key(many.upper())


def test_other_words_are_other_words() -> None:
    different = ["cat", "car", "ox", "oxen", "bus", "bush", "glass", "van gogh", "gogh van", "s", "a", ">_<", "|"]
    assert len({key(name) for name in different}) == len(different)
    assert key("the") == ("the",) and key("a") == ("a",)


def test_a_name_of_linking_words_counts_with_all_of_them() -> None:
    assert not any("style" in name for name in common_concepts([Concept("the style")]))
    assert "in the style of monet" in common_concepts([Concept("picasso style")])


def test_texts_that_are_read_alike_are_one() -> None:
    assert distinct(["a  dog", "A dog", " a dog", "dog"]) == ["a dog", "dog"]
    assert distinct(["a  dog", "A dog", " a dog"], spelled) == ["a dog", "A dog"]


def test_a_name_is_found_as_it_is_spelled_before_all() -> None:
    find = finder(["Van Gogh", "van gogh", "cat", "a cat", "dogs"])
    assert find("van  gogh") == ["van gogh"] and find("VAN GOGH") == ["Van Gogh", "van gogh"]
    assert find("Cat") == ["cat"] and find("the cat") == ["cat", "a cat"] and find("dog") == ["dogs"] and not find("do")


@pytest.mark.parametrize(
    ("prompt", "within", "alone"),
    [
        ("A  Cat's", "cat", True),
        ("two cats on a mat", "cat", False),
        ("concatenate", None, False),
        ("in the style of VAN GOGH", "van gogh", False),
        ("gogh van", None, False),
        ("a van, gogh", "van gogh", True),
        ("", None, False),
        (">_<", ">_<", True),
    ],
)
def test_names_in_prompts(prompt: str, within: str | None, alone: bool) -> None:
    names = Named(["cat", "van gogh", ">_<"])
    assert names.within(prompt) == within and names.alone_in(prompt) == alone


@pytest.mark.parametrize("text", ["(", ">(", "=", "a ", "\u0308", ", "])
def test_a_long_text_comes_to_an_end(text: str) -> None:
    """How its time grows with its length is measured by ``benchmarks/parsing.py``."""
    assert parse_concepts(f"cat\nx{text * 1000}y")


def test_a_prompt_to_purify_names_a_concept_by_its_words() -> None:
    erasure = Erasure({}, (Origin("rece", (Concept("cat"), Concept("van gogh")), {}, ""),))
    for prompt in ("", "a Cat's portrait", "two cats", "by Van  Gogh,"):
        assert names_a_concept(prompt, erasure)
    for prompt in ("concatenated", "gogh van", "a dog"):
        assert not names_a_concept(prompt, erasure)
