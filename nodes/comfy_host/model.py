"""A MODEL of Stable Diffusion and its CLIP behind the contract of ``erasure_core.model``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property, partial

import comfy.model_base
import comfy.utils
import torch
from torch import Tensor

from ...erasure_core import UnsupportedModelError
from ...erasure_core.model import CONTEXT, POOLED, POOLED_LAYER, LazyWeights, TextEntry, TextRows
from .erasures_of_model import erasures_of
from .text_encoders import TextEncoders
from .weights import stored

UNET = "diffusion_model."
CROSS = ("attn2.to_k.weight", "attn2.to_v.weight")


class ComfyModel:
    """A MODEL of Stable Diffusion and its CLIP as the ``TextReader`` that closed forms need; both are only read.

    Its methods are described there. The patches of LoRAs and erasures upstream are part of their weights. Raises
    ``UnsupportedModelError`` for other families.
    """

    def __init__(self, model, clip):
        self.model = model
        self.clip = clip
        self._keys = unet_keys(model)
        self.text = TextEncoders(clip, pooled=reads_pooled(model))
        self.erasures = erasures_of(model)

    @property
    def clip_skip(self) -> int:
        return self.text.clip_skip

    @property
    def vocabulary(self) -> frozenset[str]:
        config = self.model.model.model_config
        known = hasattr(type(config), "vocabulary")  # a configuration of ComfyUI itself answers None to any name
        return config.vocabulary if known else frozenset()

    def reads(self, prompt: str) -> Hashable:
        return self.text.reads(prompt)

    def text_entries(self) -> Mapping[str, TextEntry]:
        cross = {name: key for name, key in self._keys.items() if name.endswith(CROSS)}
        entries = {CONTEXT: TextEntry(merged_weights(self.model, cross))}
        if self.text.pooled:
            label = merged_weights(self.model, {POOLED_LAYER: self._keys[POOLED_LAYER]})
            entries[POOLED] = TextEntry(label, columns=(0, self._pooled_width))
        return entries

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        return self.text.encode(prompts).rows()

    @cached_property
    def _pooled_width(self) -> int:
        return self.text.encode([""]).conditioning.tensors[-1].shape[-1]


def has_unet(model) -> bool:
    """Return whether a MODEL is a UNet with the layout of Stable Diffusion, whose layers all tools know by name."""
    return bool(comfy.utils.unet_to_diffusers(_config(model)))


def weight_keys(model) -> dict[str, str]:
    """Return ComfyUI's key for each weight of the denoiser of a MODEL of any family, by its name in erasures."""
    if has_unet(model):
        return unet_keys(model)
    return {f"unet.{key.removeprefix(UNET)}": key for key in model.model_state_dict(UNET)}


def unet_keys(model) -> dict[str, str]:
    """Return ComfyUI's key for each weight of a UNet of Stable Diffusion, by its name in diffusers after ``unet.``.

    Raises ``UnsupportedModelError`` for other families.
    """
    config = _config(model)
    diffusers_keys = comfy.utils.unet_to_diffusers(config)
    present = set(model.model_state_dict(UNET)) if diffusers_keys else set()
    keys = {f"unet.{name}": UNET + key for name, key in diffusers_keys.items() if UNET + key in present}
    if config.get("use_temporal_attention") or not any(name.endswith(CROSS) for name in keys):
        kind = type(getattr(model, "model", None)).__name__
        raise UnsupportedModelError(f"MODEL is of the kind {kind}, which has no UNet of Stable Diffusion")
    return {name: key for name, key in keys.items() if not name.startswith("unet.class_embedding.")}  # the label again


def _config(model) -> dict:
    return getattr(getattr(getattr(model, "model", None), "model_config", None), "unet_config", None) or {}


def reads_pooled(model) -> bool:
    """Return whether a UNet reads the pooled text vector, as those of SDXL and its refiner do."""
    return isinstance(model.model, (comfy.model_base.SDXL, comfy.model_base.SDXLRefiner))


def text_names(model) -> list[str]:
    """Return the names in diffusers of the weights that read text in a UNet; none for a MODEL of another family."""
    if not has_unet(model):
        return []
    pooled = reads_pooled(model)
    return [name for name in unet_keys(model) if name.endswith(CROSS) or (pooled and name == POOLED_LAYER)]


def text_weights(model) -> Mapping[str, Tensor]:
    """Return the weights with the names of ``text_names`` in float32, merged with the patches."""
    keys = unet_keys(model)
    return merged_weights(model, {name: keys[name] for name in text_names(model)})


def merged_weights(patcher, keys: Mapping[str, str], *, patched: bool = True) -> Mapping[str, Tensor]:
    """Return weights in float32 on the ``working_device``, each merged when it is read.

    ``patcher`` is a MODEL, or the patcher of a CLIP. ``keys`` are ComfyUI's keys by the names that the result has.
    ``patched`` says whether the weights have their patches; by default they have them, as sampling uses them.
    """
    device = working_device(patcher)
    stored_weights = {name: stored(patcher, key, patched=patched) for name, key in keys.items()}
    return LazyWeights({name: partial(weight.merged, device) for name, weight in stored_weights.items()})


def working_device(model) -> torch.device:
    """Return the device of a MODEL, or the CPU where that device may lack float64 (any but CUDA)."""
    return model.load_device if model.load_device.type == "cuda" else torch.device("cpu")
