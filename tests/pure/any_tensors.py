"""Writes safetensors files of any type of numbers, also of those that an older library does not know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

KINDS = {
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
    torch.int8: "I8", torch.uint8: "U8", torch.int32: "I32", torch.int64: "I64", torch.bool: "BOOL",
    torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


def save_file(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Has the arguments of ``safetensors.torch.save_file``."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name in sorted(tensors, key=lambda name: -tensors[name].element_size()):  # each is aligned then
        tensor = tensors[name].contiguous()
        start = len(data)
        data += tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, len(data)],
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
