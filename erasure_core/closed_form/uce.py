"""The edit of UCE (arXiv 2308.14761, eq. 7) as normal equations, from rows or from sums of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..erasures.low_rank import LowRank
from .derived_contexts import SeenWeights
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
    """The ``A`` of shape ``[d, d]`` with which every edited projection is ``W A`` (UCE, arXiv 2308.14761, eq. 7).

    ``concepts[i]`` and ``targets[i]`` are row matrices ``[rows_i, d]``, ``preserved[j]`` is ``[rows_j, d]``.
    ``W A`` minimises ``erase_scale * sum |W' K_i^T - W T_i^T|^2 + preserve_scale * sum |W' R_j^T - W R_j^T|^2 +
    ridge * |W' - W|^2`` over ``W'``, for any ``W``. Returns float64. Raises ``ValueError`` for shapes that do not fit,
    numbers that are not finite or negative, and ``SingularSystemError`` when there is no unique solution.
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
    kept: Tensor | None,
    *,
    erase_scale: float,
    preserve_scale: float,
    ridge: float,
    free: Tensor | None = None,
) -> LowRank:
    """``edit_map`` without the identity, as factors of rank at most the number of concept rows and at most ``d``.

    ``kept`` is the ``row_gram`` of what is preserved. ``free``, ``[d, f]`` with orthonormal columns, confines the edit
    ``E`` to what they span: it is the minimiser among those with ``E q = 0`` for all ``q`` orthogonal to them.
    """
    scales = {"erase_scale": erase_scale, "preserve_scale": preserve_scale, "ridge": ridge}
    _check_pairs(concepts, targets)
    width = concepts[0].shape[1] if free is None else free.shape[1]
    if sum(map(len, concepts)) >= width:
        return PairSums.of(concepts, targets).step(kept, free, **scales)
    rows, moved = stacked(concepts), stacked(targets) - stacked(concepts)
    system = _system(concepts[0].shape[1], kept, free, rows.device, **scales)
    inside = rows if free is None else rows @ free
    system.addmm_(inside.T, inside, alpha=erase_scale)
    down = solve_positive(system, inside.T).T
    return LowRank(erase_scale * moved.T, down if free is None else down @ free.T)


@dataclass(frozen=True)
class RowPairs:
    """Contexts to erase and what they should become, row by row: for as many rows as fit into memory."""

    concepts: Sequence[Tensor]
    targets: Sequence[Tensor]

    def step(self, kept: Tensor | None, free: Tensor | None, **scales: float) -> LowRank:
        """See ``edit_step``."""
        return edit_step(self.concepts, self.targets, kept, free=free, **scales)

    def derived(self, seen: SeenWeights, regularization: float) -> RowPairs:
        """With the contexts that best regenerate the concepts in their places."""
        return RowPairs(seen.derived(self.concepts, regularization=regularization), self.targets)

    def summed(self) -> PairSums:
        return PairSums.of(self.concepts, self.targets)


@dataclass(frozen=True)
class PairSums:
    """The same as sums over any number of rows, ``[d, d]`` each: ``sum K^T K`` and ``sum K^T T``.

    That is all a step needs. A derived context is ``K M^T``, so its sums are ``M (K^T K) M^T`` and ``M (K^T T)``.
    """

    concepts: Tensor
    crossed: Tensor

    @classmethod
    def of(cls, concepts: Sequence[Tensor], targets: Sequence[Tensor]) -> PairSums:
        """Of row matrices ``[rows_i, d]``."""
        _check_pairs(concepts, targets)
        width, device = concepts[0].shape[1], concepts[0].device
        sums = cls(*(torch.zeros(width, width, dtype=torch.float64, device=device) for _ in range(2)))
        for concept, target in zip(concepts, targets, strict=True):
            sums.add_(concept, target)
        return sums

    def summed(self) -> PairSums:
        return self

    def plus(self, other: PairSums, sign: int) -> PairSums:
        """With ``sign`` times the other's."""
        return PairSums(
            self.concepts + sign * other.concepts.to(self.concepts),
            self.crossed + sign * other.crossed.to(self.crossed),
        )

    def add_(self, concept: Tensor, target: Tensor) -> None:
        """Add the rows of one pair, in place."""
        rows = stacked([concept])
        self.concepts.addmm_(rows.T, rows)
        self.crossed.addmm_(rows.T, stacked([target]))

    def step(self, kept: Tensor | None, free: Tensor | None, **scales: float) -> LowRank:
        """See ``edit_step``."""
        system = _system(len(self.concepts), kept, free, self.concepts.device, **scales)
        asked = scales["erase_scale"] * (self.crossed - self.concepts)
        if free is None:
            eye = torch.eye(len(system), dtype=system.dtype, device=system.device)
            return LowRank(solve_positive(system.add_(self.concepts, alpha=scales["erase_scale"]), asked).T, eye)
        system += scales["erase_scale"] * (free.T @ self.concepts @ free)
        return LowRank(solve_positive(system, free.T @ asked).T, free.T.contiguous())

    def derived(self, seen: SeenWeights, regularization: float) -> PairSums:
        """With the contexts that best regenerate the concepts in their places."""
        back = seen.regenerating(regularization)
        return PairSums(back @ self.concepts @ back.T, back @ self.crossed)


def _system(
    width: int,
    kept: Tensor | None,
    free: Tensor | None,
    device: torch.device,
    *,
    erase_scale: float,
    preserve_scale: float,
    ridge: float,
) -> Tensor:
    """The normal equations before the concepts: ``preserve_scale * kept + ridge I``, in the basis ``free``."""
    check_coefficients(erase_scale=erase_scale, preserve_scale=preserve_scale, ridge=ridge)
    if kept is not None and len(kept) != width:
        raise ValueError(f"preserved rows are {len(kept)} wide, concept rows {width}")
    if free is not None and len(free) != width:
        raise ValueError(f"what is exempt is {len(free)} wide, concept rows {width}")
    inside = width if free is None else free.shape[1]
    system = torch.zeros(inside, inside, dtype=torch.float64, device=device)
    if kept is not None:
        system += preserve_scale * (kept if free is None else free.T @ kept @ free)
    system.diagonal().add_(ridge)
    return system


def _check_pairs(concepts: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    if len(concepts) != len(targets) or not len(concepts):
        raise ValueError(f"need as many targets as concepts and at least one, got {len(concepts)} and {len(targets)}")
    for index, (concept, target) in enumerate(zip(concepts, targets, strict=True)):
        if concept.shape != target.shape:
            raise ValueError(f"concept {index} is {tuple(concept.shape)} but its target {tuple(target.shape)}")
    check_widths(concepts)
