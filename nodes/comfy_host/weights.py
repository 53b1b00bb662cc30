"""Reading a weight in ComfyUI: in any precision, quantised or not, merged with its patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.float
import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from ...erasure_core import UnsupportedModelError

SEED = 1  # of stochastic rounding; ComfyUI takes one from the weight's name


@dataclass(frozen=True)
class StoredWeight:
    """A weight as it is without patches, the layer that holds it, and what is to be added."""

    key: str
    weight: Any
    """A tensor, which may be quantised in a way of another pack."""
    layer: Any
    patches: Sequence

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight itself, also if it is packed."""
        return tuple(self.weight.shape)

    @property
    def precision(self) -> str:
        """The format in which the weight is kept, in words for users."""
        if isinstance(self.weight, QuantizedTensor):
            return f"{_dtype_name(self.weight._qdata.dtype)}, scaled"
        if self._is_ggml:
            return f"GGUF {getattr(self.weight.tensor_type, 'name', self.weight.tensor_type)}"
        scaled = getattr(self.layer, "scale_weight", None) is not None
        return _dtype_name(self.weight.dtype) + ", scaled" * scaled

    def check_readable(self) -> None:
        """Raise ``UnsupportedModelError`` for a quantised weight that cannot be read."""
        if not (self.weight.is_floating_point() or self._is_ggml or isinstance(self.weight, QuantizedTensor)):
            raise UnsupportedModelError(
                f"MODEL is quantised ({self.key} is stored as {_dtype_name(self.weight.dtype)}, as in NF4) "
                "and its weights cannot be read; load it in fp32, fp16, bf16, fp8 or GGUF"
            )

    def merged(self, device: torch.device) -> Tensor:
        """Return a copy with its patches, in float32 on ``device``. Raises the errors of ``check_readable``."""
        self.check_readable()
        return comfy.lora.calculate_weight(self.patches, self._read(self.weight, device), self.key)

    @torch.no_grad()
    def plain(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return the merged weight to use in place of the layer's own; the model's own tensor if it is the same."""
        if self._name == "scale_weight":
            return torch.ones(self.shape, device=device, dtype=dtype)  # the weight beside it is merged, so scaled
        ready = type(self.weight.data) is Tensor and (self.weight.device, self.weight.dtype) == (device, dtype)
        if ready and not self.patches and not self.weight.is_inference():
            return self.weight.detach()
        return self.merged(device).to(dtype)

    @torch.no_grad()
    def rounded(self, value: Tensor) -> Tensor:
        """Return ``value`` in float32 after rounding to the format of the model; overwrites ``value``."""
        if self._is_ggml and not self.weight.is_floating_point():
            return value  # ComfyUI-GGUF adds patches to what it has dequantised
        keep, device = getattr(self.layer, f"set_{self._name}", None), value.device
        if keep is None:
            return comfy.float.stochastic_rounding(value, self.weight.dtype, seed=SEED).float()
        return self._read(keep(value, inplace_update=False, seed=SEED, return_weight=True), device)

    def _read(self, weight: Any, device: torch.device) -> Tensor:
        if isinstance(weight, QuantizedTensor):
            return weight.dequantize().to(device, torch.float32, copy=True)
        if self._is_ggml:
            kind, shape = weight.tensor_type, weight.tensor_shape
            unpatched = type(weight)(weight.data, tensor_type=kind, tensor_shape=shape, patches=[])
            return self.layer.get_weight(unpatched, torch.float32).to(device, torch.float32, copy=True)
        copy = comfy.model_management.cast_to_device(weight, device, torch.float32, copy=True)
        convert = getattr(self.layer, f"convert_{self._name}", None)
        return convert(copy, inplace=True) if convert else copy

    @property
    def _name(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def _is_ggml(self) -> bool:
        """Return whether a weight is one of ComfyUI-GGUF, known by its attributes; its layers can dequantise it."""
        return hasattr(self.weight, "tensor_type") and hasattr(self.layer, "get_weight")


def stored(patcher, key: str, *, patched: bool = True) -> StoredWeight:
    """Return the weight ``key`` of a patcher, that of a MODEL or CLIP, with its patches or without.

    ``patched`` says which; by default it has them. While a patched clone is in memory, the original is in a backup.
    ``ModelPatcher.get_key_patches`` would return the same, but fails on newer versions of ComfyUI for models with
    quantised layers, whose state has keys that are no weights.
    """
    module, _, name = key.rpartition(".")
    layer = comfy.utils.get_attr(patcher.model, module)
    weight = getattr(layer, name)
    if key in patcher.backup:
        weight = patcher.backup[key].weight
    if key in patcher.hook_backup:
        weight = patcher.hook_backup[key][0]
    return StoredWeight(key, weight, layer, tuple(patcher.patches.get(key, ())) if patched else ())


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
