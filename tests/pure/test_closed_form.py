"""The theorems of the closed form (docs/method.md), in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pure.fakes import systems
from torch import Tensor

from erasure_core import derived_context, edit_map
from erasure_core.closed_form.align import aligned_rows, facing_rows
from erasure_core.closed_form.derived_contexts import DerivedSystem
from erasure_core.closed_form.linalg import (
    SingularSystemError,
    cholesky,
    free_directions,
    gram_matrix,
    row_gram,
)  # fmt: skip
from erasure_core.closed_form.uce import PairSums, RowPairs, edit_step
from erasure_core.erasures.low_rank import LowRank

F64 = torch.float64
SCALES = {"erase_scale": 1.0, "preserve_scale": 0.1, "ridge": 0.1}
quick = settings(max_examples=30)


def solved(system: dict, **changes) -> Tensor:
    given_ = {**system, **changes}
    scales = {**system["scales"], **changes.get("scales", {})}
    return edit_map(given_["concepts"], given_["targets"], given_["preserved"], **scales)


def loss(edited: Tensor, weight: Tensor, system: dict) -> float:
    """What the paper minimises for one layer, written out."""
    scales = system["scales"]
    pairs = zip(system["concepts"], system["targets"], strict=True)
    erased = sum(float((edited @ k.T - weight @ t.T).square().sum()) for k, t in pairs)
    kept = sum(float((edited @ r.T - weight @ r.T).square().sum()) for r in system["preserved"])
    moved = float((edited - weight).square().sum())
    return scales["erase_scale"] * erased + scales["preserve_scale"] * kept + scales["ridge"] * moved


def minimiser(weight: Tensor, system: dict) -> Tensor:
    """One layer by itself: stacked least squares in the layer's own weights, without a map."""
    scales = {name: value**0.5 for name, value in system["scales"].items()}
    left = [scales["erase_scale"] * k for k in system["concepts"]]
    right = [scales["erase_scale"] * t @ weight.T for t in system["targets"]]
    left += [scales["preserve_scale"] * r for r in system["preserved"]]
    right += [scales["preserve_scale"] * r @ weight.T for r in system["preserved"]]
    left.append(scales["ridge"] * torch.eye(weight.shape[1], dtype=F64))
    right.append(scales["ridge"] * weight.T)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right), driver="gelsd").solution.T


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    scale = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= tolerance * scale


@quick
@given(systems())
def test_one_map_is_every_layers_own_minimiser(system: dict) -> None:
    edit = solved(system)
    for weight in system["weights"]:
        close(weight @ edit, minimiser(weight, system))


@quick
@given(systems(), st.integers(0, 2**32 - 1), st.floats(1e-4, 1.0))
def test_no_other_weights_do_better(system: dict, seed: int, size: float) -> None:
    weight = system["weights"][0]
    best = weight @ solved(system)
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    assert loss(best, weight, system) < loss(best + size * step, weight, system)


@quick
@given(systems())
def test_the_rank_is_at_most_the_rows_edited(system: dict) -> None:
    edit = solved(system)
    rows = sum(len(concept) for concept in system["concepts"])
    values = torch.linalg.svdvals(edit - torch.eye(len(edit), dtype=F64))
    assert (values[rows:] < 1e-8 * max(1.0, float(values[0]))).all()


@quick
@given(systems())
def test_low_rank_is_dense(system: dict) -> None:
    step = edit_step(system["concepts"], system["targets"], row_gram(system["preserved"]), **system["scales"])
    dense = solved(system) - torch.eye(step.down.shape[1], dtype=F64)
    close(step.dense(), dense)
    small = step.recompressed(1e-12)
    close(small.dense(), dense)
    assert small.rank <= step.rank <= min(len(dense), sum(map(len, system["concepts"])))
    close(small.down @ small.down.T, torch.eye(small.rank, dtype=F64))


@quick
@given(systems(), st.randoms(use_true_random=False))
def test_the_order_of_concepts_does_not_matter(system: dict, shuffle) -> None:
    order = list(range(len(system["concepts"])))
    shuffle.shuffle(order)
    moved = {name: [system[name][index] for index in order] for name in ("concepts", "targets")}
    close(solved(system, **moved), solved(system))


