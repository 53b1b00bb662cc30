"""Sums of concepts and prompts: what they are worth, how they add up, and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pure.fakes import FakeModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from erasure_core import Concept, ConceptError, Erasure, common_concepts, parse_concepts, rece
from erasure_core.closed_form.collect import _PendingPairs, gather_statistics
from erasure_core.closed_form.linalg import gram_matrix
from erasure_core.closed_form.statistics import EntryStatistics, Statistics
from erasure_core.closed_form.statistics_file import StatisticsFileError, load_statistics, save_statistics
from erasure_core.closed_form.uce import PairSums, RowPairs
from erasure_core.closed_form.update import extended, restored, updated
from erasure_core.methods.rece import RECE, ReceSettings, erase_statistics, rece_with_statistics, solve
from erasure_core.model import CONTEXT

NAMES = ("cat", "dog", "red fish", "bird", "tall tree", "car")
SETTINGS = ReceSettings(loops=2, regularization=0.1)
quick = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


def sums(statistics: Statistics) -> list[Tensor]:
    entry = statistics.entries[CONTEXT].summed()
    pairs = (entry.edited, entry.derived)
    return [*(value for pair in pairs for value in vars(pair).values()), entry.preserve_gram, entry.exactly_gram]


def close(one: Statistics, other: Statistics) -> None:
    for found, expected in zip(sums(one), sums(other), strict=True):
        scale = max(1.0, float(expected.abs().max()))
        assert float((found - expected).abs().max()) < 1e-12 * scale


def change(erasure: Erasure) -> Tensor:
    return erasure.maps[CONTEXT].change.dense()


def as_rows(model: FakeModel, concepts: Sequence[Concept], preserve: Sequence[str]) -> EntryStatistics:
    """All rows at once, written out without the gatherer."""
    encoded = {text: model.encoded([text]) for one in concepts for text in (one.name, one.instead or " ")}
    edited, derived = [], []
    for one in concepts:
        name, instead = encoded[one.name], encoded[one.instead or " "]
        (first,), (second,) = name.last_content, instead.last_content
        count = model.tokens - max(first, second)
        rows, others = name.conditioning.context[0], instead.conditioning.context[0]
        edited.append((rows[first : first + count], others[second : second + count]))
        derived.append((rows, others))
    kept = torch.cat([model.encode_prompts([text]).context[0].double() for text in preserve])
    pairs = [RowPairs([one for one, _ in pair], [other for _, other in pair]) for pair in (edited, derived)]
    return EntryStatistics(*pairs, kept.T @ kept, torch.zeros_like(kept.T @ kept), torch.zeros(1), 0.0)


@quick
@given(st.lists(st.sampled_from(NAMES), min_size=2, unique=True))
def test_the_unit_of_the_ridge_is_the_distance_of_all_pairs(names: list[str]) -> None:
    model = FakeModel()
    concepts = [Concept(name) for name in names]
    rows, others = (torch.cat(list(part)).double() for part in vars(as_rows(model, concepts, [""]).edited).values())
    whole = gather_statistics(model, names).entries[CONTEXT]
    expected = float((rows - others).square().sum()) / whole.width
    assert whole.ridge_unit() == pytest.approx(expected, rel=1e-6) and whole.summed().ridge_unit() == whole.ridge_unit()
    first, rest = gather_statistics(model, names[:1], ["a"]), gather_statistics(model, names[1:], ["b"])
    assert (first + rest).entries[CONTEXT].ridge_unit() == pytest.approx(expected, rel=1e-6)
    left = (first + rest - rest).entries[CONTEXT].ridge_unit()
    assert left == pytest.approx(first.entries[CONTEXT].ridge_unit(), abs=1e-9 * expected)


def test_a_relative_ridge_is_a_ridge_in_that_unit(model: FakeModel) -> None:
    gram, entry = gram_matrix(model.weights.values()), gather_statistics(model, ["cat", "bird"]).entries[CONTEXT]
    for relative in (0.0, 0.3):
        found = solve(entry, gram, ReceSettings(ridge=0.5, relative_ridge=relative)).dense()
        expected = solve(entry, gram, ReceSettings(ridge=0.5 + relative * entry.ridge_unit())).dense()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("times", [1e-2, 3.0])
def test_a_relative_ridge_knows_no_scale(model: FakeModel, times: float) -> None:
    """Contexts in another unit, and each concept listed as often again, give the same edit."""
    gram, entry = gram_matrix(model.weights.values()), gather_statistics(model, ["cat", "bird"], [""]).entries[CONTEXT]
    settings = ReceSettings(loops=0, ridge=1e-12, relative_ridge=0.3)
    expected = solve(entry, gram, settings).dense()
    scaled = replace(
        entry, edited=RowPairs(*([times * row for row in part] for part in vars(entry.edited).values())),
        distance=times**2 * entry.distance, preserve_gram=times**2 * entry.preserve_gram,
    )  # fmt: skip
    torch.testing.assert_close(solve(scaled, gram, settings).dense(), expected, rtol=1e-4, atol=1e-6)
    twice = entry.plus(entry, 1)
    torch.testing.assert_close(solve(twice, gram, settings).dense(), expected, rtol=1e-4, atol=1e-6)


def test_twelve_requests_one_after_the_other_are_twelve_at_once(model: FakeModel) -> None:
    """Published methods collapse after three to twelve sequential erasures; sums do not."""
    concepts = [Concept(f"thing {number}", "cat" if number % 3 else "") for number in range(12)]
    whole, _ = rece_with_statistics(model, concepts, RECE["general"])
    known = None
    for concept in concepts:
        last, known = rece_with_statistics(model, [concept], RECE["general"], statistics=known)
    torch.testing.assert_close(change(last), change(whole), rtol=1e-4, atol=1e-6)
    assert last.concepts == whole.concepts


def test_statistics_of_an_earlier_version(model: FakeModel, tmp_path: Path) -> None:
    """They know no distance: a relative ridge is refused, everything else is as it was."""
    known = gather_statistics(model, "cat", ["bird"])
    older = replace(known, entries={name: replace(entry, distance=None) for name, entry in known.entries.items()})
    back = load_statistics(save_statistics(older, tmp_path / "older.safetensors"))
    with pytest.raises(ValueError, match="saved by an earlier version.*set relative_ridge to 0"):
        erase_statistics(model, back, ReceSettings(relative_ridge=0.3))
    again, expected = (change(erase_statistics(model, one, SETTINGS)) for one in (back, known))
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-6)
    assert (back + gather_statistics(model, "owl", ["wolf"])).entries[CONTEXT].distance is None


@quick
@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.sampled_from(["", "wolf"]))
def test_statistics_are_worth_their_rows(names: list[str], instead: str) -> None:
    model = FakeModel()
    concepts = [Concept(name, instead) for name in names]
    gram = gram_matrix(model.weights.values())
    expected = solve(as_rows(model, concepts, ["", "owl"]), gram, SETTINGS).dense()
    found = gather_statistics(model, concepts, ["", "owl", "owl "])
    torch.testing.assert_close(solve(found.entries[CONTEXT], gram, SETTINGS).dense(), expected, rtol=1e-4, atol=1e-5)
    summed = found.entries[CONTEXT].summed()
    torch.testing.assert_close(solve(summed, gram, SETTINGS).dense(), expected, rtol=1e-4, atol=1e-5)


def test_rows_become_sums_when_they_are_many(model: FakeModel) -> None:
    few = gather_statistics(model, "cat").entries[CONTEXT]
    many = gather_statistics(model, [f"thing{number}" for number in range(40)]).entries[CONTEXT]
    assert isinstance(few.edited, RowPairs) and isinstance(few.derived, RowPairs)
    assert isinstance(many.edited, PairSums) and isinstance(many.derived, PairSums)


def test_rows_that_wait_do_not_hold_what_was_encoded_with_them(model: FakeModel) -> None:
    entry = gather_statistics(model, ["cat", "dog", "owl"], name_only=True).entries[CONTEXT]
    rows = [*entry.edited.concepts, *entry.edited.targets, *entry.derived.concepts]
    assert [row.untyped_storage().nbytes() for row in rows] == [row.nbytes for row in rows]


@pytest.mark.parametrize("names", [["cat"], list(NAMES)])
def test_statistics_hold_no_graph_of_a_text_encoder_that_requires_gradients(model: FakeModel, names: list[str]) -> None:
    for weight in model.text.values():
        weight.requires_grad_()
    found = gather_statistics(model, names, ["green"], exactly=["blue"])
    entry = extended(found, model, ["tree"], ["hill"]).entries[CONTEXT]
    rows = [row for pairs in (entry.edited, entry.derived) for held in vars(pairs).values() for row in held]
    assert not any(row.requires_grad for row in [*rows, entry.preserve_gram, entry.exactly_gram, entry.reference_row])


def test_each_prompt_is_encoded_once_and_let_go(model: FakeModel, monkeypatch) -> None:
    asked: list[str] = []
    held = []
    original, waiting = model.text_rows, _PendingPairs.complete_with

    def text_rows(prompts: Sequence[str]):
        asked.extend(prompts)
        return original(prompts)

    def complete_with(self, prompt, read):
        yield from waiting(self, prompt, read)
        held.append(len(self.rows))

    model.text_rows = text_rows
    monkeypatch.setattr(_PendingPairs, "complete_with", complete_with)
    concepts = [Concept(f"thing{number}", "dog" if number % 2 else "") for number in range(60)]
    gather_statistics(model, concepts, ["", "dog", "owl"])
    assert sorted(asked) == sorted({"", " ", "dog", "owl", *(concept.name for concept in concepts)})
    assert max(held) <= 3 and held[-1] == 0


@quick
@given(st.permutations(NAMES), st.integers(1, 5), st.booleans())
def test_statistics_add_up(names: list[str], cut: int, name_only: bool) -> None:
    model = FakeModel()
    whole = gather_statistics(model, names, ["", "owl"], exactly=["wolf"], name_only=name_only)
    one = gather_statistics(model, names[:cut], [""], name_only=name_only)
    other = gather_statistics(model, names[cut:], ["owl"], exactly=["wolf"], name_only=name_only)
    close(one + other, whole)
    close(whole - other, one)
    close(extended(one, model, [Concept(name) for name in names], ["", "owl"], exactly=["wolf"]), whole)
    close(restored(extended(one, model, other.concepts), model, names[cut:]), one)
    assert (whole - other).concepts == one.concepts and (one + other).exactly == ("wolf",)


def test_one_taken_back_was_never_named(model: FakeModel) -> None:
    all_three = gather_statistics(model, "cat\ndog\nbird -> owl", [""])
    found = erase_statistics(model, restored(all_three, model, [" Dog "]), SETTINGS)
    expected = rece(model, "cat\nbird -> owl", SETTINGS, preserve=[""])
    torch.testing.assert_close(change(found), change(expected), rtol=1e-4, atol=1e-5)
    assert found.origins == expected.origins


def test_what_was_preserved_can_be_erased_later(model: FakeModel) -> None:
    first = gather_statistics(model, "cat", ["", "Dog", "bird"])
    close(extended(first, model, [Concept("dog")]), gather_statistics(model, "cat\ndog", ["", "bird"]))


def test_what_does_not_add_up(model: FakeModel) -> None:
    cat = gather_statistics(model, "cat", [""])
    for other, message in (
        (gather_statistics(model, "Cat"), "both statistics hold 'Cat'"),
        (gather_statistics(model, "dog", [""]), "both statistics hold ''"),
        (gather_statistics(model, "dog", name_only=True), "edit names only"),
        (gather_statistics(FakeModel(width=20), "dog"), r"another text encoder \(its context differs\)"),
    ):
        with pytest.raises(ValueError, match=message):
            cat + other
    for other, message in (
        (gather_statistics(model, "dog"), r"do not hold 'dog' \(concepts\)"),
        (gather_statistics(model, "cat -> dog"), "do not hold 'cat -> dog'"),
        (gather_statistics(model, "cat", ["owl"]), r"do not hold 'owl' \(preserve\)"),
    ):
        with pytest.raises(ValueError, match=message):
            cat - other
    with pytest.raises(ValueError, match="hold 'cat', not 'cat -> dog'"):
        extended(cat, model, [Concept("cat", "dog")])
    with pytest.raises(ValueError, match="preserve lists 'cat'"):
        extended(cat, model, preserve=["cat"])
    with pytest.raises(ValueError, match="no concept 'dog', 'cat -> owl'; they hold 'cat'$"):
        restored(cat, model, ["dog", "cat -> owl"])
    with pytest.raises(ValueError, match="'cat' is both to be erased and to be restored"):
        updated(cat, model, [Concept("cat")], restore=["Cat"])


def test_one_taken_back_may_be_named_as_it_was_listed(model: FakeModel) -> None:
    both = gather_statistics(model, "cat\nbird -> owl", [""])
    cat = gather_statistics(model, "cat", [""])
    close(restored(both, model, ["bird -> owl", "bird"]), cat)
    other = updated(both, model, [Concept("bird", "dog")], restore=["bird"], common=False)
    assert other.concepts == (Concept("cat"), Concept("bird", "dog"))


def test_an_article_makes_no_other_concept(model: FakeModel) -> None:
    for prompts in ({"preserve": ["A cat"]}, {"exactly": ["the cat"]}):
        (what,) = prompts
        with pytest.raises(ValueError, match=f"{what} lists '(A|the) cat', which is to be erased"):
            gather_statistics(model, "cat", **prompts)
    gather_statistics(model, "cat", ["cat food", "an"])
    first = gather_statistics(model, "cat", ["", "a Dog"])
    close(extended(first, model, [Concept("dog")]), gather_statistics(model, "cat\ndog", [""]))


@pytest.mark.parametrize("name", ["CAT", "cats", "cat's", "cat.", "cat_", "a  cat", "The cat,"])
def test_punctuation_and_number_make_no_other_concept(model: FakeModel, name: str) -> None:
    for what in ("preserve", "exactly"):
        with pytest.raises(ValueError, match=f"{what} lists '.*', which is to be erased"):
            gather_statistics(model, Concept(name), **{what: ["a cat"]})
        with pytest.raises(ValueError, match=f"{what} lists '.*', which is to be erased"):
            gather_statistics(model, "cat", **{what: name})
    later = extended(gather_statistics(model, "dog", ["", "cat"]), model, [Concept(name)])
    assert later.preserve == ("",)


def test_what_is_drawn_instead_is_not_erased_sooner_or_later(model: FakeModel) -> None:
    for first, later in (("cat -> dog", "dog"), ("dog", "cat -> a dog"), ("dog -> owl", "cat -> dogs")):
        held = gather_statistics(model, first)
        with pytest.raises(ConceptError, match="^'cat -> .*' draws '.*dogs?', which is to be erased too"):
            extended(held, model, later)
        without = updated(held, model, later, restore=held.concepts[0].name, common=False)
        assert without.concepts == tuple(parse_concepts(later))


def test_a_prompt_to_preserve_later_is_called_by_its_list(model: FakeModel) -> None:
    with pytest.raises(ConceptError, match="^preserve"):
        extended(gather_statistics(model, "cat"), model, preserve=["a -> b"])


def test_what_is_read_alike_counts_once(model: FakeModel) -> None:
    once = gather_statistics(model, "cat", ["red  fish", "owl", "Red fish"], exactly=["a\tbird", "A bird"])
    assert once.preserve == ("red fish", "owl") and once.exactly == ("a bird",)
    close(once, gather_statistics(model, "cat", ["red fish", "owl"], exactly=["a bird"]))
    close(extended(once, model, [Concept("Cat")], ["RED fish"], exactly=["A Bird"]), once)
    with pytest.raises(ValueError, match="'van gogh' and 'Van Gogh' are the same to this text encoder; list one"):
        gather_statistics(model, "van gogh\nVan Gogh")
    with pytest.raises(ValueError, match="both statistics hold 'CAT'"):
        once + gather_statistics(model, "CAT")
    with pytest.raises(ValueError, match="both statistics hold 'OWL'"):
        once + gather_statistics(model, "dog", ["OWL"])
    assert updated(once, model, [Concept("dog")], restore=["Cat "], common=False).concepts == (Concept("dog"),)


def test_capitals_count_where_the_text_encoder_reads_them(model: FakeModel) -> None:
    model.cased = True
    both = gather_statistics(model, "Van Gogh -> art\nvan gogh", ["owl", "Owl"])
    assert len(both.concepts) == 2 and both.preserve == ("owl", "Owl")
    close(extended(gather_statistics(model, "Van Gogh -> art", ["owl"]), model, [Concept("van gogh")], ["Owl"]), both)
    close(restored(both, model, ["van  gogh"]), gather_statistics(model, "Van Gogh -> art", ["owl", "Owl"]))
    with pytest.raises(ValueError, match="'VAN GOGH' may be each of 'Van Gogh -> art', 'van gogh' in the"):
        restored(both, model, ["VAN GOGH"])
    with pytest.raises(ValueError, match="'Cat' is both to be erased and to be restored"):
        cats = gather_statistics(model, "Cat\ncat")
        updated(cats, model, [Concept("Cat")], restore=["Cat"])


def test_a_prompt_that_names_a_concept_among_other_things_is_told_of(model: FakeModel, caplog) -> None:
    first = gather_statistics(model, "cat", ["two cats on a mat", "in the style of cat", "a concatenation"])
    (told,) = caplog.messages
    assert "preserve lists 'two cats on a mat', which names 'cat' (so do 1 more): part of" in told
    caplog.clear()
    extended(first, model, [Concept("mat")])
    assert any("'two cats on a mat', which names" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["half \ud83d"], r"preserve lists 'half \\ud83d', which has '\\ud83d', which is not text"),
        ([3], "preserve lists 3, which is not text"),
        (3, "preserve is text or a list of texts, not 3"),
        ("dog -> fox", "preserve lists 'dog -> fox', which says what to draw instead; write only what to leave alone"),
        ("a (dog:1.3)", r"preserve lists 'a \(dog:1.3\)', which sets a weight"),
    ],
)
def test_prompts_that_are_none(model: FakeModel, prompts, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gather_statistics(model, "cat", prompts)
    assert gather_statistics(model, "cat", "a dog").preserve == ("a dog",)


def test_statistics_that_cannot_be_erased(model: FakeModel) -> None:
    cat = gather_statistics(model, "cat", [""])
    with pytest.raises(ValueError, match="hold no concept"):
        erase_statistics(model, restored(cat, model, ["cat"]), SETTINGS)
    with pytest.raises(
        ValueError, match=r"edit names only \(name_only\), the statistics are of all rows .*preset general or "
    ):
        erase_statistics(model, cat, ReceSettings(1, 0.1, name_only=True))
    other = FakeModel()
    other.text = {name: 2 * weight for name, weight in other.text.items()}
    with pytest.raises(ValueError, match="another text encoder"):
        erase_statistics(other, cat, SETTINGS)


def test_round_trip(model: FakeModel, tmp_path: Path) -> None:
    found = gather_statistics(model, "cat\nbird -> owl", ["", "dog"], exactly=["wolf"], name_only=True)
    path = save_statistics(found, tmp_path / "a.safetensors")
    back = load_statistics(path)
    assert all(torch.equal(one, other) for one, other in zip(sums(back), sums(found), strict=True))
    assert (back.concepts, back.preserve, back.exactly) == (found.concepts, found.preserve, found.exactly)
    assert back.name_only and torch.equal(back.entries[CONTEXT].reference_row, found.entries[CONTEXT].reference_row)
    with pytest.raises(FileExistsError, match="already there"):
        save_statistics(found, path)
    with pytest.raises(ValueError, match="statistics are saved as .safetensors"):
        save_statistics(found, tmp_path / "a.txt")
    damaged = gather_statistics(model, "dog")
    damaged.entries[CONTEXT].preserve_gram[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        save_statistics(damaged, tmp_path / "b.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_that_cannot_be_used(model: FakeModel, tmp_path: Path) -> None:
    path = save_statistics(gather_statistics(model, "cat"), tmp_path / "a.safetensors")
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["erasure_statistics"])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # older safetensors map the file

    def refused(message: str, tensors: dict, metadata: dict) -> None:
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(StatisticsFileError, match=message):
            load_statistics(path)

    def written(**changes) -> dict:
        return {"erasure_statistics": json.dumps(header | changes)}

    refused("holds no statistics", tensors, {})
    refused("has format 9", tensors, written(format=9))
    refused("'context' has a distance of -1, expected at least 0", tensors, written(distances={"context": -1}))
    refused("'context' of 'distances'", tensors, written(distances={"context": "far"}))
    refused("cannot be used as statistics: its header cannot be read", tensors, {"erasure_statistics": "{"})
    refused("pooled/edited.concepts is missing", tensors, written(entries=["pooled"]))
    refused("a concept needs a name", tensors, written(concepts=[{"name": "", "instead": ""}]))
    refused("expected 24 times 24", tensors | {"context/kept": torch.zeros(3, 3, dtype=torch.float64)}, written())
    refused("expected 24 times 24", tensors | {"context/kept": torch.zeros(24, 24)}, written())
    path.write_bytes(b"nonsense")
    with pytest.raises(StatisticsFileError, match="not a readable safetensors file"):
        load_statistics(path)
    with pytest.raises(FileNotFoundError):
        load_statistics(tmp_path / "none.safetensors")


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("preserve", [[], ["wolf"]])
def test_one_erasure_with_statistics_and_without(model: FakeModel, common: bool, preserve: list[str]) -> None:
    concepts = [Concept("cat"), Concept("bird", "owl")]
    prompts = [*(common_concepts(concepts) if common else []), *preserve]
    whole = rece(model, concepts, ReceSettings(loops=2, regularization=0.1), preserve=prompts)
    found, known = rece_with_statistics(model, concepts, SETTINGS, preserve=preserve, common=common)
    again = erase_statistics(model, known, SETTINGS)
    first = rece_with_statistics(model, concepts[:1], SETTINGS, common=common)[1]
    added, _ = rece_with_statistics(
        model, concepts[1:], SETTINGS, preserve=preserve, common=common, statistics=first
    )  # fmt: skip
    for other in (found, again, added):
        torch.testing.assert_close(change(other), change(whole), rtol=1e-4, atol=1e-6)


def test_the_empty_prompt_stands_in_where_nothing_is_preserved(model: FakeModel) -> None:
    first = rece_with_statistics(model, [Concept("cat")], SETTINGS)[1]
    assert first.preserve == ("",)
    assert updated(first, model, preserve=["wolf"], common=False).preserve == ("wolf",)
    only = gather_statistics(model, "cat", ["dog"])
    assert updated(only, model, [Concept("dog")], common=False).preserve == ("",)
