"""Erasures as safetensors files that stock LoRA loaders read, with our metadata in the header.

Names are kohya's, so ComfyUI's "Load LoRA", A1111/Forge and diffusers' ``load_lora_weights`` take them. The header
holds a JSON text under ``erasure``: format, origins, the weights' full names and, for a closed form, the ``up`` of
each context map (its ``down`` is every layer's ``lora_down``). Files of format 1 had one map, of all weights.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .closed_form import LowRank
from .concepts import Concept
from .erasure import ContextMap, Delta, Dense, Erasure, Origin
from .kohya import stems
from .model import CONTEXT

FORMAT = 2
KEY, STATISTICS_KEY = "erasure", "erasure_statistics"
SUFFIX = ".safetensors"
TAKEN = "is already there; choose another name, or ask to overwrite it (overwrite=True, --overwrite)"


class ErasureFileError(ValueError):
    """A file cannot be used as an erasure; the message says why."""


def save(erasure: Erasure, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``erasure`` to ``path``, whole or not at all.

    Raises ``FileExistsError`` when something is there and ``overwrite`` is false, ``OSError`` when the folder cannot be
    written, ``ValueError`` for another ending than ``.safetensors`` and for changes that are not finite.
    """
    path = Path(path)
    check_target(path, overwrite)
    tensors = _tensors(erasure)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinite values; nothing was saved")
    write_whole(tensors, _metadata(erasure), path, overwrite)
    return path


def check_target(path: Path, overwrite: bool, what: str = "an erasure is") -> None:
    """Raise what ``save`` would for this path, before anything is computed for it."""
    if path.suffix != SUFFIX:
        raise ValueError(f"{what} saved as {SUFFIX}, got '{path.name}'")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} {TAKEN}")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"cannot write into {path.parent}: there is no such folder")