@quick
@given(systems(), st.floats(0.1, 10))
def test_only_the_ratio_of_coefficients_matters(system: dict, factor: float) -> None:
    scales = {name: factor * value for name, value in system["scales"].items()}
    close(solved(system, scales=scales), solved(system))


@quick
@given(systems())
def test_preserving_twice_is_preserving_twice_as_much(system: dict) -> None:
    scales = {"preserve_scale": 2 * system["scales"]["preserve_scale"]}
    close(solved(system, preserved=system["preserved"] * 2), solved(system, scales=scales))


@quick
@given(systems())
def test_a_concept_that_is_its_target_changes_nothing(system: dict) -> None:
    edit = solved(system, targets=system["concepts"])
    close(edit, torch.eye(len(edit), dtype=F64))


@quick
@given(systems())
def test_a_large_ridge_changes_little(system: dict) -> None:
    edit = solved(system, scales={"ridge": 1e12})
    close(edit, torch.eye(len(edit), dtype=F64), 1e-6)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_a_gram_matrix_is_the_sum_over_weights_of_any_height(precision: torch.dtype) -> None:
    weights = [torch.randn(size, 6, dtype=precision).requires_grad_() for size in (4, 9, 1, 30)]
    expected = sum(weight.detach().double().T @ weight.detach().double() for weight in weights)
    close = {"rtol": 1e-5 if precision == torch.float32 else 1e-14, "atol": 1e-5}
    torch.testing.assert_close(gram_matrix(weights), expected, **close)
    mixed = gram_matrix([weights[0], weights[1].to(torch.bfloat16), weights[2].to(torch.float64)])
    assert mixed.dtype == torch.float64 and mixed.isfinite().all()


def test_a_strong_erasure_sends_concepts_to_their_targets() -> None:
    concepts, targets, kept = torch.randn(3, 4, 20, generator=torch.Generator().manual_seed(0), dtype=F64)
    edit = edit_map([concepts], [targets], [kept], erase_scale=1e6, preserve_scale=1e6, ridge=1e-6)
    close(concepts @ edit.T, targets, 1e-4)
    close(kept @ edit.T, kept, 1e-4)


@quick
@given(systems())
def test_edits_compose(system: dict) -> None:
    one = edit_step(system["concepts"], system["targets"], row_gram(system["preserved"]), **system["scales"])
    other = edit_step(system["targets"], system["concepts"], None, **system["scales"])
    eye = torch.eye(one.down.shape[1], dtype=F64)
    close(eye + one.followed_by(other).dense(), (eye + one.dense()) @ (eye + other.dense()))


def some_directions(width: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """``count`` orthonormal columns, and those that complete them."""
    square = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=F64)
    basis = torch.linalg.qr(square).Q
    return basis[:, :count], basis[:, count:]


@quick
@given(systems(), st.integers(1, 9), st.integers(0, 2**32 - 1), st.booleans())
def test_sums_are_as_good_as_rows(system: dict, count: int, seed: int, confined: bool) -> None:
    width = system["concepts"][0].shape[1]
    free = some_directions(width, min(count, width), seed)[0] if confined else None
    kept = row_gram(system["preserved"])
    seen = DerivedSystem.of(gram_matrix(system["weights"]))
    found = []
    for pairs in (RowPairs, PairSums.of):
        one = pairs(system["concepts"], system["targets"])
        step = one.step(kept, free, **system["scales"])
        other = one.derived(seen.after(step), 0.5).step(kept, free, **system["scales"])
        found.append(step.followed_by(other).dense())
    close(found[1], found[0], 1e-9)


@quick
@given(systems(), st.integers(1, 8), st.integers(0, 2**32 - 1), st.floats(1e-4, 1.0))
def test_an_exempt_direction_is_left_exactly_alone(system: dict, count: int, seed: int, size: float) -> None:
    weight = system["weights"][0]
    width = weight.shape[1]
    free, exempt = some_directions(width, min(count, width - 1), seed)
    kept = row_gram(system["preserved"])
    step = edit_step(system["concepts"], system["targets"], kept, free=free, **system["scales"]).dense()
    close(step @ exempt, torch.zeros_like(exempt), 1e-12)
    best = weight + weight @ step
    other = torch.randn(len(weight), free.shape[1], generator=torch.Generator().manual_seed(seed), dtype=F64) @ free.T
    assert loss(best, weight, system) < loss(best + size * other, weight, system)


