"""A safetensors file read one tensor at a time, and copied with some tensors and some of its metadata changed.

What is not changed keeps its bytes, its type and its place (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..quoting import excerpt
from .safetensors_files import MOST_HEADER

METADATA = "__metadata__"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "U8": torch.uint8,
}  # fmt: skip
"""The types of tensors that are read; those of any type are copied."""
CHUNK = 2**24  # bytes that are copied at once


@dataclass(frozen=True)
class Entry:
    """What the header says of a tensor: its type as the format names it, its shape, and where its bytes begin."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """The first byte, counted from the end of the header."""


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file of which only the header is in memory."""

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    """The tensors by name, in the order of the header."""
    header_size: int
    """The bytes before the first tensor."""
    data_size: int
    """The bytes of all tensors."""

    def read(self, name: str) -> Tensor:
        """Return a copy of a tensor; raise the error of ``dtype``, or ``ValueError`` for a file that was cut off."""
        entry, dtype, size = self.entries[name], self.dtype(name), self.size_of(name)
        with self.path.open("rb") as file:
            file.seek(self.header_size + entry.start)
            content = bytearray(file.read(size))
        if len(content) < size:
            raise ValueError(f"{self.path.name} ends before {name} does; it was changed while it was read")
        if not size:
            return torch.zeros(entry.shape, dtype=dtype)
        return torch.frombuffer(content, dtype=dtype).reshape(entry.shape)

    def copy(
        self,
        target: BinaryIO,
        metadata: Mapping[str, str],
        changed: Mapping[str, Callable[[], Mapping[str, Tensor]]],
        report: Callable[[int, str], None],
    ) -> None:
        """Write the file to ``target``, which can seek, with other ``metadata`` and with the ``changed`` tensors.

        Each function of ``changed`` is called in turn, and returns tensors of the file by their names, with the shape
        and the type that they had. ``report(bytes, what)`` is called for every part of the work; what it raises cancels
        it. Raises ``ValueError`` for a header that would be longer than the format allows.
        """
        header = self._header(metadata)
        target.write(header)
        with self.path.open("rb") as source:
            source.seek(self.header_size)
            while part := source.read(CHUNK):
                report(len(part), self.path.name)
                target.write(part)
        for name, make in changed.items():
            report(self.size_of(name), name)
            for key, tensor in make().items():
                target.seek(len(header) + self.entries[key].start)
                target.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a tensor's numbers; raise ``ValueError`` for a type other than floats and bytes."""
        entry = self.entries[name]
        if entry.dtype not in DTYPES:
            raise ValueError(f"{self.path.name} has {name} in {entry.dtype}, which is not a type of weights")
        return DTYPES[entry.dtype]

    def size_of(self, name: str) -> int:
        """Return the bytes of a tensor; raise the error of ``dtype``."""
        return math.prod(self.entries[name].shape) * self.dtype(name).itemsize

    def _header(self, metadata: Mapping[str, str]) -> bytes:
        """Return the length of the header and the header, whose tensors stay as they were."""
        with self.path.open("rb") as file:
            fields = json.loads(file.read(self.header_size)[8:])
        text = json.dumps({METADATA: dict(metadata), **_without(fields)}, ensure_ascii=False, separators=(",", ":"))
        content = text.encode()
        content += b" " * (-len(content) % 8)
        if len(content) > MOST_HEADER:
            raise ValueError(f"what the file says of itself is {len(content):,} bytes, at most {MOST_HEADER:,} can be")
        return len(content).to_bytes(8, "little") + content


def open_tensor_file(path: Path) -> TensorFile:
    """Return the safetensors file at ``path``, whose header is checked.

    Raises ``OSError`` where there is no file, and ``ValueError`` for one that is damaged or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {excerpt(path, 300)}")
    try:
        with safe_open(str(path), "pt"):  # which checks that every byte belongs to one tensor
            pass
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            fields = json.loads(raw.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{excerpt(path.name)} is not a readable safetensors file: {error}") from error
    entries = {name: _entry(one) for name, one in _without(fields).items()}
    return TensorFile(path, fields.get(METADATA) or {}, entries, 8 + size, path.stat().st_size - 8 - size)


def _without(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in fields.items() if name != METADATA}


def _entry(fields: Mapping[str, Any]) -> Entry:
    return Entry(fields["dtype"], tuple(fields["shape"]), fields["data_offsets"][0])
