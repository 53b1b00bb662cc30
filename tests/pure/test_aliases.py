"""Names people use: the table of aliases, the lists beside it, how they were made, and who uses them."""

from __future__ import annotations

import collections
import importlib.util
import io
import pickle
import re
from pathlib import Path

import pytest
from make_names import LIMIT, MINIMUM, MOST_NEIGHBOURS, as_text, distilled, fragments, is_emoji, is_word, loaded
from pure.fakes import FakeModel, Ragged, TwoTowers

from erasure_core import Concept, Erasure, aliases_of, load_statistics, suggest
from erasure_core.commands import shared
from erasure_core.commands.main import main
from erasure_core.concepts import aliases, name_lists
from erasure_core.concepts.aliases import TABLE, candidates_of, spellings_of, with_aliases
from erasure_core.concepts.common import EVERYDAY_CAPTIONS
from erasure_core.concepts.name_lists import LISTS, kind_of, listed_beside, name_list
from erasure_core.concepts.names import spelled
from erasure_core.concepts.parse import kept_prompts

ROWS = [line.split(" ") for line in TABLE.read_text(encoding="utf-8").splitlines()]
SAME = {"kitten": "cat", "feline": "cat", "cat": "cat"}


class Synonyms(FakeModel):
    """Reads a kitten and a feline as it reads a cat, and all other words far from these."""

    def _embedding(self, word: str):
        own, cat = super()._embedding(SAME.get(word, word)), super()._embedding("cat")
        return own if word in SAME or word.startswith("<") else own - 3 * cat


@pytest.fixture
def fake(monkeypatch) -> FakeModel:
    model = Synonyms()
    monkeypatch.setattr(shared, "load_model", lambda *_: model)
    return model


def names_of(found: list[tuple[str, float]]) -> list[str]:
    return [name for name, _ in found]


def test_the_table_is_sorted_and_each_word_stands_once() -> None:
    known = [word for word, *_ in ROWS]
    assert known == sorted(set(known)) and len(known) > 6000 and TABLE.stat().st_size < 300_000
    for word, *row in ROWS:
        names, percents = row[::2], [int(percent) for percent in row[1::2]]
        assert 0 < len(names) == len(percents) <= LIMIT and len({word, *names}) == 1 + len(names), word
        assert percents == sorted(percents, reverse=True) and round(100 * MINIMUM) <= percents[-1] <= percents[0] <= 100
        assert all(is_word(name) or is_emoji(name) for name in (word, *names)), word
        assert not any(map(is_emoji, names)) or not is_emoji(word)


def test_the_page_counts_what_is_there() -> None:
    page = (Path(__file__).parents[2] / "docs" / "names.md").read_text(encoding="utf-8")
    sizes = [len(ROWS), *(len(name_list(which)) for which in LISTS)]
    assert all(re.search(rf"\b{size:,} {what}", page) for size, what in zip(sizes, ("words", *LISTS), strict=True))
    assert f"at least {MINIMUM}" in page and LIMIT == 10 and "up to ten others" in page


def test_whatever_the_table_names_can_be_erased() -> None:
    for word, *row in ROWS:
        assert [Concept(name).name for name in (word, *row[::2])] == [word, *row[::2]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", {"cats", "kitty", "feline", "gato", "kitten", "🐱"}),
        ("trump", {"potus", "realdonaldtrump", "donaldtrump"}),
        ("nude", {"nudes", "naked"}),
        ("doughnut", {"donut", "donuts", "doughnuts"}),
        ("van gogh", {"gogh"}),
        ("🐱", {"cat", "kitty"}),
    ],
)
def test_names_that_people_use(name: str, expected: set[str]) -> None:
    assert expected <= set(names_of(aliases_of(name)))


@pytest.mark.parametrize("name", ["Cat", "CAT", " cat ", "a cat", "The Cat", "cat's", "“cat”", "ｃａｔ", "cat\u200b"])
def test_the_spelling_of_a_name_makes_no_difference(name: str) -> None:
    assert aliases_of(name) == aliases_of("cat") != []