@quick
@given(systems())
def test_with_every_direction_free_nothing_is_exempt(system: dict) -> None:
    everything = torch.eye(system["concepts"][0].shape[1], dtype=F64).flip(0)
    given_ = system["concepts"], system["targets"], row_gram(system["preserved"])
    confined = edit_step(*given_, free=everything, **system["scales"])
    close(confined.dense(), edit_step(*given_, **system["scales"]).dense())


@quick
@given(systems(), st.floats(0, 0.99))
def test_free_directions_are_as_many_as_the_tolerance_allows(system: dict, tolerance: float) -> None:
    rows = torch.cat(system["concepts"])
    free = free_directions(row_gram([rows]), tolerance)
    width, count = free.shape
    torch.testing.assert_close(free.T @ free, torch.eye(count, dtype=F64))
    assert count >= width - len(rows)
    assert float((rows @ free).norm()) <= max(tolerance, 1e-6) * float(rows.norm())
    values = torch.linalg.svdvals(rows).square().flip(0)
    values = torch.cat([torch.zeros(width - len(values), dtype=F64), values])
    assert count == width or float(values[: count + 1].sum()) > tolerance**2 * float(values.sum())


def test_a_tolerance_is_a_share() -> None:
    for tolerance in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="tolerance must be from 0 to less than 1"):
            free_directions(row_gram([ROWS]), tolerance)
    with pytest.raises(ValueError, match="what is exempt is 4 wide, concept rows 5"):
        edit_step([ROWS], [ROWS], None, free=torch.eye(4, dtype=F64), **SCALES)


@quick
@given(systems(), st.floats(0.01, 10))
def test_a_derived_context_is_the_minimiser(system: dict, regularization: float) -> None:
    edit, context, weights = solved(system), system["concepts"][0], system["weights"]
    found = derived_context(context, gram_matrix(weights), edit, regularization=regularization)
    left = [weight @ edit for weight in weights] + [regularization**0.5 * torch.eye(len(edit), dtype=F64)]
    right = [weight @ context.T for weight in weights] + [torch.zeros(len(edit), len(context), dtype=F64)]
    close(found, torch.linalg.lstsq(torch.cat(left), torch.cat(right), driver="gelsd").solution.T, 1e-7)


@quick
@given(systems())
def test_contexts_derived_step_by_step_are_those_of_the_whole_edit(system: dict) -> None:
    gram = gram_matrix(system["weights"])
    one = edit_step(system["concepts"], system["targets"], None, **system["scales"])
    other = edit_step(system["targets"], system["concepts"], row_gram(system["preserved"]), **system["scales"])
    edit = torch.eye(len(gram), dtype=F64) + one.followed_by(other).dense()
    together = DerivedSystem.of(gram).after(one).after(other).derived(system["concepts"], regularization=0.1)
    for context, derived in zip(system["concepts"], together, strict=True):
        close(derived, derived_context(context, gram, edit, regularization=0.1), 1e-7)


def test_without_an_edit_the_derived_context_is_the_context() -> None:
    weights = torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(1), dtype=F64)
    context = torch.randn(5, 6, generator=torch.Generator().manual_seed(2), dtype=F64)
    close(derived_context(context, gram_matrix(weights), torch.eye(6), regularization=1e-9), context, 1e-6)


