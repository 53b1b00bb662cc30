"""What LoRA managers read of an erasure's file: ``modelspec.*`` and kohya-ss's ``ss_*``, as far as they are true.

Source of the names: Stability AI's ModelSpec 1.0.0 (https://github.com/Stability-AI/ModelSpec) and the metadata that
kohya-ss's sd-scripts write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..families.family import Family
from ..families.unets import FAMILIES, lora_prefixes
from ..quoting import excerpt, shortened
from .clip_skip import clip_skips
from .erasure_record import ErasureRecord
from .file_keys import stems
from .low_rank import LowRank

VERSION = "1.0.0"
GIVEN = ("title", "description", "author", "date", "license", "usage_hint", "tags", "thumbnail")
"""The fields that a user may give in place of the file's own."""
DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?")
CROSS = ("attn2.to_k.weight", "attn2.to_v.weight")
LONGEST = 60  # characters of a title
HINT = (
    "Load it as a LoRA at strength 1. It needs no trigger word and no negative prompt, works at any guidance, 1 too, "
    "and costs nothing a picture."
)


def model_spec(erasure: ErasureRecord, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the metadata of a file with ``erasure``; equal erasures give equal ones, so a date only where it is given.

    ``given`` are fields of ``GIVEN`` by their names without ``modelspec.``: a ``date`` as in 2026-11-28, a
    ``thumbnail`` as a data URL of a picture. Raises ``ValueError`` for other fields, dates and thumbnails.
    """
    names = [concept.name for concept in erasure.concepts]
    fields = {"title": _title(names), "description": _description(erasure), "usage_hint": HINT}
    fields["tags"] = shortened(["concept erasure", *names])
    fields |= checked_fields(given or {})
    family = family_of(erasure)
    if family is not None and family.architecture:
        implementation = "https://github.com/Stability-AI/generative-models" if family.lora.original else "diffusers"
        fields |= {"sai_model_spec": VERSION, "architecture": f"{family.architecture}/lora"}
        fields["implementation"] = implementation
    return {f"modelspec.{name}": value for name, value in fields.items()} | _of_kohya(erasure, family, names)


def checked_fields(given: Mapping[str, str]) -> dict[str, str]:
    """Return ``given``; raise ``ValueError`` for what ``model_spec`` does not take."""
    for name, value in given.items():
        if name not in GIVEN:
            raise ValueError(f"the metadata have no field '{excerpt(name)}'; give some of {', '.join(GIVEN)}")
        if not isinstance(value, str) or not value:
            raise ValueError(f"the field '{name}' must be text, got {excerpt(value)}")
    if "date" in given and not DATE.fullmatch(given["date"]):
        raise ValueError(f"date must be as in 2026-11-28 or 2026-11-28T12:00, got '{excerpt(given['date'])}'")
    if "thumbnail" in given and not given["thumbnail"].startswith("data:image/"):
        raise ValueError(f"thumbnail must be a data URL (data:image/...), got '{excerpt(given['thumbnail'])}'")
    return dict(given)


def family_of(erasure: ErasureRecord) -> Family | None:
    """Return the family of the UNet, or of the two text encoders, that an erasure changes; ``None`` if that is open."""
    widths = {delta.shape[1] for name, delta in erasure.deltas.items() if name.endswith(CROSS)}
    if widths:
        return next((one for one in FAMILIES.values() if {one.unet["cross_attention_dim"]} == widths), None)
    sizes = {
        (name.partition(".")[0], delta.shape[1])
        for name, delta in erasure.deltas.items()
        if name.endswith(".self_attn.q_proj.weight")
    }
    fitting = [
        one
        for one in FAMILIES.values()
        if sizes and sizes <= {(encoder.part, encoder.config["hidden_size"]) for encoder in one.encoders}
    ]
    return fitting[0] if len(fitting) == 1 else None


def _title(names: list[str]) -> str:
    title = f"no {', '.join(names)}"
    return title if len(title) <= LONGEST else f"no {names[0][:LONGEST]} and {len(names) - 1} more"


def _description(erasure: ErasureRecord) -> str:
    """Return what was erased, what is drawn instead, and by which method."""
    made = [
        f"{shortened([str(concept) for concept in origin.concepts])} (by {origin.method}, version {origin.version})"
        for origin in erasure.origins
    ]
    return f"Erases {'; '.join(made)}. A name behind -> is what is drawn instead."


def _of_kohya(erasure: ErasureRecord, family: Family | None, names: list[str]) -> dict[str, str]:
    """Return kohya-ss's fields; those of its network only for a file of low-rank factors under its keys."""
    fields = {"ss_output_name": re.sub(r"[^\w]+", "-", _title(names)).strip("-")}
    fields["ss_training_comment"] = f"erases: {', '.join(str(concept) for concept in erasure.concepts)}"
    if family is not None and family.base_model:
        fields["ss_base_model_version"] = family.base_model
    skips = clip_skips(erasure)
    if len(skips) == 1 and skips != {0}:
        fields["ss_clip_skip"] = str(skips.pop() + 1)  # counted from 1 there
    steps = sum(len(origin.losses) for origin in erasure.origins)
    fields |= {"ss_steps": str(steps)} if steps else {}
    ranks = {delta.rank if isinstance(delta, LowRank) else None for delta in erasure.deltas.values()}
    prefixes = tuple(lora_prefixes().values())
    if ranks and None not in ranks and all(stem.startswith(prefixes) for stem in stems(erasure.deltas).values()):
        rank = str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic"
        fields |= {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
    return fields