def test_a_name_is_looked_up_as_a_whole() -> None:
    assert aliases_of("donald trump") == aliases_of("DonaldTrump") != []
    assert aliases_of("penguins' nests") == aliases_of("cat dog") == aliases_of("zzyzx") == aliases_of("") == []
    assert aliases_of("the") == aliases_of("with") == aliases_of("ing") == aliases_of("1") == []


def test_only_near_names_and_only_so_many() -> None:
    found = aliases_of("cat")
    assert found == sorted(found, key=lambda one: -one[1]) and len(found) == LIMIT
    assert aliases_of("cat", limit=2) == found[:2] and aliases_of("cat", minimum=1.0) == []
    assert aliases_of("cat", minimum=0.9) == [one for one in found if one[1] >= 0.9]
    with pytest.raises(ValueError, match="name must be text, got 5"):
        aliases_of(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [aliases, name_lists])
def test_nothing_is_read_at_import(module, monkeypatch) -> None:
    def read(*_, **__) -> str:
        raise AssertionError("a file was read")

    monkeypatch.setattr(Path, "read_text", read)
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_again", module.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    with pytest.raises(AssertionError, match="a file was read"):
        again.aliases_of("cat") if module is aliases else again.name_list("artists")


def test_the_lists() -> None:
    sizes = {which: len(name_list(which)) for which in LISTS}
    assert sizes == {"artists": 5265, "movements": 200, "mediums": 95}
    for which in LISTS:
        names = list(name_list(which))
        assert names == sorted(set(names)) and all(spelled(name) == name for name in names)
        assert kept_prompts(names, "preserve") == names
    assert {"Claude Monet", "Vincent Van Gogh"} <= set(name_list("artists"))
    with pytest.raises(ValueError, match="no list of 'musicians'; there are artists, movements, mediums"):
        name_list("musicians")


def test_the_licences_are_beside_the_lists() -> None:
    text = TABLE.with_name("LICENCES.txt").read_text(encoding="utf-8")
    assert "Copyright (c) 2022 Toshimitsu Kimura" in text and "Copyright (c) 2022 pharmapsychotic" in text
    assert text.count("The above copyright notice and this permission notice shall be included in all") == 2


def test_what_is_erased_is_not_among_what_is_preserved() -> None:
    kept = listed_beside([Concept("claude monet")], "artists")
    assert "Vincent Van Gogh" in kept and not [name for name in kept if "Monet" in name or "Claude" in name.split()]
    assert listed_beside([Concept("a painting")], "mediums") and listed_beside([Concept("cat")], None) == []
    assert "a mosaic" not in listed_beside([Concept("mosaics")], "mediums")


def test_candidates() -> None:
    found = candidates_of("dog")
    assert names_of(aliases_of("dog")) == found[: len(aliases_of("dog"))] and "puppy" in found and "dog" not in found
    assert "Vincent Van Gogh" in candidates_of("van gogh") and "vangogh" in candidates_of("van gogh")
    assert {"monet", "claudemonet"} <= set(spellings_of("Claude Monet")) and spellings_of("cat's") == ["cat"]
    assert spellings_of("") == spellings_of("🐱") == candidates_of("zzyzx") == []


def test_aliases_get_the_target_of_their_concept() -> None:
    near = {"cat": [("cats", 0.9), ("kitty", 0.9), ("feline", 0.9)], "dog": [("doggo", 0.9), ("kitty", 0.9)]}
    concepts = [Concept("cat", "fox"), Concept("dog"), Concept("Feline", "wolf")]

    def found(concepts: list[Concept], *spared: str) -> list[str]:
        return [str(one) for one in with_aliases(concepts, lambda name: near.get(name, []), spared)]

    assert found(concepts) == ["cat -> fox", "dog", "Feline -> wolf", "cats -> fox", "kitty -> fox", "doggo"]
    assert found(concepts[1:2], "a kitty in a hat") == ["dog", "doggo"]
    assert found([Concept("dog", "an old kitty")]) == ["dog -> an old kitty", "doggo -> an old kitty"]


