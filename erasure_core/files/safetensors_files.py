"""Safetensors files: read with errors in plain sentences, and written to the same bytes each time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..quoting import excerpt

SUFFIX = ".safetensors"
MOST_HEADER = 100_000_000  # bytes: the limit of the safetensors format
KINDS = {torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata of a file's header, and its tensors by name.

    Raises ``OSError`` when there is no file, and ``ValueError`` when it is damaged or not a safetensors file.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{excerpt(path, 300)} is a folder; name a {SUFFIX} file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {excerpt(path, 300)}")
    try:
        with safe_open(str(path), "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"is not a readable safetensors file: {error}") from error


def write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a whole safetensors file to ``file``; ``tensors`` are float16, float32 or float64, on any device.

    The writer of the library safetensors orders ``metadata`` differently each time; this one sorts it.
    Raises ``ValueError`` when the header would be longer than the format allows.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # wide types first: all are aligned
    header: dict[str, dict[str, Any]] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": KINDS[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER:
        raise ValueError(f"what the file says of itself is {len(text):,} bytes, at most {MOST_HEADER:,} can be read")
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(_little(tensors[name]))


def _little(tensor: Tensor):
    """Return the bytes of a tensor, little-endian as the format says."""
    values = tensor.detach().cpu().contiguous().numpy().reshape(-1)
    return (values.byteswap() if sys.byteorder == "big" else values).view("uint8")
