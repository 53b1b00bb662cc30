"""Erasures that were computed on other weights, formed anew for a MODEL."""

from __future__ import annotations

import logging

from ...erasure_core import Erasure
from ...erasure_core.erasures.clip_skip import warn_of_clip_skip
from ...erasure_core.model import fingerprint
from ...erasure_core.quoting import quoted
from .model import ComfyModel, has_unet, merged_weights, text_names, weight_keys
from .open_model import reader

log = logging.getLogger(__name__)


def rebase_if_needed(model, clip, erasure: Erasure) -> Erasure:
    """Return the erasure for a MODEL and its CLIP, formed anew from its context maps if it is of other weights.

    An erasure whose ``fingerprint`` is that of the weights that read text in this MODEL, with their patches or without,
    is returned as it is. So is one without context maps, since it cannot be formed anew. Warnings say which of the two
    was done for one of other weights, and where CLIP skips other layers than when it was made. Raises ``ValueError``
    where MODEL reads text of another width or CLIP is missing, and ``UnsupportedModelError`` as ``reader`` does.
    """
    if clip is not None and has_unet(model):
        warn_of_clip_skip(erasure, ComfyModel(model, clip).clip_skip)
    origins = {origin.fingerprint for origin in erasure.origins}
    own = _fingerprints(model, erasure) if origins else set()
    if not origins or origins & own:
        _warn_of_parts(erasure, own)
        return erasure
    concepts = ", ".join(f"'{concept}'" for concept in erasure.concepts)
    if not erasure.maps:
        log.warning(
            "The erasure of %s was computed on other weights than this MODEL's; it may erase less or harm more.",
            concepts,
        )
        return erasure
    if clip is None:
        raise ValueError(
            f"clip is missing: the erasure of {concepts} was computed on other weights than this MODEL's; connect the "
            "CLIP too, so that it can be formed anew for these"
        )
    rebased = erasure.rebased_on(reader(model, clip))
    log.warning(
        "The erasure of %s was computed on other weights than this MODEL's; it was formed anew for these, which is "
        "right where both have the same text encoder.", concepts,
    )  # fmt: skip
    return rebased


def _warn_of_parts(erasure: Erasure, own: set[str]) -> None:
    """Log which parts of a combined erasure were not computed on the weights with the fingerprints ``own``."""
    others = [
        str(concept) for origin in erasure.origins if origin.fingerprint not in own for concept in origin.concepts
    ]
    if others:
        log.warning(
            "The erasure of %s was computed on other weights than this MODEL's, or on top of the rest of what was "
            "combined; in the first case it may erase less or harm more.", quoted(others),
        )  # fmt: skip


def _fingerprints(model, erasure: Erasure) -> set[str]:
    """Return the fingerprints of the weights that read text, with their patches and without."""
    keys = weight_keys(model)
    names = [name for one in erasure.maps.values() for name in one.names] or text_names(model)
    entry_keys = {name: keys[name] for name in names if name in keys}
    return {fingerprint(merged_weights(model, entry_keys, patched=patched)) for patched in (True, False)}
