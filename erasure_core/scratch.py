"""Memory that products of matrices share, one after another."""

from __future__ import annotations

import torch
from torch import Tensor


class Scratch:
    """A piece of memory in which products of matrices are computed, one at a time.

    A new piece for each would not fit into what the one before has left in the heap, and a large model would take
    gigabytes.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Return ``left @ right``, ``[n, m]``, of matrices in one precision on one device, without their gradients.

        It stays as it is until the next call, which may overwrite it.
        """
        shape = len(left), right.shape[1]
        size, last = shape[0] * shape[1], self._memory
        if last is None or (last.dtype, last.device) != (left.dtype, left.device) or last.numel() < size:
            self._memory = last = None  # so that it is free before there is another
            self._memory = last = left.new_empty(size)
        return torch.matmul(left.detach(), right.detach(), out=last[:size].view(shape))
