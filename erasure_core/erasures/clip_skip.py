"""Whether an erasure was made for text as a model reads it: CLIP's last layers may be skipped."""

from __future__ import annotations

import logging

from .erasure_record import ErasureRecord

log = logging.getLogger(__name__)


def clip_skips(erasure: ErasureRecord) -> set[int]:
    """Return how many of CLIP's last layers were skipped where an erasure was made; files of old versions lack it."""
    recorded = (origin.settings.get("clip_skip") for origin in erasure.origins)
    return {one for one in recorded if type(one) is int}


def warn_of_clip_skip(erasure: ErasureRecord, clip_skip: int) -> None:
    """Log a warning where an erasure was made for text of other layers than a model with this ``clip_skip`` reads."""
    others = clip_skips(erasure) - {clip_skip}
    if others:
        log.warning(
            "The erasure of %s was made with a CLIP skip of %s, as diffusers counts, and this model reads prompts with "
            "%d: the concept may come back. Load the model with the same, or make the erasure anew for this one.",
            ", ".join(f"'{concept}'" for concept in erasure.concepts),
            " and ".join(map(str, sorted(others))),
            clip_skip,
        )
