"""Saving and loading erasures: safetensors files that common LoRA loaders read, with a JSON header of our own.

``file_keys`` has the names of the tensors, and ``programs`` the programs that load them. The header holds a JSON
text under ``erasure``: format, origins, the full names of the weights and, for a closed form, the ``up`` of each
context map (its ``down`` is that of every layer). Files of format 1 have one map for all weights.

If the maps are too large for the header, which is limited to 100 MB, all their ``up`` are in one tensor, ``MAPS``.
Loaders ignore it with a message: ComfyUI did not load this key, diffusers (from 0.32 on) leaves out ``dora_scale``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..concepts.parse import Concept
from ..files.atomic import check_target as check_writable
from ..files.atomic import write_whole
from ..files.json_fields import Fields, parsed, twice, written
from ..files.safetensors_files import SUFFIX, read, write
from ..model import CONTEXT
from ..quoting import excerpt
from .erasure_record import ContextMap, ErasureRecord, Origin
from .file_keys import factors, stems, stored_stems
from .low_rank import Delta, Dense, LowRank
from .model_spec import model_spec

FORMAT = 3
KEY, STATISTICS_KEY = "erasure", "erasure_statistics"
MAPS = "erasure_maps.dora_scale"
MOST_IN_HEADER = 2**25  # bytes of context maps in the header; those of SDXL are never larger
LONGEST = 200  # characters of a weight's name that a message quotes
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ErasureFileError(ValueError):
    """A file cannot be used as an erasure; the message says why."""


def save(
    erasure: ErasureRecord, path: str | Path, *, overwrite: bool = False, modelspec: Mapping[str, str] | None = None
) -> Path:
    """Write ``erasure`` to ``path``, whole or not at all, and return the path; equal erasures give equal bytes.

    ``modelspec`` are fields of the metadata that LoRA managers show, such as a ``date``; see ``model_spec``. Raises the
    errors of ``check_target`` and ``model_spec``, and ``ValueError`` for changes that are not finite or too large for
    a file.
    """
    path = Path(path)
    check_target(path, overwrite)
    about = model_spec(erasure, modelspec)
    maps, apart = _maps(erasure)
    tensors = _tensors(erasure) | apart
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinite values; nothing was saved")
    for name, delta in erasure.deltas.items():
        if isinstance(delta, LowRank) and _overflows(delta):
            raise ValueError(f"the change of {name} is out of the range of {torch.float32}; nothing was saved")
    metadata = _metadata(erasure, maps) | about
    write_whole(path, lambda file: write(file, tensors, metadata), overwrite)
    return path


def check_target(path: Path, overwrite: bool, what: str = "an erasure is") -> None:
    """Raise the error that ``save`` would raise for this path, before anything is computed for the file.

    That is ``ValueError`` for another ending than ``.safetensors`` (``what`` begins its message), and the errors of
    ``atomic.check_target``.
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"{what} saved as {SUFFIX}, got '{excerpt(path.name)}'")
    check_writable(path, overwrite)


def load(path: str | Path) -> ErasureRecord:
    """Read a file that ``save`` wrote.

    Raises ``FileNotFoundError``, or ``ErasureFileError`` for a file that is damaged, that holds no erasure, or whose
    tensors are not those that its header lists.
    """
    path = Path(path)
    name = excerpt(path.name)
    try:
        metadata, tensors = read(path)
    except ValueError as error:
        raise ErasureFileError(f"{name} {error}") from error
    if KEY not in metadata:
        if STATISTICS_KEY in metadata:
            raise ErasureFileError(
                f"{name} holds statistics, not an erasure; give it to Load Statistics, or to erase --statistics"
            )
        raise ErasureFileError(
            f"{name} was not written by this pack (no '{KEY}' in its header); "
            "if it is a LoRA, load it with a LoRA loader"
        )
    try:
        return _assemble(parsed(metadata[KEY], "its header"), tensors)
    except ValueError as error:
        raise ErasureFileError(f"{name} cannot be used as an erasure: {error}") from error


def stored_concepts(header: Fields) -> tuple[Concept, ...]:
    """Return the concepts that a header lists."""
    return tuple(Concept(one.get("name", str), one.get("instead", str)) for one in header.objects("concepts"))


