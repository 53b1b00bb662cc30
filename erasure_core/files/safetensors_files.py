"""Safetensors files: read so that whatever is wrong with one is a sentence, written in the same bytes each time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..quoting import shown

SUFFIX = ".safetensors"
MOST_HEADER = 100_000_000  # bytes; no program reads more
KINDS = {torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The texts of a file's header, and its tensors.

    Raises ``OSError`` where there is no file, and ``ValueError`` for what is damaged or no such file.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{shown(path, 300)} is a folder; name a {SUFFIX} file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {shown(path, 300)}")
    try:
        with safe_open(str(path), "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"is not a readable safetensors file: {error}") from error


def write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """All of a safetensors file, on the CPU; safetensors' own writer puts ``metadata`` in another order each time.

    Raises ``ValueError`` for a header that no program would read.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that all are aligned
    header, end = {"__metadata__": dict(sorted(metadata.items()))}, 0
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
    """The bytes of a tensor in the order of files."""
    values = tensor.detach().cpu().contiguous().numpy().reshape(-1)
    return (values.byteswap() if sys.byteorder == "big" else values).view("uint8")
