"""What the pack knows about ComfyUI's models, patches and progress; other ``host`` modules know the rest of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property

import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch
from torch import Tensor

from ..erasure_core import EncodedPrompts, Erasure, UnsupportedModelError
from ..erasure_core.erasure import Delta, counts_twice
from ..erasure_core.kohya import stem
from ..erasure_core.model import CONTEXT, POOLED, Callback, LazyWeights, TextEntry, TextRows
from .host_carried import erasures_of, patch
from .host_precision import report_rounding
from .host_proof import check_acts
from .host_text import Encoded, TextEncoders
from .host_weights import stored

log = logging.getLogger(__name__)

UNET = "diffusion_model."
CROSS = ("attn2.to_k.weight", "attn2.to_v.weight")
LABEL = "unet.add_embedding.linear_1.weight"
"""Of SDXL: reads the pooled text vector, and after it the embedded sizes."""


class ComfyModel:
    """A MODEL of Stable Diffusion and its CLIP as the ``TextToImageModel`` that closed forms need; both are only read.

    What upstream LoRAs and erasures did to them is seen. Raises ``UnsupportedModelError`` for families that do
    not work.
    """

    def __init__(self, model, clip):
        self.model = model
        self.clip = clip
        self.device = _working_device(model)
        self._keys = unet_keys(model)
        self.text = TextEncoders(clip, pooled=reads_pooled(model))
        self.erasures = erasures_of(model)

    @property
    def prediction_type(self) -> str:
        sampling = self.model.get_model_object("model_sampling")
        return "v_prediction" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "epsilon"

    @property
    def alphas_cumprod(self) -> Tensor:
        return 1 / (self.model.get_model_object("model_sampling").sigmas.double().square() + 1)

    @cached_property
    def context_dim(self) -> int:
        return self._empty.context.shape[-1]

    @cached_property
    def tokens(self) -> int:
        return len(self.text.windows_of("")[self.text.names[0]])

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        return self.text.encode(prompts).packed()

    def reads(self, prompt: str) -> Hashable:
        return self.text.reads(prompt)

    def text_entries(self) -> Mapping[str, TextEntry]:
        cross = {name: key for name, key in self._keys.items() if name.endswith(CROSS)}
        entries = {CONTEXT: TextEntry(merged_weights(self.model, cross))}
        if self.text.pooled:
            width = self._empty.pooled.shape[-1]
            label = merged_weights(self.model, {LABEL: self._keys[LABEL]})
            entries[POOLED] = TextEntry(label, columns=(0, width))
        return entries

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        return self.text.encode(prompts).rows()

    @property
    def pooled_width(self) -> int:
        """Of the pooled text vector, 0 where the model reads none."""
        return self._empty.pooled.shape[-1] if self.text.pooled else 0

    @cached_property
    def _empty(self) -> Encoded:
        return self.text.encode([""])


def has_unet(model) -> bool:
    """Whether a MODEL is a UNet of the layout that Stable Diffusion has, for which all tools have names."""
    return bool(comfy.utils.unet_to_diffusers(_config(model)))


def weight_keys(model) -> dict[str, str]:
    """The weights of a MODEL of any family: the names that erasures give them, to ComfyUI's."""
    if has_unet(model):
        return unet_keys(model)
    return {f"unet.{key.removeprefix(UNET)}": key for key in model.model_state_dict(UNET)}


def unet_keys(model) -> dict[str, str]:
    """The UNet's weights: diffusers' names to ComfyUI's. Raises ``UnsupportedModelError`` for other families."""
    config = _config(model)
    named = comfy.utils.unet_to_diffusers(config)
    present = set(model.model_state_dict(UNET)) if named else set()
    keys = {f"unet.{name}": UNET + key for name, key in named.items() if UNET + key in present}
    if config.get("use_temporal_attention") or not any(name.endswith(CROSS) for name in keys):
        kind = type(getattr(model, "model", None)).__name__
        raise UnsupportedModelError(f"MODEL is of the kind {kind}, which has no UNet of Stable Diffusion")
    return {name: key for name, key in keys.items() if not name.startswith("unet.class_embedding.")}  # the label again


def _config(model) -> dict:
    return getattr(getattr(getattr(model, "model", None), "model_config", None), "unet_config", None) or {}


def reads_pooled(model) -> bool:
    """Whether a UNet reads the pooled text vector, as those of SDXL and its refiner do."""
    return isinstance(model.model, (comfy.model_base.SDXL, comfy.model_base.SDXLRefiner))