def check_format(header: Fields, newest: int) -> int:
    """Return the format's number in a header; raise ``ValueError`` unless it is from 1 to ``newest``."""
    number = header.get("format", int)
    if not 1 <= number <= newest:
        raise ValueError(f"it has format {number}, this version reads 1 to {newest}; update the pack")
    return number


def _tensors(erasure: ErasureRecord) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, key in stems(erasure.deltas).items():
        delta = erasure.deltas[name]
        if isinstance(delta, LowRank):
            dtype = torch.float16 if delta.up.dtype == torch.float16 else torch.float32
            up, down, alpha = factors(key)
            parts = {up: delta.up.to(dtype), down: delta.down.to(dtype)}
            parts |= {alpha: torch.tensor(float(delta.rank))} if alpha else {}
        else:
            parts = {_whole(name, key): delta.change.float()}
        if not tensors.keys().isdisjoint(parts):
            raise ValueError(f"{name} has the name of another weight in LoRA files, {key}; nothing was saved")
        tensors |= parts
    return tensors


def _maps(erasure: ErasureRecord) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the entries of the header for the context maps, and the tensor that holds large ones."""
    ups = {entry: erasure.maps[entry].change.up.float() for entry in sorted(erasure.maps)}
    apart = sum(up.nbytes for up in ups.values()) > MOST_IN_HEADER
    entries = {
        entry: {"up": None if apart else _packed(up), "weights": one.names, "columns": one.columns}
        for entry, up in ups.items()
        for one in [erasure.maps[entry]]
    }
    return entries, {MAPS: torch.cat([up.reshape(-1) for up in ups.values()])} if apart else {}


def _metadata(erasure: ErasureRecord, maps: dict[str, Any]) -> dict[str, str]:
    header = {
        "format": FORMAT,
        "weights": list(erasure.deltas),
        "origins": [asdict(origin) for origin in erasure.origins],
        "error": erasure.error,
        "maps": maps,
    }
    return {KEY: written(header, "what is known of the erasure")}


def _assemble(header: Fields, tensors: Mapping[str, Tensor]) -> ErasureRecord:
    first = check_format(header, FORMAT) == 1
    for key, tensor in tensors.items():
        _check_numbers(key, tensor)
    names, left = header.all("weights", str), dict(tensors)
    if twice(names) is not None:
        raise ValueError(f"it lists {excerpt(twice(names), LONGEST)} twice")
    deltas = {name: _delta(name, key, left) for name, key in stored_stems(names, tensors).items()}
    origins = tuple(stored_origin(one) for one in header.objects("origins"))
    maps = _context_maps(_of_format_1(header) if first else header.object("maps"), deltas, left)
    if left:
        raise ValueError(f"it holds tensors that its header does not list, for example {excerpt(min(left), LONGEST)}")
    error = header.get("error", float)
    if error < 0:
        raise ValueError(f"its error is {error}, expected 0 or more")
    return ErasureRecord(deltas, origins, maps, float(error))


def _of_format_1(header: Fields) -> Fields:
    if "context_map_up" not in header:
        return Fields({}, "'maps'")
    only = {"up": header.get("context_map_up", str), "weights": header.get("weights", list), "columns": None}
    return Fields({CONTEXT: only}, "'maps'")


def stored_origin(stored: Fields) -> Origin:
    """Return the origin that a header describes; raise ``ValueError`` for what is missing or of another type."""
    return Origin(
        stored.get("method", str),
        stored_concepts(stored),
        stored.get("settings", dict),
        stored.get("fingerprint", str),
        stored.get("version", str),
        tuple(float(loss) for loss in stored.all("losses", float)) if "losses" in stored else (),
    )


def _check_numbers(key: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        key = excerpt(key, LONGEST)
        raise ValueError(f"{key} holds numbers of type {tensor.dtype}, expected floats of 16, 32 or 64 bits")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{excerpt(key, LONGEST)} holds NaN or infinite values")


def _delta(name: str, key: str, left: dict[str, Tensor]) -> Delta:
    """Take the tensors of one weight out of ``left``, and return its change."""
    up, down, alpha = factors(key)
    if not name.endswith(".bias") and up in left and down in left:
        return _low_rank(name, left.pop(up), left.pop(down), left.pop(alpha, None) if alpha else None)
    change = left.pop(_whole(name, key), None)
    if change is None:
        raise ValueError(f"the change of {excerpt(name, LONGEST)} is missing")
    if not change.numel() or not change.ndim or name.endswith(".bias") and change.ndim > 1:
        raise ValueError(f"{excerpt(name, LONGEST)} changes as {tuple(change.shape)}, which is the shape of no weight")
    return Dense(_in_range(name, change.float()))


def _low_rank(name: str, up: Tensor, down: Tensor, alpha: Tensor | None) -> LowRank:
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0] or not len(up) or not down.shape[1]:
        shapes = f"{tuple(up.shape)} and {tuple(down.shape)}"
        raise ValueError(f"{excerpt(name, LONGEST)} has factors {shapes}, expected [out, rank] and [rank, in]")
    if alpha is not None and len(down) and (alpha.ndim or not alpha > 0):
        raise ValueError(f"{excerpt(name, LONGEST)} has alpha {excerpt(alpha.tolist())}, expected one number above 0")
    scale = 1.0 if alpha is None or not len(down) else float(alpha) / len(down)
    up = up if up.dtype == torch.float16 else up.float()
    change = LowRank(_in_range(name, up if scale == 1 else up * scale), _in_range(name, down.float()))
    if _overflows(change):
        raise ValueError(f"the change of {excerpt(name, LONGEST)} is out of the range of {torch.float32}")
    return change


def _overflows(change: LowRank) -> bool:
    """Return whether the product may be out of the range of float32, judged by the largest numbers of its factors."""
    if not change.rank:
        return False
    largest = float(change.up.abs().max()) * float(change.down.abs().max()) * change.rank
    return largest > torch.finfo(torch.float32).max


def _in_range(name: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise ValueError(f"the change of {excerpt(name, LONGEST)} is out of the range of {tensor.dtype}")
    return tensor


def _whole(name: str, key: str) -> str:
    return f"{key}.diff_b" if name.endswith(".bias") else f"{key}.diff"


def _context_maps(stored: Fields, deltas: Mapping[str, Delta], left: dict[str, Tensor]) -> dict[str, ContextMap]:
    maps, apart = {}, _apart(stored, left)
    for entry, one in sorted(stored.items()):
        down, names, columns = _shared(one, deltas)
        rank, width = down.shape
        if one.null("up"):
            up, apart = apart[: down.numel()], apart[down.numel() :]
        else:
            up = _unpacked(one.get("up", str))
        if up.numel() != down.numel():
            raise ValueError(f"its context map has {up.numel()} numbers, expected {width} times {rank}")
        if not torch.isfinite(up).all():
            raise ValueError("its context map holds NaN or infinite values")
        maps[entry] = ContextMap(LowRank(up.reshape(width, rank).clone(), down), names, columns)
    if apart.numel():
        raise ValueError(f"{MAPS} holds {apart.numel()} numbers more than its context maps have")
    return maps


def _apart(stored: Fields, left: dict[str, Tensor]) -> Tensor:
    """Take the tensor of the context maps out of ``left``, and return its numbers; none if the header has the maps."""
    if not any(one.null("up") for _, one in stored.items()):
        return torch.zeros(0)
    if MAPS not in left:
        raise ValueError(f"its context maps are missing (no {MAPS})")
    return left.pop(MAPS).float().reshape(-1)


def _shared(stored: Fields, deltas: Mapping[str, Delta]) -> tuple[Tensor, tuple[str, ...], tuple[int, int] | None]:
    """Return the ``down`` that the weights of a context map share, their names, and the columns that read text."""
    names = stored.all("weights", str)
    downs = [delta.down for name in names if isinstance(delta := deltas.get(name), LowRank)]
    if not names or len(downs) < len(names) or twice(names) is not None:
        raise ValueError("it has a context map whose weights are not among its low-rank changes, each once")
    if not all(torch.equal(down, downs[0]) for down in downs):
        raise ValueError("it has a context map but its changes do not share one factor")
    if stored.null("columns"):
        return downs[0], tuple(names), None
    columns, width = stored.all("columns", int), downs[0].shape[1]
    if len(columns) != 2 or not 0 <= columns[0] < columns[1] <= width:
        raise ValueError(f"its context map is for the columns {excerpt(columns)} of {width}")
    return downs[0][:, slice(*columns)].contiguous(), tuple(names), tuple(columns)


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.contiguous().cpu().numpy().astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Tensor:
    try:
        raw = bytearray(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise ValueError(f"its context map is no text in base64: {error}") from error
    return torch.frombuffer(raw, dtype=torch.float32) if raw else torch.zeros(0)
