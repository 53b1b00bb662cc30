"""The change of a weight, stored as the product of two factors or whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """A change ``up @ down``, as in a LoRA: ``up`` is ``[out, rank]`` and ``down`` is ``[rank, in]``.

    The product is computed in the precision of ``down``; that of ``up`` may be lower.
    """

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """The number of rows of ``down``."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape ``(out, in)`` of the product, which is not computed for it."""
        return self.up.shape[0], self.down.shape[1]

    def dense(self) -> Tensor:
        """Return the product, ``[out, in]``."""
        return self.up.to(self.down.dtype) @ self.down

    def scaled(self, strength: float) -> LowRank:
        """Return the change times ``strength``."""
        return LowRank(self.up * strength, self.down)

    def followed_by(self, step: LowRank) -> LowRank:
        """Return the ``E`` with ``I + E = (I + self) (I + step)``, of rank at most ``in``."""
        up = torch.cat([self.up, step.up + self.up @ (self.down @ step.up)], 1)
        down = torch.cat([self.down, step.down])
        width = down.shape[1]
        if len(down) <= width:
            return LowRank(up, down)
        return LowRank(up @ down, torch.eye(width, dtype=down.dtype, device=down.device))

    def recompressed(self, tolerance: float = 0.0, max_rank: int | None = None) -> LowRank:
        """Return the best approximation of lower rank, with orthonormal rows in ``down``.

        The smallest singular values are dropped whose norm together is at most the share ``tolerance`` of the Frobenius
        norm (by default 0: only those at rounding error), and all beyond ``max_rank`` (by default no limit).
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


@dataclass(frozen=True)
class Dense:
    """The change of a weight of any shape, stored whole."""

    change: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(self.change.shape)

    def dense(self) -> Tensor:
        """Return the change, as ``LowRank.dense`` does."""
        return self.change

    def scaled(self, strength: float) -> Dense:
        """Return the change times ``strength``."""
        return Dense(self.change * strength)


Delta = LowRank | Dense