def test_aligned_rows_have_the_same_length() -> None:
    rows = torch.arange(10.0)[:, None].expand(10, 2)
    concept, target = aligned_rows(rows, rows, 2, 5)
    assert concept[:, 0].tolist() == [2, 3, 4, 5, 6] and target[:, 0].tolist() == [5, 6, 7, 8, 9]
    concept, target = aligned_rows(rows, rows, 4, 1)
    assert concept[:, 0].tolist() == [4, 5, 6, 7, 8, 9] and target[:, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_nothing_takes_up_no_direction() -> None:
    assert free_directions(torch.zeros(4, 4, dtype=F64), 0.1).shape == (4, 4)


def test_contexts_of_one_length_face_each_other_whole() -> None:
    one, other = torch.arange(10.0)[:, None], 10 + torch.arange(10.0)[:, None]
    assert facing_rows(one, other, 7, 2) == (one, other)


@pytest.mark.parametrize(
    ("lengths", "ends", "concept", "target"),
    [
        ((8, 5), (4, 2), [0, 1, 4, 5, 6], [0, 1, 2, 3, 4]),  # the start, then from the last tokens on, cut at the end
        ((5, 8), (2, 4), [0, 1, 2, 3, 4], [0, 1, 4, 5, 6]),
        ((8, 5), (1, 3), [0, 1, 2], [0, 3, 4]),
        ((3, 9), (2, 0), [2], [0]),
    ],
)
def test_contexts_of_unequal_length_face_each_other(lengths, ends, concept, target) -> None:
    """Encoders that give as many rows as tokens: the last content tokens face each other, whatever the lengths."""
    found = facing_rows(*(torch.arange(float(length))[:, None] for length in lengths), *ends)
    assert [one.flatten().tolist() for one in found] == [concept, target]


@pytest.mark.parametrize(("smallest", "singular"), [(1.01e-8, False), (0.99e-8, True), (0.0, True), (-1.0, True)])
def test_what_is_too_near_to_singular_is_refused(smallest: float, singular: bool) -> None:
    """By the smallest against the largest number on the factor's diagonal."""
    factor = torch.diag(torch.tensor([3.0, 2.0, 3 * smallest], dtype=F64))
    system = factor @ factor.T * (1 if smallest >= 0 else -1)
    for scale in (1e-6, 1.0, 1e6):
        if singular:
            with pytest.raises(SingularSystemError, match="is singular, so the edit is not determined; raise ridge"):
                cholesky(scale * system)
        else:
            close(cholesky(scale * system), scale**0.5 * factor, 1e-12)


def test_a_system_that_is_not_finite_is_refused() -> None:
    for bad in (torch.nan, torch.inf):
        with pytest.raises(SingularSystemError):
            cholesky(torch.diag(torch.tensor([1.0, bad], dtype=F64)))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 8))
@quick
def test_the_best_approximation_of_a_rank(rows: int, columns: int, rank: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 10 + columns), dtype=F64)
    best = LowRank(matrix, torch.eye(columns, dtype=F64)).recompressed(max_rank=rank)
    left = torch.linalg.svdvals(matrix)[rank:]
    assert best.rank == min(rank, rows, columns)
    assert float((best.dense() - matrix).norm()) == pytest.approx(float(left.norm()), abs=1e-10)


ROWS = torch.randn(2, 5, generator=torch.Generator().manual_seed(3), dtype=F64)


@pytest.mark.parametrize(
    ("concepts", "targets", "preserved", "message"),
    [
        ([], [], [], "at least one"),
        ([ROWS], [], [], "as many targets"),
        ([ROWS], [ROWS[:1]], [], r"concept 0 is \(2, 5\) but its target \(1, 5\)"),
        ([ROWS[0]], [ROWS[0]], [], r"expected rows of shape \[rows, d\], got \(5,\)"),
        ([ROWS, ROWS[:, :4]], [ROWS, ROWS[:, :4]], [], r"differ in width: \[4, 5\]"),
        ([ROWS], [ROWS], [ROWS[:, :4]], "preserved rows are 4 wide, concept rows 5"),
        ([ROWS * torch.nan], [ROWS], [], "NaN or infinite"),
        ([ROWS], [ROWS * torch.inf], [], "NaN or infinite"),
        ([ROWS], [ROWS], [ROWS * torch.inf], "NaN or infinite"),
        ([ROWS], [ROWS], [ROWS, ROWS[:, :4]], "differ in width"),
    ],
)
def test_rows_that_cannot_be_used(concepts, targets, preserved, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edit_map(concepts, targets, preserved, **SCALES)


@pytest.mark.parametrize("name", list(SCALES))
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_coefficients_that_cannot_be_used(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number"):
        edit_map([ROWS], [ROWS], [], **{**SCALES, name: value})


def test_a_singular_system_is_an_error() -> None:
    with pytest.raises(SingularSystemError, match="raise ridge"):
        edit_map([ROWS], [ROWS], [], erase_scale=1, preserve_scale=1, ridge=0)
    with pytest.raises(SingularSystemError, match="regularization"):
        derived_context(ROWS, gram_matrix([ROWS]), torch.eye(5), regularization=0)


def test_a_gram_matrix_needs_weights() -> None:
    with pytest.raises(ValueError, match="no weights"):
        gram_matrix([])


def test_single_precision_and_half_give_float64() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert edit_map([ROWS.to(dtype)], [ROWS.to(dtype)], [], **SCALES).dtype == F64