def text_names(model) -> list[str]:
    """The weights of a UNet that read text, by diffusers' names; none of another family."""
    if not has_unet(model):
        return []
    pooled = reads_pooled(model)
    return [name for name in unet_keys(model) if name.endswith(CROSS) or (pooled and name == LABEL)]


def text_weights(model) -> Mapping[str, Tensor]:
    """Those of ``text_names`` in float32, merged with the patches."""
    keys = unet_keys(model)
    return merged_weights(model, {name: keys[name] for name in text_names(model)})


def merged_weights(patcher, keys: Mapping[str, str], *, patched: bool = True) -> Mapping[str, Tensor]:
    """Weights in float32, merged with the patches or without; ``keys`` maps their names to ComfyUI's."""
    device = _working_device(patcher)
    kept = {name: stored(patcher, key, patched=patched) for name, key in keys.items()}
    return LazyWeights({name: lambda weight=weight: weight.merged(device) for name, weight in kept.items()})


def apply_erasure(model, clip, erasure: Erasure, strength_model: float = 1.0, strength_clip: float = 1.0):
    """Clones of MODEL and CLIP with the changes added as patches; CLIP may be None if it need not change.

    Raises ``ValueError`` when the erasure was made for another kind of model or a strength is not finite.
    """
    for name, strength in (("strength_model", strength_model), ("strength_clip", strength_clip)):
        if not math.isfinite(strength):
            raise ValueError(f"{name} must be a finite number, got {strength}")
    unet = {name: delta for name, delta in erasure.deltas.items() if name.startswith("unet.")}
    text = {name: delta for name, delta in erasure.deltas.items() if name not in unet}
    if text and clip is None:
        raise ValueError("CLIP is missing, and this erasure changes the text encoder")
    carried = erasure.carried()
    for what, patcher, strength in (("MODEL", model, strength_model), ("CLIP", clip and clip.patcher, strength_clip)):
        if patcher and strength:
            _tell_of_doubles(what, patcher, erasure)
    new_model = _with_patches(model, model, weight_keys(model), unet, strength_model, carried, "MODEL")
    if not text:
        return new_model, clip and clip.clone()
    keys = _text_keys(clip, text)
    return new_model, _with_patches(clip, clip.patcher, keys, text, strength_clip, carried, "CLIP")


def _tell_of_doubles(what: str, patcher, erasure: Erasure) -> None:
    for other in erasures_of(patcher):
        found = counts_twice(erasure, other)
        if found:
            log.warning("%s has an erasure of '%s' already that was computed on the same weights: both count.", what,
                        found)  # fmt: skip


def progress() -> Callback:
    """A callback that shows a node's progress and raises when the user cancels."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int, what: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return report


def _working_device(model) -> torch.device:
    """The model's device, unless it may lack float64."""
    return model.load_device if model.load_device.type == "cuda" else torch.device("cpu")


def _text_keys(clip, names: Iterable[str]) -> dict[str, str]:
    """ComfyUI's names for weights of the text encoder, by way of the names that LoRA files use."""
    known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    keys = {}
    for name in names:
        if stem(name) in known:
            keys[name] = known[stem(name)].removesuffix("weight") + name.rpartition(".")[2]
    return keys


def _with_patches(
    owner, patcher, keys: Mapping[str, str], deltas: Mapping[str, Delta], strength: float, carried: Erasure, what: str
):  # fmt: skip
    """A clone of a MODEL or CLIP that has the changes, and what is known of them."""
    weights = patcher.model_state_dict()
    changes = {}
    for name, delta in deltas.items():
        key = keys.get(name)
        if key not in weights:
            raise ValueError(
                f"the erasure changes {name}, which {what} does not have; it was made for another kind of model"
            )
        weight = stored(patcher, key)
        weight.check_readable()
        if delta.shape != weight.shape:
            raise ValueError(
                f"the erasure was made for another kind of model: it changes {name} as {delta.shape}, "
                f"in {what} that is {weight.shape}"
            )
        changes[key] = delta
    clone = owner.clone()
    taken = clone.add_patches({key: patch(delta, carried) for key, delta in changes.items()}, strength)
    left = set(changes) - set(taken)
    if left:
        raise UnsupportedModelError(f"ComfyUI did not take the change of {sorted(left)[0]} in {what}")
    if changes:
        patched, probed = getattr(clone, "patcher", clone), sorted(changes)[len(changes) // 2]
        check_acts(patcher, patched, probed, changes[probed], strength, what)
        report_rounding(patched, changes, strength, what)
    return clone
