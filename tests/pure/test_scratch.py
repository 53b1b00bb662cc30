"""Products that share their memory: right whatever came before, and without new memory for each layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from erasure_core.closed_form.linalg import gram_matrix
from erasure_core.devices import Scratch
from erasure_core.erasures import erasure
from erasure_core.erasures.erasure import deltas_of
from erasure_core.erasures.low_rank import LowRank
from erasure_core.model import TextEntry

HEIGHT, SIDE, RANK = 16, 12, 8


class _Pieces(TorchDispatchMode):
    """Keeps every tensor that an operation returns, so that no memory is used twice unless the code does so."""

    def __init__(self):
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.kept += [one for one in (result if isinstance(result, tuple | list) else [result])
                      if isinstance(one, Tensor)]  # fmt: skip
        return result


def pieces_taken(entry: TextEntry, least: int, run: Callable[[], object]) -> int:
    """In how many pieces of memory of at least so many bytes, beside the weights, ``run`` has put its numbers."""
    with _Pieces() as pieces:
        run()
    own = {weight.data_ptr() for weight in entry.weights.values()}
    return len({one.untyped_storage().data_ptr() for one in pieces.kept if one.nbytes >= least} - own)


def entry_of(layers: int) -> TextEntry:
    generator = torch.Generator().manual_seed(layers)
    return TextEntry({f"layer {number}": torch.randn(HEIGHT, SIDE, generator=generator) for number in range(layers)})


ENTRIES = entry_of(2), entry_of(20)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """All changes are kept in float16, as those of large models are."""
    monkeypatch.setattr(erasure, "MOST_BYTES", 0)


@given(st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_product_does_not_depend_on_those_before(shapes: list[tuple[int, int, int]], random) -> None:
    scratch = Scratch()
    for rows, inner, columns in shapes:
        precision = random.choice([torch.float32, torch.float64])
        left = torch.randn(rows, inner, dtype=precision, requires_grad=True)
        right = torch.randn(inner, columns, dtype=precision)
        found = scratch.product(left, right)
        assert not found.requires_grad
        torch.testing.assert_close(found, (left @ right).detach())


def test_a_gram_matrix_takes_no_more_memory_for_more_layers() -> None:
    """On SDXL a new product for each of 141 weights took up to two gigabytes, in holes that the next did not fit."""
    few, many = (pieces_taken(one, 4 * SIDE**2, lambda one=one: gram_matrix(one.weights.values())) for one in ENTRIES)
    assert few == many


@pytest.mark.usefixtures("half")
def test_changes_in_half_precision_take_no_more_pieces_of_memory_for_more_layers() -> None:
    change = LowRank(torch.randn(SIDE, RANK), torch.randn(RANK, SIDE))
    few, many = (pieces_taken(one, 4 * HEIGHT * RANK, lambda one=one: deltas_of(change, one)) for one in ENTRIES)
    assert few == many


@pytest.mark.usefixtures("half")
def test_changes_in_half_precision_are_those_of_their_own_layer() -> None:
    entry, change = entry_of(5), LowRank(torch.randn(SIDE, RANK), torch.randn(RANK, SIDE))
    deltas, lost = deltas_of(change, entry)
    assert 0 < lost < 1e-3
    for name, weight in entry.weights.items():
        assert deltas[name].up.dtype == torch.float16
        torch.testing.assert_close(deltas[name].dense(), weight @ change.dense(), rtol=0, atol=0.05)
