"""``Statistics`` as safetensors files: sums in float64, with what they are of as JSON in the header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .closed_form import PairSums
from .concepts import Concept
from .files import KEY as ERASURE_KEY
from .files import STATISTICS_KEY as KEY
from .files import check_target, write_whole
from .statistics import EntryStatistics, Statistics

FORMAT = 1
SUMS = ("edited.concepts", "edited.crossed", "derived.concepts", "derived.crossed", "kept", "exempt")


class StatisticsFileError(ValueError):
    """A file cannot be used as statistics; the message says why."""


def save_statistics(statistics: Statistics, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``statistics`` to ``path``, whole or not at all; six ``[d, d]`` matrices for each text entry.

    Raises what ``files.save`` does.
    """
    path = Path(path)
    check_target(path, overwrite, "statistics are")
    tensors: dict[str, Tensor] = {}
    for name, entry in statistics.entries.items():
        entry = entry.summed()
        sums = (*vars(entry.edited).values(), *vars(entry.derived).values(), entry.kept, entry.exempt)
        for key, value in zip(SUMS, sums, strict=True):
            if not torch.isfinite(value).all():
                raise ValueError(f"the sums of {name} hold NaN or infinite values; nothing was saved")
            tensors[f"{name}/{key}"] = value.cpu().clone().contiguous()
        tensors[f"{name}/probe"] = entry.probe
    header = {
        "format": FORMAT,
        "entries": list(statistics.entries),
        "concepts": [asdict(concept) for concept in statistics.concepts],
        "preserve": statistics.preserve,
        "exactly": statistics.exactly,
        "name_only": statistics.name_only,
    }
    write_whole(tensors, {KEY: json.dumps(header)}, path, overwrite)
    return path


def load_statistics(path: str | Path) -> Statistics:
    """Read a file that ``save_statistics`` wrote.

    Raises ``FileNotFoundError``, or ``StatisticsFileError`` for a file that is damaged or is not ours.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StatisticsFileError(f"{path.name} is not a readable safetensors file: {error}") from error
    if ERASURE_KEY in metadata:
        raise StatisticsFileError(
            f"{path.name} holds an erasure, not statistics; apply it with Load Erasure or any LoRA loader. "
            "Statistics are what Save Statistics, or erase --save-statistics, writes"
        )
    if KEY not in metadata:
        raise StatisticsFileError(f"{path.name} holds no statistics of this pack (no '{KEY}' in its header)")
    try:
        header = json.loads(metadata[KEY])
        if header["format"] != FORMAT:
            raise StatisticsFileError(
                f"{path.name} has format {header['format']}, this version reads {FORMAT}; update the pack"
            )
        return Statistics(
            {name: _entry(name, tensors) for name in header["entries"]},
            tuple(Concept(**concept) for concept in header["concepts"]),
            tuple(header["preserve"]),
            tuple(header["exactly"]),
            bool(header["name_only"]),
        )
    except StatisticsFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StatisticsFileError(f"the header of {path.name} does not fit its content: {error}") from error


def _entry(name: str, tensors: dict[str, Tensor]) -> EntryStatistics:
    sums = [tensors[f"{name}/{key}"] for key in SUMS]
    width = sums[0].shape[-1]
    for key, value in zip(SUMS, sums, strict=True):
        if value.shape != (width, width) or value.dtype != torch.float64 or not torch.isfinite(value).all():
            raise StatisticsFileError(
                f"{name}/{key} is {tuple(value.shape)} in {value.dtype}, or not finite; "
                f"expected {width} times {width} finite numbers in float64"
            )
    return EntryStatistics(PairSums(*sums[:2]), PairSums(*sums[2:4]), *sums[4:], tensors[f"{name}/probe"])