@pytest.mark.parametrize("kind", [FakeModel, TwoTowers, Ragged])
def test_a_model_ranks_names_by_what_it_reads(kind: type[FakeModel]) -> None:
    model = kind()
    ranked = suggest(model, "cat", ["red fish", "cat toy", "CAT", "lion", "a cat"], minimum=-1)
    assert "CAT" not in names_of(ranked), "the model reads it as it reads cat"
    assert ranked == sorted(ranked, key=lambda one: -one[1]) and all(-1 <= one[1] < 1 for one in ranked)
    assert sorted(names_of(ranked)) == ["a cat", "cat toy", "lion", "red fish"]
    assert suggest(model, "cat", ["lion"], minimum=0.999) == [] and len(suggest(model, "cat", minimum=-1, limit=3)) == 3


def test_the_candidates_are_the_tables_unless_they_are_given() -> None:
    model = Synonyms()
    assert names_of(suggest(model, "cat")) == ["feline", "kitten"]
    assert [round(one[1], 6) for one in suggest(model, "cat")] == [1, 1]
    with pytest.raises(ValueError, match="wrap a pipeline of diffusers"):
        suggest(None, "cat")  # type: ignore[arg-type]


def run(capsys, *arguments: object, code: int = 0) -> str:
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_the_command_suggest(fake: FakeModel, capsys) -> None:
    table = run(capsys, "suggest", "Cat -> dog")
    assert "| kitty " in table and "0.93" in table and "reads alike with: --concept Cat --aliases" in table
    assert "Stable Diffusion 1.4" in table and "not in the table" not in table
    assert "not in the table: 'Vincent Van Gogh'; --model" in run(capsys, "suggest", "van gogh")
    assert "as near to 'zzyzx' as 0.9" in run(capsys, "suggest", "zzyzx", "--minimum", "0.9")
    own = run(capsys, "suggest", "cat", "--model", "toy", "--limit", "1")
    assert "| feline" in own and "kitten" not in own and "cat, by toy" in own
    assert "(cat:1.3)', and a name has none; write 'cat'" in run(capsys, "suggest", "(cat:1.3)", code=2)
    assert "the concept has 2 lines; name one of them" in run(capsys, "suggest", "cat\nlion", code=2)


def test_erasing_aliases_too(fake: FakeModel, tmp_path: Path, capsys) -> None:
    out, kept = tmp_path / "a.safetensors", tmp_path / "s.safetensors"
    erase = ["erase", "--model", "toy", "--no-common", "--overwrite", "--out", out, "--aliases", "--concept"]
    told = run(capsys, *erase, "cat -> dog", "--save-statistics", kept)
    both = [Concept("cat", "dog"), Concept("feline", "dog"), Concept("kitten", "dog")]
    assert list(Erasure.load(out).concepts) == both and "'kitten -> dog'" in told
    run(capsys, *erase, "cat -> dog", "--preserve", "a feline")
    assert list(Erasure.load(out).concepts) == [both[0], both[2]]
    run(capsys, *erase, "cat -> dog", "--concept", "wug", "--statistics", kept)
    assert sorted(map(str, Erasure.load(out).concepts)) == sorted(map(str, [*both, Concept("wug")]))
    told = run(capsys, *erase, "cat -> dog", "--method", "abo", code=2)
    assert "--aliases adds concepts, and abo erases one at a time" in told


