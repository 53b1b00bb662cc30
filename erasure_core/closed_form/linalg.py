"""Linear algebra in float64 for the closed forms: Gram matrices, null spaces, Cholesky, and checks of the input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..devices import Scratch, has_float64


class SingularSystemError(ValueError):
    """The normal equations have no unique solution."""


def free_directions(gram: Tensor, tolerance: float) -> Tensor:
    """Return orthonormal columns ``[d, f]`` that span the approximate null space of rows (SPEED, arXiv 2503.07392).

    ``gram`` is the ``row_gram`` of the rows. ``f`` is the largest number of directions in which the rows have at most
    the share ``tolerance``, from 0 to less than 1, of their Frobenius norm. Raises ``ValueError`` for another
    tolerance.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be from 0 to less than 1, got {tolerance}")
    values, vectors = torch.linalg.eigh(gram)
    cumulative = values.clamp(min=0).cumsum(0)
    floor = max(tolerance**2, len(gram) * torch.finfo(gram.dtype).eps)
    return vectors[:, : int((cumulative <= floor * cumulative[-1]).sum())]


def row_gram(rows: Sequence[Tensor]) -> Tensor | None:
    """Return ``sum R^T R``, float64 ``[d, d]``, over row matrices ``[rows, d]``; ``None`` if there are none."""
    check_widths(rows)
    if not rows:
        return None
    width = rows[0].shape[1]
    total = torch.zeros(width, width, dtype=torch.float64, device=rows[0].device)
    for one in rows:
        part = stacked([one])
        total.addmm_(part.T, part)
    return total


def gram_matrix(weights: Iterable[Tensor]) -> Tensor:
    """Return ``sum_l W_l^T W_l``, float64 ``[d, d]``, over weights ``[out_l, d]``; raise ``ValueError`` for none."""
    gram = WeightGram()
    for weight in weights:
        gram.add(weight)
    return gram.total()


class WeightGram:
    """The sum ``W^T W``, float64 ``[d, d]``, over weights ``[out, d]`` that are added.

    Each product is computed in the precision of its weight, and all in the same memory. Nothing waits for a GPU while
    weights are added. On Apple's devices, which have no float64, the sum is kept as two float32 numbers, of which the
    second is what the first one lost to rounding (Knuth's TwoSum), and goes to the CPU once.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._lost: Tensor | None = None
        self._scratch = Scratch()

    @property
    def width(self) -> int | None:
        """The width ``d``, or ``None`` before the first weight."""
        return None if self._sum is None else len(self._sum)

    def add(self, weight: Tensor) -> Tensor:
        """Add a weight, and return whether its product is finite, as a boolean tensor on the weight's device."""
        part = self._scratch.product(weight.T, weight)
        finite = torch.isfinite(part.diagonal()).all()
        if self._sum is None:
            exact = has_float64(part.device)
            self._sum = part.to(torch.float64 if exact else torch.float32, copy=True)
            self._lost = None if exact else torch.zeros_like(self._sum)
        elif self._lost is None:
            self._sum.add_(part.to(self._sum.device))
        else:
            part = part.to(self._sum)
            total = self._sum + part
            shared = total - self._sum
            self._lost += (self._sum - (total - shared)) + (part - shared)
            self._sum = total
        return finite

    def total(self) -> Tensor:
        """Return the sum so far. Raises ``ValueError`` where no weight was added."""
        if self._sum is None:
            raise ValueError("no weights were given")
        return self._sum if self._lost is None else self._sum.cpu().double() + self._lost.cpu().double()


def solve_positive(system: Tensor, right: Tensor) -> Tensor:
    """Return ``system^-1 right`` for a symmetric positive definite ``system`` ``[d, d]`` and ``right`` ``[d, k]``.

    It is solved by Cholesky, without forming the inverse. Raises ``SingularSystemError`` as ``cholesky`` does.
    """
    return torch.cholesky_solve(right, cholesky(system))


def cholesky(system: Tensor) -> Tensor:
    """Return the lower Cholesky factor of the symmetric positive definite ``system``, ``[d, d]``.

    Raises ``SingularSystemError`` when the system is singular or nearly so.
    """
    factor, failed = torch.linalg.cholesky_ex(system)
    diagonal = factor.diagonal()
    if int(failed) or not torch.isfinite(diagonal).all() or diagonal.min() < 1e-8 * diagonal.max():
        raise SingularSystemError(
            "the closed-form system is singular, so the edit is not determined; raise ridge (or regularization)"
        )
    return factor


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Return row matrices ``[rows_i, d]`` below one another, as float64 ``[rows, d]``.

    Raises ``ValueError`` for what is not a matrix, for different widths, and for numbers that are not finite.
    """
    check_widths(rows)
    out = torch.cat([part.to(torch.float64) for part in rows])
    check_finite(out)
    return out


def check_finite(*tensors: Tensor) -> None:
    """Raise ``ValueError`` unless rows of text, or sums of them, are finite; the device is waited for once."""
    if not torch.stack([torch.isfinite(one).all() for one in tensors]).all():
        raise ValueError("a context holds NaN or infinite values; the text encoder's weights may be damaged")


def check_widths(rows: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` unless all of ``rows`` are matrices of one width."""
    for part in rows:
        if part.ndim != 2:
            raise ValueError(f"expected rows of shape [rows, d], got {tuple(part.shape)}")
    if len({part.shape[1] for part in rows}) > 1:
        raise ValueError(f"rows differ in width: {sorted({part.shape[1] for part in rows})}")


def check_coefficients(**values: float) -> None:
    """Raise ``ValueError`` that names a coefficient which is negative or not finite."""
    for name, value in values.items():
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
