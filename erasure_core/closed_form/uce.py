"""The edit of UCE (arXiv 2308.14761, eq. 7), solved by normal equations, from rows or from sums over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..erasures.low_rank import LowRank
from .derived_contexts import DerivedSystem
from .linalg import check_coefficients, check_widths, row_gram, solve_positive, stacked


def edit_map(
    concepts: Sequence[Tensor],
    targets: Sequence[Tensor],
    preserved: Sequence[Tensor],
    *,
    erase_scale: float,
    preserve_scale: float,
    ridge: float,
) -> Tensor:
    """Return the map ``A`` with which every edited projection is ``W A`` (UCE, arXiv 2308.14761, eq. 7).

    ``concepts[i]`` and ``targets[i]`` are the paired rows ``K_i`` and ``T_i``, ``[rows_i, d]``; ``preserved[j]`` are
    the rows ``R_j``, ``[rows_j, d]``, and there may be none. The coefficients are at least 0. Returns float64
    ``[d, d]``; for any ``W``, the minimiser of ``erase_scale * sum_i |W' K_i^T - W T_i^T|^2 + preserve_scale *
    sum_j |W' R_j^T - W R_j^T|^2 + ridge * |W' - W|^2`` over ``W'`` is ``W A``. Raises ``ValueError`` for shapes that
    do not fit and for numbers that are not finite or negative, and ``SingularSystemError`` when the minimiser is not
    unique.
    """
    step = edit_step(
        concepts,
        targets,
        row_gram(preserved),
        erase_scale=erase_scale,
        preserve_scale=preserve_scale,
        ridge=ridge,
    )
    return torch.eye(step.up.shape[0], dtype=step.up.dtype, device=step.up.device) + step.dense()


def edit_step(
    concepts: Sequence[Tensor],
    targets: Sequence[Tensor],
    preserve_gram: Tensor | None,
    *,
    erase_scale: float,
    preserve_scale: float,
    ridge: float,
    free: Tensor | None = None,
) -> LowRank:
    """Return ``E = A - I`` of ``edit_map`` as two factors; their rank is the number of concept rows, at most ``d``.

    ``preserve_gram`` is the ``row_gram`` of the preserved rows, or ``None``. ``free``, orthonormal columns ``[d, f]``,
    restricts the edit to changes ``E`` with ``E q = 0`` for every ``q`` orthogonal to the columns (a null space
    constraint, as in SPEED, arXiv 2503.07392); by default there is no restriction. The other arguments and the errors
    are those of ``edit_map``.
    """
    scales = {"erase_scale": erase_scale, "preserve_scale": preserve_scale, "ridge": ridge}
    _check_pairs(concepts, targets)
    width = concepts[0].shape[1] if free is None else free.shape[1]
    if sum(map(len, concepts)) >= width:
        return PairSums.of(concepts, targets).step(preserve_gram, free, **scales)
    rows, shift = stacked(concepts), stacked(targets) - stacked(concepts)
    system = _system(concepts[0].shape[1], preserve_gram, free, rows.device, **scales)
    inside = rows if free is None else rows @ free
    system.addmm_(inside.T, inside, alpha=erase_scale)
    down = solve_positive(system, inside.T).T
    return LowRank(erase_scale * shift.T, down if free is None else down @ free.T)


@dataclass(frozen=True)
class RowPairs:
    """Paired rows of concepts and targets, ``[rows_i, d]`` each: used while these are fewer rows than ``d``."""

    concepts: Sequence[Tensor]
    targets: Sequence[Tensor]

    def step(self, preserve_gram: Tensor | None, free: Tensor | None, **scales: float) -> LowRank:
        """Solve one step of the edit; see ``edit_step``."""
        return edit_step(self.concepts, self.targets, preserve_gram, free=free, **scales)

    def derived(self, system: DerivedSystem, regularization: float) -> RowPairs:
        """Return these pairs with the derived contexts (RECE, eq. 6) in place of the concepts."""
        return RowPairs(system.derived(self.concepts, regularization=regularization), self.targets)

    def summed(self) -> PairSums:
        """Return the sums over these pairs."""
        return PairSums.of(self.concepts, self.targets)


@dataclass(frozen=True)
class PairSums:
    """Sums over any number of paired rows: ``sum K^T K`` and ``sum K^T T``, float64 ``[d, d]`` each.

    They are sufficient for a step of the edit. The derived context of ``K`` is ``K M^T``, so its sums are
    ``M (K^T K) M^T`` and ``M (K^T T)``.
    """

    concepts: Tensor
    crossed: Tensor

    @classmethod
    def of(cls, concepts: Sequence[Tensor], targets: Sequence[Tensor]) -> PairSums:
        """Sum up paired row matrices ``[rows_i, d]``."""
        _check_pairs(concepts, targets)
        width, device = concepts[0].shape[1], concepts[0].device
        sums = cls(*(torch.zeros(width, width, dtype=torch.float64, device=device) for _ in range(2)))
        for concept, target in zip(concepts, targets, strict=True):
            sums.add_(concept, target)
        return sums

    def summed(self) -> PairSums:
        """Return these sums, as ``RowPairs.summed`` does."""
        return self

    def plus(self, other: PairSums, sign: int) -> PairSums:
        """Return these sums plus ``sign`` (1 or -1) times those of ``other``."""
        return PairSums(
            self.concepts + sign * other.concepts.to(self.concepts),
            self.crossed + sign * other.crossed.to(self.crossed),
        )

    def add_(self, concept: Tensor, target: Tensor) -> None:
        """Add the rows of one pair, ``[rows, d]`` each, in place."""
        rows = stacked([concept])
        self.concepts.addmm_(rows.T, rows)
        self.crossed.addmm_(rows.T, stacked([target]))

    def step(self, preserve_gram: Tensor | None, free: Tensor | None, **scales: float) -> LowRank:
        """Solve one step of the edit; see ``edit_step``."""
        system = _system(len(self.concepts), preserve_gram, free, self.concepts.device, **scales)
        right = scales["erase_scale"] * (self.crossed - self.concepts)
        if free is None:
            eye = torch.eye(len(system), dtype=system.dtype, device=system.device)
            return LowRank(solve_positive(system.add_(self.concepts, alpha=scales["erase_scale"]), right).T, eye)
        system += scales["erase_scale"] * (free.T @ self.concepts @ free)
        return LowRank(solve_positive(system, free.T @ right).T, free.T.contiguous())

    def derived(self, system: DerivedSystem, regularization: float) -> PairSums:
        """Return the sums with the derived contexts (RECE, eq. 6) in place of the concepts."""
        back = system.regenerating(regularization)
        return PairSums(back @ self.concepts @ back.T, back @ self.crossed)


def _system(
    width: int,
    preserve_gram: Tensor | None,
    free: Tensor | None,
    device: torch.device,
    *,
    erase_scale: float,
    preserve_scale: float,
    ridge: float,
) -> Tensor:
    """Return the part of the normal equations without concepts: ``preserve_scale * preserve_gram + ridge I``.

    It is float64 ``[d, d]``, or ``[f, f]`` in the basis ``free``. ``width`` is ``d``.
    """
    check_coefficients(erase_scale=erase_scale, preserve_scale=preserve_scale, ridge=ridge)
    if preserve_gram is not None and len(preserve_gram) != width:
        raise ValueError(f"preserved rows are {len(preserve_gram)} wide, concept rows {width}")
    if free is not None and len(free) != width:
        raise ValueError(f"what is exempt is {len(free)} wide, concept rows {width}")
    inside = width if free is None else free.shape[1]
    system = torch.zeros(inside, inside, dtype=torch.float64, device=device)
    if preserve_gram is not None:
        system += preserve_scale * (preserve_gram if free is None else free.T @ preserve_gram @ free)
    system.diagonal().add_(ridge)
    return system


def _check_pairs(concepts: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    if len(concepts) != len(targets) or not len(concepts):
        raise ValueError(f"need as many targets as concepts and at least one, got {len(concepts)} and {len(targets)}")
    for index, (concept, target) in enumerate(zip(concepts, targets, strict=True)):
        if concept.shape != target.shape:
            raise ValueError(f"concept {index} is {tuple(concept.shape)} but its target {tuple(target.shape)}")
    check_widths(concepts)
