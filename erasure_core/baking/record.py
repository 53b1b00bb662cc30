"""What a baked checkpoint says of its erasures, in the metadata of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..erasures.baked import BAKED, FORMAT, Baked, baked_erasures
from ..erasures.erasure import Erasure, counts_twice
from ..erasures.erasure_record import ErasureRecord
from ..files.json_fields import written

HASHES = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
"""Metadata that is computed from the tensors, and is wrong once these change."""


def with_erasure(metadata: Mapping[str, str], erasure: ErasureRecord, strength: float) -> dict[str, str]:
    """Return the metadata of a file once an erasure is added to its tensors: all that stays true, and the erasure."""
    listed = [*baked_erasures(metadata), Baked(erasure.origins, strength)]
    entries: list[dict[str, Any]] = [
        {"origins": [asdict(origin) for origin in one.origins], "strength": one.strength} for one in listed
    ]
    text = written({"format": FORMAT, "erasures": entries}, "what is known of the erasure")
    return {key: value for key, value in metadata.items() if key not in HASHES} | {BAKED: text}


def check_not_baked(metadata: Mapping[str, str], erasure: Erasure) -> None:
    """Raise ``ValueError`` where a file already has an erasure of the same concept from the same weights."""
    for one in baked_erasures(metadata):
        double = counts_twice(Erasure(erasure.deltas, one.origins), erasure)
        if double:
            raise ValueError(
                f"the checkpoint has this erasure of '{double}' already, so it would count twice; bake into the "
                "checkpoint without it, or make an erasure on the checkpoint that has it"
            )
