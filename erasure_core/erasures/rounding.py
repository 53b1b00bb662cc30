"""What rounding loses of an erasure: the error in the directions in which its changes act."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .low_rank import Delta, LowRank


def acting_squares(delta: Delta, error: Tensor, basis: Callable[[Tensor], Tensor] | None = None) -> tuple[float, float]:
    """Return the squares of the Frobenius norms of ``error`` and of the change, where the change acts.

    ``error`` has the shape of the weight. For a change ``dW = U D`` with orthonormal rows ``V`` that span those of
    ``D`` these are ``|error V^T|^2`` and ``|dW V^T|^2``. A dense change acts everywhere. ``basis`` is
    ``orthonormal_rows``, or that function with a memory.
    """
    if isinstance(delta, LowRank):
        directions = (basis or orthonormal_rows)(delta.down)
        error, change = error @ directions, delta.up.to(delta.down) @ (delta.down @ directions)
    else:
        change = delta.change
    return float(error.double().square().sum()), float(change.double().square().sum())


def orthonormal_rows(down: Tensor) -> Tensor:
    """Return orthonormal columns ``[in, rank]`` that span the rows of ``down``, ``[rank, in]``."""
    return torch.linalg.qr(down.T).Q
