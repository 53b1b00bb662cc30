"""Several processes that share the reading of prompts, as ``torchrun`` or ``accelerate launch`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")
LONGEST_WAIT = timedelta(days=1)  # for the slowest of the others; one that dies ends the waiting at once


@dataclass(frozen=True)
class Workers:
    """This process among ``count`` that do the same work, each for its share; ``rank`` is its number, from 0.

    ``device`` is where sums are exchanged: the CPU with gloo, a GPU with nccl. The first process leads: it solves and
    writes what all have read.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share_of(self, items: Sequence[T]) -> Sequence[T]:
        """Return those of ``items`` that this process works on."""
        return items[self.rank :: self.count]

    def agree(self, error: Exception | None) -> None:
        """Raise the error of the first process that has one, in all of them; all must call this."""
        if self.count == 1:
            errors = [error]
        else:
            errors = [None] * self.count
            distributed.all_gather_object(errors, error)
        first = next((one for one in errors if one is not None), None)
        if first is not None:
            raise first

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums of float64 tensors over all processes, by one ``all_reduce``; all must call this.

        The tensors of all processes have the same shapes. The sums are where this process has its tensors.
        """
        if self.count == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1).to(self.device) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(one.shape).to(one.device) for part, one in zip(parts, tensors, strict=True)]


ALONE = Workers()
"""A process that works alone."""


def local_rank() -> int:
    """Return the number of this process among those of its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """Return the number of this process among those that ``torchrun`` has started, from 0; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def leads() -> bool:
    """Return whether this process will lead the others; it does where there are none."""
    return rank() == 0


def are_several() -> bool:
    """Return whether ``torchrun`` has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(device: torch.device) -> Iterator[Workers]:
    """Join the processes that ``torchrun`` has started, for the length of a ``with`` block; alone without ``torchrun``.

    ``device`` is where the model is; processes on CUDA exchange sums by nccl, others by gloo. Raises ``ValueError``
    where this PyTorch cannot exchange sums.
    """
    if not are_several():
        yield ALONE
        return
    if not distributed.is_available():
        raise ValueError("torchrun was used, but this PyTorch is built without torch.distributed; run one process")
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
    try:
        yield Workers(distributed.get_rank(), distributed.get_world_size(), device if cuda else torch.device("cpu"))
    finally:
        distributed.destroy_process_group()
