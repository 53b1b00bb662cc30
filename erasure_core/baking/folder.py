"""Diffusers folders: their weights, and a new folder with some of these changed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from ..families.unets import text_parts
from ..files.atomic import PREFIX, SUFFIX, TAKEN, quoted_path
from ..files.pickles import PICKLES
from ..files.tensor_file import open_tensor_file
from ..quoting import excerpt
from .places import UNET, Checkpoint

INDEX = "model_index.json"
WEIGHTS = ".safetensors"
OTHER_WEIGHTS = (*PICKLES, ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".gguf", ".xml")
"""Weights in other formats, and pickles."""
Write = Callable[[BinaryIO], object]


def checkpoint_folder(path: Path) -> Checkpoint:
    """Return the weights of a diffusers folder; raise ``ValueError`` for a folder that is none or has pickles only."""
    components = _components(path)
    parts = {part: path / part for part in (UNET, *text_parts()) if part in components and (path / part).is_dir()}
    files = {part: sorted(folder.glob(f"*{WEIGHTS}")) for part, folder in parts.items()}
    for part in files:
        if not files[part]:
            raise ValueError(f"{path / part} has no weights in {WEIGHTS}; download or convert the whole model")
    if UNET not in files:
        raise ValueError(f"{path} has no {UNET}; only pipelines with a UNet can be baked as a folder, not {components}")
    return Checkpoint(path, {part: [open_tensor_file(one) for one in ones] for part, ones in files.items()})


def check_folder_target(path: Path) -> None:
    """Raise the error that ``write_folder`` would raise for a new folder at ``path``."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{quoted_path(path)} is already there, and no folder is replaced; choose another name")
    if not path.absolute().parent.is_dir():
        raise NotADirectoryError(f"cannot write into {quoted_path(path.absolute().parent)}: there is no such folder")


def write_folder(
    source: Path, target: Path, changed: Mapping[Path, Write], report: Callable[[int, str], None]
) -> tuple[str, ...]:
    """Write the folder ``target`` with the files of the diffusers folder ``source``, whole or not at all.

    ``changed`` are the functions that write some of the files anew. Returns what was left out because it may hold the
    weights as they were: files and folders that the pipeline does not load, and weights in other formats. Raises the
    errors of ``check_folder_target``, ``OSError``, and what the functions raise.
    """
    check_folder_target(target)
    partial = target.absolute().parent / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    taken, left_out = files_to_copy(source, {path.parent.name for path in changed})
    try:
        for path in taken:
            place = partial / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path in changed:
                with place.open("xb") as file:
                    changed[path](file)
            else:
                report(path.stat().st_size, path.name)
                shutil.copyfile(path, place)
        if target.exists():
            raise FileExistsError(f"{quoted_path(target)} {TAKEN}")
        os.rename(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(f"could not write {quoted_path(target)}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return left_out


def files_to_copy(source: Path, changed_parts: set[str]) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a new folder, and the names in ``source`` of what is left out."""
    components = _components(source)
    taken: list[Path] = []
    left_out: list[Path] = []
    for path in sorted(source.iterdir()):
        if path.is_dir() and path.name in components:
            for file in sorted(one for one in path.rglob("*") if one.is_file()):
                of_changed = path.name in changed_parts and file.suffix in OTHER_WEIGHTS
                (left_out if of_changed else taken).append(file)
        elif path.is_dir() or path.suffix in (WEIGHTS, *OTHER_WEIGHTS):
            left_out.append(path)
        else:
            taken.append(path)
    return taken, tuple(path.relative_to(source).as_posix() for path in left_out)


def _components(path: Path) -> list[str]:
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{quoted_path(path)} is not a diffusers folder: it has no {INDEX}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{quoted_path(path / INDEX)} is no configuration in JSON: {excerpt(error)}") from None
    if not isinstance(index, dict):
        raise ValueError(f"{quoted_path(path / INDEX)} is no configuration in JSON")
    return [name for name, value in index.items() if isinstance(value, list) and value != [None, None]]
