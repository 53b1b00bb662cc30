"""A MODEL and CLIP of any family as what closed forms need, and erasures made to fit them."""

from __future__ import annotations

import logging

from ...erasure_core import Erasure
from ...erasure_core.model import TextReader, fingerprint
from .model import ComfyModel, has_unet, merged_weights, text_names, weight_keys
from .traced_model import TracedText

log = logging.getLogger(__name__)


def reader(model, clip) -> TextReader:
    """Where text enters MODEL and what it reads there: by name in a UNet of Stable Diffusion, by tracing elsewhere.

    Raises ``UnsupportedModelError`` where it cannot be told.
    """
    return ComfyModel(model, clip) if has_unet(model) else TracedText(model, clip)


def fitted(model, clip, erasure: Erasure) -> Erasure:
    """The erasure for this MODEL: formed anew from its context maps where it was computed on other weights.

    Without maps it stays as it is. Both are said in a warning. Weights count with their patches or without.
    """
    made_on = {origin.fingerprint for origin in erasure.origins}
    if not made_on or made_on & _fingerprints(model, erasure):
        return erasure
    named = ", ".join(f"'{concept}'" for concept in erasure.concepts)
    if not erasure.maps:
        log.warning(
            "The erasure of %s was computed on other weights than this MODEL's; it may erase less or harm more.", named
        )
        return erasure
    anew = erasure.rebased_on(reader(model, clip))
    log.warning(
        "The erasure of %s was computed on other weights than this MODEL's; it was formed anew for these, which is "
        "right where both have the same text encoder.", named,
    )  # fmt: skip
    return anew


def _fingerprints(model, erasure: Erasure) -> set[str]:
    """Return the fingerprints of the weights that read text, with their patches and without."""
    keys = weight_keys(model)
    names = [name for one in erasure.maps.values() for name in one.names] or text_names(model)
    kept = {name: keys[name] for name in names if name in keys}
    return {fingerprint(merged_weights(model, kept, patched=patched)) for patched in (True, False)}
