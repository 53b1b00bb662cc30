"""Saving and loading ``Statistics``: safetensors files with sums in float64 and a JSON header."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..erasures.erasure_file import KEY as ERASURE_KEY
from ..erasures.erasure_file import STATISTICS_KEY as KEY
from ..erasures.erasure_file import check_format, check_target, stored_concepts
from ..files.atomic import write_whole
from ..files.json_fields import Fields, parsed, twice, written
from ..files.safetensors_files import read, write
from ..quoting import excerpt
from .statistics import EntryStatistics, Statistics
from .uce import PairSums

FORMAT = 1
SUMS = ("edited.concepts", "edited.crossed", "derived.concepts", "derived.crossed", "kept", "exempt")


class StatisticsFileError(ValueError):
    """A file cannot be used as statistics; the message says why."""


def save_statistics(statistics: Statistics, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``statistics`` to ``path``, whole or not at all, and return the path.

    The file holds six float64 matrices ``[d, d]`` for each text entry. Raises what ``erasures.erasure_file.save``
    raises, and ``ValueError`` for sums that are not finite.
    """
    path = Path(path)
    check_target(path, overwrite, "statistics are")
    tensors: dict[str, Tensor] = {}
    for name, entry in statistics.entries.items():
        entry = entry.summed()
        sums = (*vars(entry.edited).values(), *vars(entry.derived).values(), entry.preserve_gram, entry.exactly_gram)
        for key, value in zip(SUMS, sums, strict=True):
            if not torch.isfinite(value).all():
                raise ValueError(f"the sums of {name} hold NaN or infinite values; nothing was saved")
            tensors[f"{name}/{key}"] = value
        tensors[f"{name}/probe"] = entry.reference_row
    header = {
        "format": FORMAT,
        "entries": list(statistics.entries),
        "distances": {name: entry.distance for name, entry in statistics.entries.items() if entry.distance is not None},
        "concepts": [asdict(concept) for concept in statistics.concepts],
        "preserve": statistics.preserve,
        "exactly": statistics.exactly,
        "name_only": statistics.name_only,
    }
    metadata = {KEY: written(header, "what the statistics are of")}
    write_whole(path, lambda file: write(file, tensors, metadata), overwrite)
    return path


def load_statistics(path: str | Path) -> Statistics:
    """Read a file that ``save_statistics`` wrote.

    Raises ``FileNotFoundError``, or ``StatisticsFileError`` for a file that is damaged or holds no statistics.
    """
    path = Path(path)
    name = excerpt(path.name)
    try:
        metadata, tensors = read(path)
    except ValueError as error:
        raise StatisticsFileError(f"{name} {error}") from error
    if ERASURE_KEY in metadata:
        raise StatisticsFileError(
            f"{name} holds an erasure, not statistics; apply it with Load Erasure or any LoRA loader. "
            "Statistics are what Save Statistics, or erase --save-statistics, writes"
        )
    if KEY not in metadata:
        raise StatisticsFileError(f"{name} holds no statistics of this pack (no '{KEY}' in its header)")
    try:
        return _assemble(parsed(metadata[KEY], "its header"), tensors)
    except ValueError as error:
        raise StatisticsFileError(f"{name} cannot be used as statistics: {error}") from error


def _assemble(header: Fields, tensors: dict[str, Tensor]) -> Statistics:
    check_format(header, FORMAT)
    remaining = dict(tensors)
    distances = header.object("distances") if "distances" in header else Fields({}, "the header of an earlier version")
    entries = {name: _entry(name, remaining, distances) for name in header.all("entries", str)}
    if not entries:
        raise ValueError("it lists no entries")
    if remaining:
        raise ValueError(f"it holds tensors that its header does not list, for example {excerpt(min(remaining))}")
    concepts = stored_concepts(header)
    if twice([str(concept) for concept in concepts]) is not None:
        raise ValueError(f"it lists '{excerpt(twice([str(concept) for concept in concepts]))}' twice")
    preserve, exactly = (tuple(header.all(kind, str)) for kind in ("preserve", "exactly"))
    return Statistics(entries, concepts, preserve, exactly, header.get("name_only", bool))


def _entry(name: str, remaining: dict[str, Tensor], distances: Fields) -> EntryStatistics:
    """Take the tensors of one text entry out of ``remaining``, and return its statistics."""
    distance = distances.get(name, float) if name in distances else None
    if distance is not None and distance < 0:
        raise ValueError(f"'{excerpt(name)}' has a distance of {distance:g}, expected at least 0")
    keys = [f"{name}/{key}" for key in (*SUMS, "probe")]
    missing = [key for key in keys if key not in remaining]
    if missing:
        raise ValueError(f"{excerpt(missing[0])} is missing")
    *sums, reference_row = map(remaining.pop, keys)
    width = sums[0].shape[-1] if sums[0].ndim else 0
    for key, value in zip(keys, sums, strict=False):
        if not width or value.shape != (width, width) or not _is_finite(value, torch.float64):
            raise ValueError(
                f"{excerpt(key)} is {tuple(value.shape)} in {value.dtype}, or not finite; "
                f"expected {width or 'the width'} times {width or 'the width'} finite numbers in float64"
            )
    if reference_row.ndim != 1 or not len(reference_row) or not _is_finite(reference_row, torch.float32):
        raise ValueError(
            f"{excerpt(keys[-1])} is {tuple(reference_row.shape)} in {reference_row.dtype}, or not finite; "
            "expected a row of finite numbers in float32"
        )
    preserve_gram, exactly_gram = sums[4:]
    pairs = PairSums(*sums[:2]), PairSums(*sums[2:4])
    return EntryStatistics(*pairs, preserve_gram, exactly_gram, reference_row, distance)


def _is_finite(tensor: Tensor, dtype: torch.dtype) -> bool:
    return tensor.dtype == dtype and bool(torch.isfinite(tensor).all())
