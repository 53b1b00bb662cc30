"""Refusing pipelines that cannot be edited: quantised weights, and layers that move or wrap their weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..model import UnsupportedModelError
from .weight_slots import COMPILED, stored, whole

EXACT = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
TEXT_LAYERS = ("attn2.to_k", "attn2.to_v", "add_embedding.linear_1")
PLAIN = "load it in float32, float16 or bfloat16, unquantised"


def check_unet(kind: str, unet: nn.Module) -> None:
    """Raise ``UnsupportedModelError`` unless a UNet is one of diffusers' without adapters that read more than text.

    ``kind`` is what messages call the pipeline that ``unet`` is of.
    """
    unet = whole(unet)
    if "motion_module" in "".join(unet._modules) or any("motion_modules" in name for name, _ in unet.named_modules()):
        raise UnsupportedModelError(f"{kind} has AnimateDiff's motion modules, which are not supported; give its base")
    if "UNet2DConditionModel" not in (one.__name__ for one in type(unet).__mro__):
        raise UnsupportedModelError(f"the UNet of {kind} is a {type(unet).__name__}, a UNet2DConditionModel is needed")
    config: Any = unet.config
    if config.get("encoder_hid_dim_type") is not None:
        raise UnsupportedModelError(
            f"the UNet of {kind} reads {config['encoder_hid_dim_type']} beside the text; call "
            "pipe.unload_ip_adapter() first"
        )


def check_weights(part: str, module: nn.Module) -> None:
    """Raise ``UnsupportedModelError`` for the first weight that is not plain numbers in a plain layer.

    ``part`` is the pipeline's name for ``module``, such as ``unet``, with which messages begin names.
    """
    for path, owner in whole(module).named_modules():
        name = f"{part}.{path}".rstrip(".")
        _check_layer(part, name, owner)
        for leaf in owner._parameters:
            if owner._parameters[leaf] is not None:
                _check_weight(part, f"{name}.{leaf}", owner, leaf)


def _check_layer(part: str, name: str, layer: nn.Module) -> None:
    kind = type(layer)
    registry = getattr(layer, "_diffusers_hook", None)
    if registry is not None and registry.get_hook("group_offloading") is not None:
        raise UnsupportedModelError(
            f"the {part} is offloaded in groups, where changes would be lost; use pipe.enable_model_cpu_offload()"
        )
    if COMPILED in layer._modules or hasattr(layer, "lora_A"):
        return
    if hasattr(layer, "base_layer"):
        raise UnsupportedModelError(f"{name} has a {kind.__name__} adapter of PEFT on it; fuse and unload it first")
    reads_text = part == "unet" and name.endswith(TEXT_LAYERS)
    is_plain = isinstance(layer, nn.Linear) and kind.forward is nn.Linear.forward
    is_plain &= "weight" in layer._parameters and not hasattr(layer, "parametrizations")
    if (reads_text or isinstance(layer, nn.Linear) or "Linear" in kind.__name__) and not is_plain:
        raise UnsupportedModelError(
            f"{name} is a {kind.__module__.partition('.')[0]} {kind.__name__}, not a plain linear layer; {PLAIN}"
        )


def _check_weight(part: str, name: str, owner: nn.Module, leaf: str) -> None:
    weight = stored(owner, leaf)
    if type(weight) not in (nn.Parameter, Tensor) or weight.dtype not in EXACT:
        kind = f"{type(weight).__name__} of {weight.dtype}"
        raise UnsupportedModelError(f"{name} is stored as {kind}, which cannot be edited; {PLAIN}")
    if weight.is_meta:
        raise UnsupportedModelError(f"{name} is on the meta device, without values; load the whole {part}")
    if leaf == "weight" and isinstance(owner, nn.Linear) and weight.shape != (owner.out_features, owner.in_features):
        shapes = f"{tuple(weight.shape)} where its layer has {(owner.out_features, owner.in_features)}"
        raise UnsupportedModelError(f"{name} is stored as {shapes}; {PLAIN}")
