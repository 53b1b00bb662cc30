"""Counting what makes a GPU wait: numbers that Python reads from it, and tensors that move."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class DeviceCalls(TorchDispatchMode):
    """Counts inside a ``with`` block the ``reads`` of single numbers and the ``transfers`` between devices.

    On the CPU a read costs nothing, but it would be one on a GPU too; so a rehearsal counts the same reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.transfers = 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        name = function.overloadpacket._qualified_op_name
        if name in ("aten::_local_scalar_dense", "aten::item"):
            self.reads += 1
        elif name in ("aten::_to_copy", "aten::copy_"):
            other = arguments[1] if name == "aten::copy_" else result
            if torch.is_tensor(other) and arguments[0].device != other.device:
                self.transfers += 1
        return result
