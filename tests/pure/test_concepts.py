"""What users type, right and wrong."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasure_core import Concept, ConceptError, common_concepts, parse_concepts
from erasure_core.concepts import as_concepts, parse_prompts


def test_lines_blank_lines_and_comments() -> None:
    text = "\ufeff# mine\n\n  van gogh -> art \r\n\tcat\n  # cat\nhot-dog->a - b # mine\nc# \t #\n#5\n"
    assert parse_concepts(text) == [
        Concept("van gogh", "art"),
        Concept("cat"),
        Concept("hot-dog", "a - b"),
        Concept("c#"),
    ]
    assert as_concepts(["van gogh # a painter"]) == as_concepts("van gogh # a painter") == [Concept("van gogh")]


def test_bytes_are_read_as_utf8() -> None:
    assert parse_concepts("Café → x".replace("→", "->").encode()) == [Concept("Café", "x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no concept is named in concepts"),
        (" \n\t\n# only a comment", "no concept is named"),
        (None, "concepts is text, not None"),
        ("cat\ndog ->", "line 2 of concepts, 'dog ->', names nothing after '->'"),
        ("cat\n-> dog", "line 2 of concepts, '-> dog', names no concept"),
        ("cat -> dog -> bird", "the concept 'cat -> dog -> bird' has more than one '->'"),
        ("cat -> Cat", "^the concept 'cat -> Cat' maps a concept to itself; name something else after '->'$"),
        ("cat\ndog\nCAT -> bird", "line 3 of concepts, 'CAT -> bird', lists 'CAT' a second time"),
        ("agent #9", "the concept 'agent #9' has '#' behind a space"),
        ("cat -> #9", "the concept 'cat -> #9' has '#' behind a space"),
        ("cat => dog", "'cat => dog' has the unknown separator '=>'"),
        ("cat --> dog", "the concept .*unknown separator '-->'"),
        ("cat ->> dog", "unknown separator '->>'"),
        ("cat —> dog", "unknown separator '—>'"),
        ("cat → dog", "unknown separator '→'"),
        ("cat | dog", "unknown separator '|'".replace("|", r"\|")),
        ("cat >> dog", "unknown separator '>>'"),
        (b"cat\xff\xfe", "concepts is not UTF-8 text"),
        ("caf\ufffd", "line 1 .*not UTF-8"),
        ("c\x00at", "line 1 .*not UTF-8"),
        ("cat\nhalf an emoji \ud83d", "line 2 of concepts, 'half an emoji \ufffd', is not UTF-8"),
    ],
)
def test_lines_that_cannot_be_used(text: str | bytes, message: str) -> None:
    with pytest.raises(ConceptError, match=message):
        parse_concepts(text)


def test_errors_name_the_file() -> None:
    with pytest.raises(ConceptError, match="line 2 of list.txt, 'dog ->', names nothing"):
        parse_concepts("cat\ndog ->", "list.txt")
    with pytest.raises(ConceptError, match="no concept is named in list.txt"):
        parse_concepts("# none", "list.txt")


def test_a_long_line_is_quoted_in_short() -> None:
    with pytest.raises(ConceptError) as caught:
        parse_concepts("x" * 100_000 + " => y")
    assert len(str(caught.value)) < 300


def test_ten_thousand_lines() -> None:
    lines = [f"concept {number} -> thing" for number in range(10_000)]
    began = time.perf_counter()
    assert len(parse_concepts("\n".join(lines))) == 10_000
    assert len(as_concepts(lines)) == 10_000
    with pytest.raises(ConceptError, match="line 10001 .*'concept 7'"):
        parse_concepts("\n".join([*lines, "concept 7"]))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("name", ["", "  "])
def test_a_concept_needs_a_name(name: str) -> None:
    with pytest.raises(ConceptError, match="needs a name"):
        Concept(name)


def test_a_concept_is_text() -> None:
    with pytest.raises(ConceptError, match="is text, not 3"):
        Concept(3)


@given(st.text())
def test_any_text_gives_concepts_or_a_readable_error(text: str) -> None:
    try:
        concepts = parse_concepts(text)
    except ConceptError as error:
        assert str(error)
    else:
        assert parse_concepts("\n".join(map(str, concepts))) == concepts


@given(st.binary(max_size=40))
def test_any_bytes_give_concepts_or_a_readable_error(data: bytes) -> None:
    try:
        assert parse_concepts(data)
    except ConceptError as error:
        assert str(error)


def test_concepts_from_what_a_caller_has() -> None:
    cat = Concept("cat")
    assert as_concepts("cat") == as_concepts(cat) == as_concepts([cat]) == as_concepts(["cat"]) == [cat]
    with pytest.raises(ConceptError, match="is empty"):
        as_concepts([])
    with pytest.raises(ConceptError, match="'Cat' is listed twice"):
        as_concepts([cat, "dog", "Cat"])


def test_prompts_are_listed_once() -> None:
    assert parse_prompts("a dog\n\n# no\na dog # mine\n a -> b \nroom #5") == ["a dog", "a -> b", "room #5"]


def test_a_bad_prompt_names_the_input_that_it_came_by() -> None:
    with pytest.raises(ConceptError, match="line 2 of preserve, 'caf\ufffd', is not UTF-8"):
        parse_prompts("lion\ncaf\ufffd", "preserve")


def test_what_is_erased_is_not_preserved_by_default() -> None:
    kept = common_concepts([Concept("an oil painting in the style of van gogh")])
    assert kept[0] == "" and "cat" in kept
    assert not {"painting", "oil painting", "in the style of van gogh"} & set(kept)
    assert "in the style of monet" in kept
