"""What is encoded, how often, and what waits for the device that computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from pure.fakes import FakeModel, Ragged, TwoTowers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from erasure_core import Concept, ConceptError, rece
from erasure_core.closed_form import collect, gatherer, linalg
from erasure_core.closed_form.align import aligned_rows, facing_rows
from erasure_core.closed_form.collect import gather_statistics, on_float64_device
from erasure_core.closed_form.statistics import Statistics
from erasure_core.closed_form.uce import PairSums
from erasure_core.concepts.remembered import RememberedRows
from erasure_core.concepts.suggest import suggest
from erasure_core.devices import on_cpu
from erasure_core.methods.rece import RECE, gather
from erasure_core.model import CONTEXT, NameReader, TextRows

MANY = [Concept(f"thing {number}", ("", "dog", "red fish", f"place {number}")[number % 4]) for number in range(60)]


class Counting(TorchDispatchMode):
    """Counts the calls of each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.calls[str(function.overloadpacket)] += 1
        return function(*arguments, **(keywords or {}))


class LeftToRight(FakeModel):
    """Reads names without what is behind them, and keeps a list of what it reads."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.whole: list[str] = []
        self.names: list[str] = []

    def text_rows(self, prompts: Sequence[str]):
        self.whole += prompts
        return super().text_rows(prompts)

    def name_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        self.names += prompts
        return self.encoded(prompts).rows(behind=1)


def sums(statistics: Statistics) -> list[Tensor]:
    found = []
    for entry in map(type(statistics.entries[CONTEXT]).summed, statistics.entries.values()):
        pairs = [*vars(entry.edited).values(), *vars(entry.derived).values()]
        found += [*pairs, entry.preserve_gram, entry.exactly_gram, torch.tensor([entry.distance])]
    return found


def close(one: Statistics, other: Statistics) -> None:
    for found, expected in zip(sums(one), sums(other), strict=True):
        assert float((found - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("kind", [FakeModel, TwoTowers, Ragged])
@pytest.mark.parametrize("name_only", [False, True])
def test_sums_are_those_of_the_pairs_one_by_one(kind: type[FakeModel], name_only: bool) -> None:
    model = kind()
    found = gather_statistics(model, MANY, ["bird", "owl"], exactly=["wolf"], name_only=name_only)
    for name, entry in found.entries.items():
        edited, derived = [], []
        for concept in MANY:
            one, other = model.text_rows([concept.name, concept.instead or " "])
            for mine, theirs in zip(one[name], other[name], strict=True):
                given = mine.rows, theirs.rows, mine.last_content, theirs.last_content
                aligned = aligned_rows(*given)
                aligned = (aligned[0][:1], aligned[1][:1]) if name_only else aligned
                edited.append(aligned)
                derived.append(aligned if name_only else facing_rows(*given))
        for sums_found, pairs in ((entry.edited, edited), (entry.derived, derived)):
            expected = PairSums.of(*map(list, zip(*pairs, strict=True)))
            torch.testing.assert_close(sums_found.concepts, expected.concepts, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(sums_found.crossed, expected.crossed, rtol=1e-12, atol=1e-12)


def test_sums_do_not_depend_on_how_many_rows_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gather_statistics(FakeModel(), MANY, ["bird", "owl"])
    monkeypatch.setattr(gatherer, "MOST_WAITING", 1)
    monkeypatch.setattr(gatherer, "MOST_TARGETS", 1)
    close(gather_statistics(FakeModel(), MANY, ["bird", "owl"]), expected)


def test_nothing_waits_for_the_device_concept_by_concept() -> None:
    """A GPU would have to finish all its work each time that a number is read from it."""
    waits = []
    for count in (20, 60):
        model, preserve = FakeModel(), [f"a kept {number}" for number in range(count)]
        with Counting() as counting:
            gather_statistics(model, MANY[:count], preserve)
        waits.append(counting.calls["aten._local_scalar_dense"])
    assert waits[0] == waits[1] > 0


def test_rows_that_are_not_finite_are_refused_once_they_are_added_up() -> None:
    model = FakeModel()
    for weight in model.text.values():
        weight[0] = torch.nan
    with pytest.raises(ValueError, match="a context holds NaN or infinite values"):
        gather_statistics(model, MANY)


def test_each_prompt_is_encoded_once_in_all_of_rece() -> None:
    model = LeftToRight()
    rece(model, "cat\ndog -> wolf", replace(RECE["general"], everyday_captions=False), preserve=["owl"])
    assert sorted(model.whole) == [" ", "cat", "dog", "owl", "wolf"] and model.names == []


def test_names_are_encoded_without_what_is_behind_them() -> None:
    model = LeftToRight()
    assert isinstance(model, NameReader) and not isinstance(FakeModel(), NameReader)
    found = gather_statistics(model, MANY, ["", "dog"], exactly=["owl"], name_only=True)
    assert sorted(model.whole) == ["", " ", "dog", "owl"]
    assert sorted(model.names) == sorted({*(one.name for one in MANY), *(one.instead for one in MANY)} - {"", "dog"})
    close(found, gather_statistics(FakeModel(), MANY, ["", "dog"], exactly=["owl"], name_only=True))
    rece(model, "cat", RECE["many"])
    assert model.names[-1] == "cat"
    with pytest.raises(ConceptError, match="reads nothing in 'cat'"):
        gather_statistics(Deaf("cat"), ["owl", "cat"], name_only=True)
    with pytest.raises(ConceptError, match="reads nothing in 'cat'"):
        gather_statistics(Deaf("cat"), ["owl -> cat"], name_only=True)
    gather_statistics(LeftToRight(), ["cat -> cat food", "dog food -> dog"], ["dog", "cat food"], name_only=True)


class Deaf(LeftToRight):
    """Reads nothing in one word, as CLIP does in an embedding that is not there."""

    def __init__(self, word: str):
        super().__init__()
        self.word = word

    def _words(self, prompt: str) -> list[str]:
        return [word for word in super()._words(prompt) if word != self.word]

    def reads(self, prompt: str) -> tuple[str, ...]:
        return tuple(prompt.split())


def test_what_was_encoded_for_other_names_is_remembered() -> None:
    model = LeftToRight()
    reader = RememberedRows(model)
    names = [name for name, _ in suggest(reader, "cat", ["kitty", "dog", "bird"], minimum=-1)]
    assert sorted(names) == ["bird", "dog", "kitty"]
    found = gather_statistics(reader, ["cat", *names], [" "])
    assert sorted(model.whole) == ["", "bird", "cat", "dog", "kitty"]
    close(found, gather_statistics(FakeModel(), ["cat", *names], [" "]))


def test_which_layers_of_clip_were_read_is_recorded_of_a_wrapped_model_too() -> None:
    model = FakeModel()
    model.clip_skip = 1
    for reader in (model, RememberedRows(model)):
        assert rece(reader, "cat").origins[0].settings["clip_skip"] == 1


def test_no_more_is_remembered_than_is_said() -> None:
    model = LeftToRight()
    reader = RememberedRows(model, most=2)
    for prompts in (["a", "b"], ["a", "c"], ["a"], ["b", "b"]):
        for one, prompt in zip(reader.text_rows(prompts), prompts, strict=True):
            assert torch.equal(one[CONTEXT][0].rows, model.encode_prompts([prompt]).context[0])
    assert model.whole == ["a", "b", "c", "b"]


@pytest.fixture
def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an Apple GPU."""
    for module in (collect, linalg):
        monkeypatch.setattr(module, "has_float64", lambda device: False)


