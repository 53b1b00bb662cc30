"""Devices by name, and what one has: free memory, and float64."""

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
