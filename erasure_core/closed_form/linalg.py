"""Gram matrices, null spaces and Cholesky in float64, with checks of what is given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class SingularSystemError(ValueError):
    """The normal equations have no unique solution."""


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
    check_widths(rows)
    if not rows:
        return None
    width = rows[0].shape[1]
    total = torch.zeros(width, width, dtype=torch.float64, device=rows[0].device)
    for one in rows:
        part = stacked([one])
        total += part.T @ part
    return total


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


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Row matrices under one another in float64; raises when one is not a finite matrix."""
    check_widths(rows)
    out = torch.cat([part.to(torch.float64) for part in rows])
    if not torch.isfinite(out).all():
        raise ValueError("a context holds NaN or infinite values; the text encoder's weights may be damaged")
    return out


def check_widths(rows: Sequence[Tensor]) -> None:
    for part in rows:
        if part.ndim != 2:
            raise ValueError(f"expected rows of shape [rows, d], got {tuple(part.shape)}")
    if len({part.shape[1] for part in rows}) > 1:
        raise ValueError(f"rows differ in width: {sorted({part.shape[1] for part in rows})}")


def check_coefficients(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
