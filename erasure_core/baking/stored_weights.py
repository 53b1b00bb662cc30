"""A weight as a file keeps it: in 16, 32 or 64 bits, or in 8 bits with a scale beside it or without."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..files.tensor_file import TensorFile
from ..model import UnsupportedModelError

EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SCALES = ("scale_weight", "weight_scale")
"""The names of a scale beside ``weight``, older and newer, in files that ComfyUI reads."""
BEFORE = "bake into the model as it was before, in fp32, fp16, bf16 or fp8, and quantise what comes out"


@dataclass(frozen=True)
class StoredWeight:
    """The tensor ``key`` of a file, and how its numbers are kept."""

    file: TensorFile
    key: str

    def value(self, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return a copy of the weight in float32, in float64 where it is stored so: its numbers times their scale.

        ``tensors`` take the places of those of the file with the same keys. Raises ``UnsupportedModelError`` for
        numbers that are not floating point.
        """
        self._check()
        tensors = tensors or {}
        tensor = tensors[self.key] if self.key in tensors else self.file.read(self.key)
        wide = tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32, copy=True)
        scale = self._scale(tensors)
        return wide if scale is None else wide * scale

    @torch.no_grad()
    def rounded(self, value: Tensor) -> dict[str, Tensor]:
        """Return the tensors of the file that keep ``value``, by their keys: the weight, and its scale if that grows.

        8 bits are rounded up or down by chance, as ComfyUI does, so that small changes are not lost one and all; the
        chance is the same each time. Raises ``ValueError`` for values that the type cannot hold.
        """
        scale, dtype = self._scale({}), self.dtype
        wanted = value if scale is None else value / scale
        most = torch.finfo(dtype).max
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        if not largest <= (most if scale is None else torch.finfo(torch.float32).max):
            raise ValueError(
                f"{self.key} comes to {largest:.3g}, out of the range of {str(dtype).removeprefix('torch.')}; "
                "bake into the model in a wider precision"
            )
        tensors = {}
        if scale is not None and self.scale_key is not None and largest > most:
            wider = (scale * (largest / most)).to(self.file.dtype(self.scale_key))
            tensors[self.scale_key] = wider.reshape(self.file.entries[self.scale_key].shape)
            wanted = value / wider.float()
        generator = torch.Generator().manual_seed(zlib.crc32(self.key.encode()))
        tensors[self.key] = stochastic(wanted, dtype, generator) if dtype in EIGHT_BITS else wanted.to(dtype)
        return tensors

    @property
    def dtype(self) -> torch.dtype:
        """The type of the stored numbers."""
        return self.file.dtype(self.key)

    @property
    def scale_key(self) -> str | None:
        """The key of the scale, or ``None`` where there is none."""
        module, _, leaf = self.key.rpartition(".")
        if leaf != "weight" or self.dtype not in EIGHT_BITS:
            return None
        return next((key for scale in SCALES if (key := f"{module}.{scale}") in self.file.entries), None)

    def _scale(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Return the scale, of ``tensors`` or the file, in float32: one number, or one for each row, ``[out, 1]``."""
        key = self.scale_key
        if key is None:
            return None
        scale = (tensors[key] if key in tensors else self.file.read(key)).float()
        rows = self.file.entries[self.key].shape[0]
        if scale.numel() == 1:
            return scale.reshape(())
        if scale.numel() == rows and scale.shape[0] == rows:
            return scale.reshape(rows, 1)
        raise UnsupportedModelError(
            f"{self.file.path.name} keeps {self.key} in blocks with {scale.numel()} scales (as MXFP8 does), which "
            f"cannot be baked; {BEFORE}"
        )

    def _check(self) -> None:
        entry = self.file.entries[self.key]
        if entry.dtype not in FLOATS:
            raise UnsupportedModelError(
                f"{self.file.path.name} is quantised: it keeps {self.key} in {entry.dtype} (as NF4 of bitsandbytes, "
                f"NVFP4 and INT8 do), which cannot be baked; {BEFORE}"
            )


def stochastic(value: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return ``value`` in a float type of 8 bits: each number becomes one of its two neighbours, right on average."""
    type_info = torch.finfo(dtype)
    least = torch.frexp(torch.tensor(type_info.smallest_normal)).exponent
    exponent = torch.frexp(value).exponent.clamp(min=int(least)) - 1
    step = torch.ldexp(torch.full_like(value, type_info.eps), exponent)
    chance = torch.rand(value.shape, generator=generator)
    return (step * torch.floor(value / step + chance)).clamp(-type_info.max, type_info.max).to(dtype)
