"""Changes of a weight: as a product of two factors, or whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def scaled(self, strength: float) -> LowRank:
        return LowRank(self.up * strength, self.down)

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


@dataclass(frozen=True)
class Dense:
    """A change of a weight of any shape, stored whole."""

    change: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.change.shape)

    def dense(self) -> Tensor:
        return self.change

    def scaled(self, strength: float) -> Dense:
        return Dense(self.change * strength)


Delta = LowRank | Dense
