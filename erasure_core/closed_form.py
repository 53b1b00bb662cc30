"""The closed-form mathematics of UCE and RECE in embedding space, in float64 on plain tensors.

Every cross-attention projection ``W_l`` is edited to ``W_l A`` with one ``A`` of shape ``[d, d]`` for all layers,
because the target values ``W_l T`` are linear in ``W_l``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class SingularSystemError(ValueError):
    """The normal equations have no unique solution."""


@dataclass(frozen=True)
class LowRank:
    """The product ``up @ down``: ``up`` is ``[out, rank]``, ``down`` is ``[rank, in]``.

    ``up`` may be in a lower precision than ``down``, in which everything is computed.
    """

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(out, in)``, without the product, which may be far larger than its factors."""
        return self.up.shape[0], self.down.shape[1]

    def dense(self) -> Tensor:
        """``[out, in]``."""
        return self.up.to(self.down.dtype) @ self.down

    def followed_by(self, step: LowRank) -> LowRank:
        """With ``A = I + self`` and ``B = I + step``: the ``E`` for which ``I + E = A B``, of rank at most ``in``."""
        up = torch.cat([self.up, step.up + self.up @ (self.down @ step.up)], 1)
        down = torch.cat([self.down, step.down])
        width = down.shape[1]
        if len(down) <= width:
            return LowRank(up, down)
        return LowRank(up @ down, torch.eye(width, dtype=down.dtype, device=down.device))

    def recompressed(self, tolerance: float = 0.0, max_rank: int | None = None) -> LowRank:
        """The best approximation with orthonormal ``down``.

        Singular values that together are at most ``tolerance`` of the Frobenius norm are dropped.
        """
        if not self.rank:
            return self
        if self.rank == self.up.shape[0] == self.down.shape[1]:
            left, values, right = torch.linalg.svd(self.dense())
        else:
            q_up, r_up = torch.linalg.qr(self.up)
            q_down, r_down = torch.linalg.qr(self.down.T)
            left, values, right = torch.linalg.svd(r_up @ r_down.T)
            left, right = q_up @ left, right @ q_down.T
        tails = values.square().flip(0).cumsum(0).flip(0).sqrt()
        floor = max(tolerance, torch.finfo(values.dtype).eps) * tails[:1]
        keep = int((tails > floor).sum())
        keep = min(keep, max_rank) if max_rank is not None else keep
        return LowRank(left[:, :keep] * values[:keep], right[:keep])


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
    _check_coefficients(erase_scale=erase_scale, preserve_scale=preserve_scale, ridge=ridge)
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


