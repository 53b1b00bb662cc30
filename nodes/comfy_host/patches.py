"""Applying erasures as patches on clones of MODEL and CLIP."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import comfy.lora

from ...erasure_core import Erasure, UnsupportedModelError
from ...erasure_core.erasures.erasure import counts_twice
from ...erasure_core.erasures.file_keys import stem
from ...erasure_core.erasures.low_rank import Delta
from .erasures_of_model import erasures_of, patch
from .model import weight_keys
from .precision import report_rounding
from .proof import check_acts
from .weights import stored

log = logging.getLogger(__name__)


def apply_erasure(model, clip, erasure: Erasure, strength_model: float = 1.0, strength_clip: float = 1.0):
    """Return clones of MODEL and CLIP that have the changes of an erasure as patches.

    ``clip`` may be ``None`` for an erasure that does not change the text encoder. The changes of the denoiser are
    multiplied by ``strength_model``, those of the text encoder by ``strength_clip``; both may be any finite number, and
    1, the default, is the whole erasure. Logs a warning where the model has an erasure of the same concept from the
    same weights, and what rounding to the model's precision loses. Raises ``ValueError`` for an erasure of another kind
    of model and for a strength that is not finite, and ``UnsupportedModelError`` where ComfyUI would not compute with
    the patches.
    """
    for name, strength in (("strength_model", strength_model), ("strength_clip", strength_clip)):
        if not math.isfinite(strength):
            raise ValueError(f"{name} must be a finite number, got {strength}")
    unet = {name: delta for name, delta in erasure.deltas.items() if name.startswith("unet.")}
    text = {name: delta for name, delta in erasure.deltas.items() if name not in unet}
    if text and clip is None:
        raise ValueError("CLIP is missing, and this erasure changes the text encoder")
    record = erasure.carried()
    for what, patcher, strength in (("MODEL", model, strength_model), ("CLIP", clip and clip.patcher, strength_clip)):
        if patcher and strength:
            _warn_of_doubles(what, patcher, erasure)
    new_model = _with_patches(model, model, weight_keys(model), unet, strength_model, record, "MODEL")
    if not text:
        return new_model, clip and clip.clone()
    keys = _text_keys(clip, text)
    return new_model, _with_patches(clip, clip.patcher, keys, text, strength_clip, record, "CLIP")


def _warn_of_doubles(what: str, patcher, erasure: Erasure) -> None:
    for other in erasures_of(patcher):
        concept = counts_twice(erasure, other)
        if concept:
            log.warning(
                "%s has an erasure of '%s' already that was computed on the same weights: both count.", what, concept
            )


def _text_keys(clip, names: Iterable[str]) -> dict[str, str]:
    """Return ComfyUI's names for weights of the text encoder, by way of the keys that LoRA files use."""
    lora_keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    keys = {}
    for name in names:
        if stem(name) in lora_keys:
            keys[name] = lora_keys[stem(name)].removesuffix("weight") + name.rpartition(".")[2]
    return keys


def _with_patches(
    owner, patcher, keys: Mapping[str, str], deltas: Mapping[str, Delta], strength: float, record: Erasure, what: str
):  # fmt: skip
    """Return a clone of ``owner``, a MODEL or CLIP, that has the changes and the ``record`` of their erasure.

    ``patcher`` is that of ``owner``, and ``keys`` are its keys by the names of weights in ``deltas``. ``what`` names
    ``owner`` in messages.
    """
    weights = patcher.model_state_dict()
    changes = {}
    for name, delta in deltas.items():
        key = keys.get(name)
        if key is None or key not in weights:
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
    accepted = clone.add_patches({key: patch(delta, record) for key, delta in changes.items()}, strength)
    rejected = set(changes) - set(accepted)
    if rejected:
        raise UnsupportedModelError(f"ComfyUI did not take the change of {sorted(rejected)[0]} in {what}")
    if changes:
        patched, sample = getattr(clone, "patcher", clone), sorted(changes)[len(changes) // 2]
        check_acts(patcher, patched, sample, changes[sample], strength, what)
        report_rounding(patched, changes, strength, what)
    return clone
