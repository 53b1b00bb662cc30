"""How much memory of a device is free."""

from __future__ import annotations

from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")  # Linux


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