def test_preserving_a_list(fake: FakeModel, tmp_path: Path, capsys) -> None:
    out, kept = tmp_path / "a.safetensors", tmp_path / "s.safetensors"
    erase = ["erase", "--model", "toy", "--no-common", "--overwrite", "--out", out, "--preserve-list", "mediums"]
    mediums = [name for name in name_list("mediums") if "mosaic" not in name]
    run(capsys, *erase, "--concept", "mosaic", "--preserve", "bird")
    built_in = ["", *EVERYDAY_CAPTIONS]
    assert Erasure.load(out).origins[0].settings["preserve"] == list(dict.fromkeys(["bird", *mediums, *built_in]))
    run(capsys, *erase, "--concept", "mosaic", "--save-statistics", kept)
    assert set(load_statistics(kept).preserve) == {*mediums, *built_in}
    run(capsys, *erase, "--concept", "sketch", "--statistics", kept)
    preserved = Erasure.load(out).origins[0].settings["preserve"]
    assert "a mosaic" not in preserved and "a sketch" not in preserved and "a screenshot" in preserved
    run(capsys, *erase, "--concept", "cat", "--statistics", kept, "--restore", "mosaic")
    assert "a mosaic" in Erasure.load(out).origins[0].settings["preserve"]


def test_a_pickle_may_hold_plain_values_only() -> None:
    plain = ({1: "cat</w>"}, {1: [(1, 1.0)]}, [None, True])
    assert loaded(io.BytesIO(pickle.dumps(plain))) == plain
    for other in (collections.OrderedDict(), Path("x"), print):
        with pytest.raises(pickle.UnpicklingError, match="plain values only"):
            loaded(io.BytesIO(pickle.dumps(other)))


def test_how_the_table_is_distilled() -> None:
    texts = dict(enumerate(["cat", "cats", "🐱", "eagle", "agle", "aboss", "boss", "with", "dle", "kitty", "🐈"]))
    near = {token: [(token, 1.0)] for token in texts}
    near_kitty = [(0, 1, 0.93), (0, 2, 0.9), (0, 7, 0.9), (0, 9, 0.86), (2, 10, 0.99)]
    crowded = [(0, 8, 0.88), *((8, token, 0.85) for token in range(100, 100 + MOST_NEIGHBOURS))]
    broken = [(3, 4, 0.9), (5, 6, 0.9)]
    for one, other, cosine in (*near_kitty, *crowded, *broken):
        near.setdefault(one, []).append((other, cosine))
        near.setdefault(other, []).append((one, cosine))
    table = distilled(near, frozenset(["cat", "eagle", "boss", "kitty"]), texts)
    assert table == {"cat": [("cats", 0.93), ("🐱", 0.9)], "cats": [("cat", 0.93)], "🐱": [("cat", 0.9)]}
    assert as_text(table) == "cat cats 93 🐱 90\ncats cat 93\n🐱 cat 90"


def test_what_is_a_word() -> None:
    assert [text for text in ("cat", "gato", "猫猫猫", "tv", "the", "hooo", "cat's", "2pac", "") if is_word(text)] == [
        "cat", "gato"
    ]  # fmt: skip
    assert [text for text in ("🐱", "☀", "cat", "🏻", "^", "") if is_emoji(text)] == ["🐱", "☀"]
    known = {"eagle", "boss", "alive", "live"}
    assert fragments("eagle", "agle", known) == fragments("agle", "eagle", known) == ["agle"]
    assert fragments("boss", "aboss", known) == ["aboss"] and fragments("boss", "myboss", known) == []
    assert fragments("live", "alive", known) == fragments("merica", "bron", known) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("van gogh", "style"), ("Vincent van Gogh", "style"), ("cubism", "style"), ("a cartoon", "style"),
        ("cartoons", "style"), ("comic style", "style"), ("cat", "object"), ("noto", "object"), ("rose", "object"),
    ],
)  # fmt: skip
def test_the_kind_of_a_concept(name: str, kind: str) -> None:
    assert kind_of(name) == kind
    assert kind_of(name, ("noto", "blob")) == ("style" if name == "noto" else kind)
