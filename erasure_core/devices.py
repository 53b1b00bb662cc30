"""Devices by name, what one has (free memory, float64), and memory that products share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

MEMINFO = Path("/proc/meminfo")  # Linux


def usable_device(name: str) -> torch.device:
    """Return the device that PyTorch calls ``name``; raise ``ValueError`` for one that cannot be used here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"device '{name}' cannot be used: {first}; give 'cpu', or 'cuda' where there is one") from None


def free_memory(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes, or ``None`` when that is unknown.

    Memory that PyTorch has reserved on a GPU and does not use counts as free.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "cpu" and MEMINFO.exists():
        (line,) = [line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:")]
        return int(line.split()[1]) * 1024
    return None


def has_float64(device: torch.device) -> bool:
    """Return whether a device computes in float64; Apple's GPUs do not."""
    return device.type != "mps"


def on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of one precision on the CPU, in one transfer from each device that they are on."""
    by_device: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append(place)
    moved = list(tensors)
    for device, places in by_device.items():
        if device.type != "cpu":
            flat = torch.cat([tensors[place].reshape(-1) for place in places]).cpu()
            parts = flat.split([tensors[place].numel() for place in places])
            for place, part in zip(places, parts, strict=True):
                moved[place] = part.view(tensors[place].shape)
    return moved


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