def free_directions(gram: Tensor, tolerance: float) -> Tensor:
    """Orthonormal columns ``[d, f]`` along which rows hardly extend, given the rows' ``row_gram``.

    As many as can be without the rows having more than ``tolerance`` of their Frobenius norm there. (A null space, as
    in SPEED, arXiv 2503.07392.)
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be from 0 to less than 1, got {tolerance}")
    values, vectors = torch.linalg.eigh(gram)
    left = values.clamp(min=0).cumsum(0)
    floor = max(tolerance**2, len(gram) * torch.finfo(gram.dtype).eps)
    return vectors[:, : int((left <= floor * left[-1]).sum())]


def row_gram(rows: Sequence[Tensor]) -> Tensor | None:
    """``sum R^T R`` in float64, ``[d, d]``, of row matrices ``[rows, d]``; ``None`` of none."""
    _check_widths(rows)
    return sum(part.T @ part for part in (stacked([one]) for one in rows)) if rows else None


def derived_context(context: Tensor, gram: Tensor, current_map: Tensor, *, regularization: float) -> Tensor:
    """The context ``[rows, d]`` that best regenerates ``context`` through the edited weights (RECE, arXiv 2407.12383).

    ``gram`` is ``sum_l W_l^T W_l`` of the original weights, ``current_map`` the ``A`` of the edit so far, both
    ``[d, d]``. Minimises ``sum_l |W_l A D^T - W_l C^T|^2 + regularization * |D|^2``. Returns float64.
    """
    edit = current_map.double()
    eye = torch.eye(len(edit), dtype=edit.dtype, device=edit.device)
    seen = SeenWeights.of(gram.double()).after(LowRank(edit - eye, eye))
    return seen.derived([context], regularization=regularization)[0]


@dataclass(frozen=True)
class SeenWeights:
    """All that RECE needs of the weights, with ``A`` the edit so far: ``A^T G A`` and ``A^T G``, ``[d, d]``."""

    edited: Tensor
    crossed: Tensor

    @classmethod
    def of(cls, gram: Tensor) -> SeenWeights:
        """Before any edit."""
        return cls(gram, gram)

    def after(self, step: LowRank) -> SeenWeights:
        """With ``A (I + step)`` for ``A``; costs in proportion to the rank of the step, not of all steps so far."""
        up, down = step.up, step.down
        seen = self.edited @ up
        cross = down.T @ torch.addmm(seen.T, up.T @ seen, down, alpha=0.5)
        return SeenWeights(self.edited + cross + cross.T, torch.addmm(self.crossed, down.T, up.T @ self.crossed))

    def derived(self, contexts: Sequence[Tensor], *, regularization: float) -> list[Tensor]:
        """``derived_context`` of several: one factorisation serves all."""
        factor = self._factor(regularization)
        return [torch.cholesky_solve(self.crossed @ stacked([context]).T, factor).T for context in contexts]

    def regenerating(self, regularization: float) -> Tensor:
        """The ``M`` of shape ``[d, d]`` with which the derived context of every ``C`` is ``C M^T``."""
        return torch.cholesky_solve(self.crossed, self._factor(regularization))

    def _factor(self, regularization: float) -> Tensor:
        _check_coefficients(regularization=regularization)
        system = self.edited.clone()
        system.diagonal().add_(regularization)
        return cholesky(system)


def gram_matrix(weights: Iterable[Tensor]) -> Tensor:
    """``sum_l W_l^T W_l`` in float64, ``[d, d]``, of weights ``[out_l, d]``."""
    total: Tensor | None = None
    for weight in weights:
        total = plus_gram(total, weight)
    if total is None:
        raise ValueError("no weights were given")
    return total


def plus_gram(total: Tensor | None, weight: Tensor) -> Tensor:
    """``total + W^T W`` in float64, written into ``total``; the product itself is as precise as ``weight``."""
    part = weight.T @ weight
    part = part.cpu() if part.device.type == "mps" else part
    return part.double() if total is None else total.to(part.device).add_(part)


def solve_positive(system: Tensor, right: Tensor) -> Tensor:
    """Solve a symmetric positive definite system in float64 by Cholesky; never inverts."""
    return torch.cholesky_solve(right, cholesky(system))


def cholesky(system: Tensor) -> Tensor:
    """The lower factor. Raises ``SingularSystemError`` when the system has no or nearly no unique solution."""
    factor, failed = torch.linalg.cholesky_ex(system)
    diagonal = factor.diagonal()
    if int(failed) or not torch.isfinite(diagonal).all() or diagonal.min() < 1e-8 * diagonal.max():
        raise SingularSystemError(
            "the closed-form system is singular, so the edit is not determined; raise ridge (or regularization)"
        )
    return factor


def aligned_rows(concept: Tensor, target: Tensor, concept_end: int, target_end: int) -> tuple[Tensor, Tensor]:
    """The rows of two contexts ``[tokens, d]`` that face each other in the edit.

    From the last content token on (``concept_end``, ``target_end``), cut to the same number of rows.
    """
    count = min(len(concept) - concept_end, len(target) - target_end)
    return concept[concept_end : concept_end + count], target[target_end : target_end + count]


def facing_rows(concept: Tensor, target: Tensor, concept_end: int, target_end: int) -> tuple[Tensor, Tensor]:
    """All rows of two contexts that face each other in RECE's loop, where a derived context is erased.

    Contexts of one length face each other row by row, as published. Where encoders give as many rows as tokens, rows
    before both last content tokens do, and the ``aligned_rows`` behind.
    """
    if len(concept) == len(target):
        return concept, target
    ahead = min(concept_end, target_end)
    tails = aligned_rows(concept, target, concept_end, target_end)
    return torch.cat([concept[:ahead], tails[0]]), torch.cat([target[:ahead], tails[1]])


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Row matrices under one another in float64; raises when one is not a finite matrix."""
    _check_widths(rows)
    out = torch.cat([part.to(torch.float64) for part in rows])
    if not torch.isfinite(out).all():
        raise ValueError("a context holds NaN or infinite values; the text encoder's weights may be damaged")
    return out


def _check_pairs(concepts: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    if len(concepts) != len(targets) or not len(concepts):
        raise ValueError(f"need as many targets as concepts and at least one, got {len(concepts)} and {len(targets)}")
    for index, (concept, target) in enumerate(zip(concepts, targets, strict=True)):
        if concept.shape != target.shape:
            raise ValueError(f"concept {index} is {tuple(concept.shape)} but its target {tuple(target.shape)}")
    _check_widths(concepts)


def _check_widths(rows: Sequence[Tensor]) -> None:
    for part in rows:
        if part.ndim != 2:
            raise ValueError(f"expected rows of shape [rows, d], got {tuple(part.shape)}")
    if len({part.shape[1] for part in rows}) > 1:
        raise ValueError(f"rows differ in width: {sorted({part.shape[1] for part in rows})}")


def _check_coefficients(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
