"""Which erasures are in a checkpoint, as the metadata of its files say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from ..files.json_fields import Fields, parsed
from .erasure import Erasure
from .erasure_file import check_format, stored_origin
from .erasure_record import Origin

BAKED = "erasure_baked"
FORMAT = 1


@dataclass(frozen=True)
class Baked:
    """An erasure in a checkpoint: how it was made, and how strongly it was added."""

    origins: tuple[Origin, ...]
    strength: float = 1.0


def baked_erasures(metadata: Mapping[str, str]) -> tuple[Baked, ...]:
    """Return the erasures that the metadata of a file lists; raise ``ValueError`` for a list that cannot be read."""
    if BAKED not in metadata:
        return ()
    header = parsed(metadata[BAKED], f"'{BAKED}' in its header")
    check_format(header, FORMAT)
    return tuple(_baked(one) for one in header.objects("erasures"))


def each_once(lists: Iterable[Iterable[Baked]]) -> tuple[Baked, ...]:
    """Return the erasures of several files of a checkpoint, each once: all files of a folder list them."""
    found: list[Baked] = []
    for listed in lists:
        found += [one for one in listed if one not in found]
    return tuple(found)


def carried_by(files: Iterable[Path]) -> tuple[Erasure, ...]:
    """Return the erasures that are in the weights of safetensors ``files``, without the changes themselves.

    Raises ``ValueError`` for a list of erasures that cannot be read.
    """
    metadata = []
    for file in files:
        with safe_open(str(file), "pt") as opened:
            metadata.append(opened.metadata() or {})
    found = each_once(map(baked_erasures, metadata))
    return tuple(Erasure({}, one.origins) for one in found if one.strength > 0)


def _baked(stored: Fields) -> Baked:
    return Baked(tuple(map(stored_origin, stored.objects("origins"))), float(stored.get("strength", float)))