def test_where_float64_is_missing_a_batch_moves_once(without_float64) -> None:
    reads = TwoTowers().text_rows([f"thing {number}" for number in range(8)])
    with Counting() as counting:
        moved = on_float64_device(reads)
    assert counting.calls["aten.cat"] == len(reads[0]) == 2
    for one, other in zip(moved, reads, strict=True):
        for name, parts in other.items():
            assert [part.last_content for part in one[name]] == [part.last_content for part in parts]
            assert all(torch.equal(a.rows, b.rows) for a, b in zip(one[name], parts, strict=True))


def test_where_float64_is_missing_a_sum_is_as_exact(without_float64) -> None:
    """Numbers of very different size, of which float32 would lose all but the largest."""
    draws = torch.Generator().manual_seed(0)
    weights = [torch.randn(6, 5, generator=draws) * 10.0**power for power in (4, 0, -2, 3, 1, 4)]
    expected = sum((weight.T @ weight).double() for weight in weights)
    found = linalg.gram_matrix(weights)
    assert found.dtype == torch.float64
    assert float((found - expected).abs().max()) < 1e-13 * float(expected.abs().max())


def test_weights_are_read_without_a_wait_for_each() -> None:
    waits = []
    for layers in (1, 4):
        entry = FakeModel().text_entries()[CONTEXT]
        entry = replace(entry, weights=dict(list(entry.weights.items())[:layers]))
        with Counting() as counting:
            gather(entry, {})
        waits.append(counting.calls["aten._local_scalar_dense"] - layers)  # on the CPU already, where it costs nothing
    assert waits[0] == waits[1]


def test_tensors_that_are_on_the_cpu_stay_as_they_are() -> None:
    tensors = [torch.zeros(2), torch.ones(3, 1)]
    assert all(one is other for one, other in zip(on_cpu(tensors), tensors, strict=True))