def load(path: str | Path) -> Erasure:
    """Read a file that ``save`` wrote.

    Raises ``FileNotFoundError``, or ``ErasureFileError`` for a file that is damaged, is not ours, or whose tensors are
    not those that its header lists.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ErasureFileError(f"{path.name} is not a readable safetensors file: {error}") from error
    if KEY not in metadata:
        if STATISTICS_KEY in metadata:
            raise ErasureFileError(
                f"{path.name} holds statistics, not an erasure; give it to Load Statistics, or to erase --statistics"
            )
        raise ErasureFileError(
            f"{path.name} was not written by this pack (no '{KEY}' in its header); "
            "if it is a LoRA, load it with a LoRA loader"
        )
    try:
        header = json.loads(metadata[KEY])
        if header["format"] == 1:
            header = _from_format_1(header)
        if header["format"] != FORMAT:
            raise ErasureFileError(
                f"{path.name} has format {header['format']}, this version reads {FORMAT}; update the pack"
            )
        return _assemble(header, tensors)
    except ErasureFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ErasureFileError(f"the header of {path.name} does not fit its content: {error}") from error


def _tensors(erasure: Erasure) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    keys = stems(erasure.deltas)
    for name, delta in erasure.deltas.items():
        key = keys[name]
        if isinstance(delta, LowRank):
            dtype = torch.float16 if delta.up.dtype == torch.float16 else torch.float32
            tensors[f"{key}.lora_up.weight"] = delta.up.to(dtype).contiguous()
            tensors[f"{key}.lora_down.weight"] = delta.down.to(dtype, copy=True).contiguous()
            tensors[f"{key}.alpha"] = torch.tensor(float(delta.rank))
        else:
            ending = "diff_b" if name.endswith(".bias") else "diff"
            tensors[f"{key}.{ending}"] = delta.change.float().clone().contiguous()
    return tensors


def _metadata(erasure: Erasure) -> dict[str, str]:
    header: dict[str, Any] = {
        "format": FORMAT,
        "weights": list(erasure.deltas),
        "origins": [asdict(origin) for origin in erasure.origins],
        "error": erasure.error,
    }
    header["maps"] = {
        entry: {"up": _packed(one.change.up), "weights": one.names, "columns": one.columns}
        for entry, one in erasure.maps.items()
    }
    concepts = ", ".join(str(concept) for concept in erasure.concepts)
    return {KEY: json.dumps(header, allow_nan=False), "ss_training_comment": f"erases: {concepts}"}


def _assemble(header: dict[str, Any], tensors: dict[str, Tensor]) -> Erasure:
    used: set[str] = set()

    def take(key: str) -> Tensor | None:
        tensor = tensors.get(key)
        if tensor is not None:
            used.add(key)
            if not torch.isfinite(tensor).all():
                raise ErasureFileError(f"{key} holds NaN or infinite values")
        return tensor

    deltas = {name: _delta(name, key, take) for name, key in stems(header["weights"]).items()}
    left = sorted(set(tensors) - used)
    if left:
        raise ErasureFileError(f"it holds tensors that its header does not list, for example {left[0]}")
    origins = tuple(
        Origin(
            origin["method"],
            tuple(Concept(**concept) for concept in origin["concepts"]),
            origin["settings"],
            origin["fingerprint"],
            origin["version"],
            tuple(float(loss) for loss in origin.get("losses", ())),
        )
        for origin in header["origins"]
    )
    maps = {entry: _context_map(stored, deltas) for entry, stored in header["maps"].items()}
    return Erasure(deltas, origins, maps, float(header["error"]))


def _from_format_1(header: dict[str, Any]) -> dict[str, Any]:
    maps = {}
    if "context_map_up" in header:
        maps[CONTEXT] = {"up": header["context_map_up"], "weights": header["weights"], "columns": None}
    return {**header, "format": FORMAT, "maps": maps}


def _delta(name: str, key: str, take) -> Delta:
    up, down, alpha = (take(f"{key}.{part}") for part in ("lora_up.weight", "lora_down.weight", "alpha"))
    if up is not None and down is not None:
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
            raise ErasureFileError(f"{name} has factors {tuple(up.shape)} and {tuple(down.shape)}")
        scale = 1.0 if alpha is None or not down.shape[0] else float(alpha) / down.shape[0]
        return LowRank(up * scale, down.float())
    change = take(f"{key}.{'diff_b' if name.endswith('.bias') else 'diff'}")
    if change is None:
        raise ErasureFileError(f"the change of {name} is missing")
    return Dense(change)


def _context_map(stored: dict[str, Any], deltas: dict[str, Delta]) -> ContextMap:
    names = tuple(stored["weights"])
    found = [deltas[name] for name in names]
    downs = [delta.down for delta in found if isinstance(delta, LowRank)]
    if not names or len(downs) != len(names) or not all(torch.equal(down, downs[0]) for down in downs):
        raise ErasureFileError("it has a context map but its changes do not share one factor")
    columns = None if stored["columns"] is None else _columns(stored["columns"], downs[0].shape[1])
    down = downs[0] if columns is None else downs[0][:, slice(*columns)].contiguous()
    rank, width = down.shape
    up = _unpacked(stored["up"])
    if up.numel() != rank * width:
        raise ErasureFileError(f"its context map has {up.numel()} numbers, expected {width} times {rank}")
    if not torch.isfinite(up).all():
        raise ErasureFileError("its context map holds NaN or infinite values")
    return ContextMap(LowRank(up.reshape(width, rank).clone(), down), names, columns)


def _columns(stored: Any, width: int) -> tuple[int, int]:
    start, end = stored
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= width):
        raise ErasureFileError(f"its context map is for the columns {stored} of {width}")
    return start, end


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.float().contiguous().cpu().numpy().astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Tensor:
    raw = bytearray(base64.b64decode(text, validate=True))
    return torch.frombuffer(raw, dtype=torch.float32) if raw else torch.zeros(0)


def write_whole(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path, overwrite: bool) -> None:
    """Through a temporary file in the same folder; what was at ``path`` stays until the new file is complete."""
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise OSError(f"cannot write into {path.parent}: {error.strerror}") from error
    os.close(handle)
    try:
        save_file(tensors, partial, metadata=metadata)
        os.chmod(partial, 0o644)
        if overwrite:
            os.replace(partial, path)
        else:
            _move_to_new(partial, path)
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _move_to_new(partial: str, path: Path) -> None:
    """Rename without replacing a file that appeared meanwhile; plain rename where there are no hard links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(f"{path} {TAKEN}") from None
    except OSError:
        if path.exists():
            raise FileExistsError(f"{path} {TAKEN}") from None
        os.replace(partial, path)
