"""Applying erasures as patches on clones of MODEL and CLIP."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import comfy.lora

from ...erasure_core import Erasure, UnsupportedModelError
from ...erasure_core.erasures.erasure import counts_twice
from ...erasure_core.erasures.lora_keys import stem
from ...erasure_core.erasures.low_rank import Delta
from .erasures_of_model import erasures_of, patch
from .model import weight_keys
from .precision import report_rounding
from .proof import check_acts
from .weights import stored

log = logging.getLogger(__name__)


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
            log.warning(
                "%s has an erasure of '%s' already that was computed on the same weights: both count.", what, found
            )


def _text_keys(clip, names: Iterable[str]) -> dict[str, str]:
    """Return ComfyUI's names for weights of the text encoder, by way of the keys that LoRA files use."""
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
    taken = clone.add_patches({key: patch(delta, carried) for key, delta in changes.items()}, strength)
    left = set(changes) - set(taken)
    if left:
        raise UnsupportedModelError(f"ComfyUI did not take the change of {sorted(left)[0]} in {what}")
    if changes:
        patched, probed = getattr(clone, "patcher", clone), sorted(changes)[len(changes) // 2]
        check_acts(patcher, patched, probed, changes[probed], strength, what)
        report_rounding(patched, changes, strength, what)
    return clone
