"""The files of this pack in ComfyUI's folders: LoRAs, statistics, lists."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import folder_paths

from ...erasure_core import Concept, Erasure
from ...erasure_core.concepts.lists import TABLES
from ...erasure_core.quoting import excerpt, shortened

LORAS, CHECKPOINTS, STATISTICS = "loras", "checkpoints", "erasure-statistics"  # folders of the output folder
SUFFIX = ".safetensors"
CONCEPTS, MOST_LETTERS = "%concepts%", 40  # a placeholder of a prefix, and how much of a concept it becomes
MOST_FOLDERS, MOST_BYTES = 20, 200  # of a prefix, in one another, and of one name: file systems take 255


def save_as_lora(erasure: Erasure, prefix: str) -> Path:
    """Write an erasure to a new file below ``output/loras``, and return its path.

    ``prefix`` and the errors are those of ``save_numbered``; ``%concepts%`` in it stands for what is erased.
    """
    return save_numbered(LORAS, prefix.replace(CONCEPTS, _name_of(erasure.concepts)), erasure.save)


def _name_of(concepts: Sequence[Concept]) -> str:
    """Return the first concept as part of a file's name, ``cat-to-dog`` or ``no-cat``, and how many more there are."""
    if not concepts:
        return "erasure"
    first, more = concepts[0], len(concepts) - 1
    words = f"{first.name} to {first.instead}" if first.instead else f"no {first.name}"
    name = "-".join(re.findall(r"\w+", words))[:MOST_LETTERS].rstrip("-")
    return f"{name}-and-{more}-more" if more else name


def save_numbered(folder: str, prefix: str, save: Callable[[Path], Path]) -> Path:
    """Call ``save`` with the path of a new file, and return what it returns.

    The file is in ``folder``, a folder of ComfyUI's output folder. ``prefix`` is the start of its name, with folders in
    front of it and ComfyUI's placeholders for the date; a number follows, as with "Save Image". Raises ``ValueError``
    for a prefix that names no file or leads out of the folder, and where nothing can be written.
    """
    _check_names(prefix)
    root = os.path.join(os.path.abspath(folder_paths.get_output_directory()), folder)
    target_folder = os.path.abspath(os.path.join(root, os.path.dirname(os.path.normpath(prefix))))
    if not os.path.basename(prefix).strip(". "):
        raise ValueError(f"filename_prefix '{excerpt(prefix)}' names no file; write for example 'erasure/no-van-gogh'")
    if not Path(target_folder).is_relative_to(root):
        raise ValueError(f"filename_prefix '{excerpt(prefix)}' leads out of {root}; saving elsewhere is not allowed")
    try:
        place, name, counter, _, _ = folder_paths.get_save_image_path(prefix, root)
        return save(Path(place) / f"{name}_{counter:05}_{SUFFIX}")
    except OSError as error:
        raise ValueError(
            f"filename_prefix '{excerpt(prefix)}': nothing could be written to {target_folder}: {error}"
        ) from error


def _check_names(prefix: str) -> None:
    parts = prefix.replace("\\", "/").split("/")
    if not prefix.isprintable() or len(parts) > MOST_FOLDERS or any(len(p.encode()) > MOST_BYTES for p in parts):
        raise ValueError(
            f"filename_prefix '{excerpt(prefix)}' must be on one line, with at most {MOST_FOLDERS} folders and "
            f"{MOST_BYTES} bytes for the name of each"
        )


def lora_files() -> list[str]:
    """Return the names of the safetensors files in ComfyUI's loras folders."""
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(SUFFIX)]


def lora_path(name: str) -> str:
    """Return the path of a file in ComfyUI's loras folders.

    Raises ``ValueError`` for a file that is in none of them, in a sentence that ComfyUI can print.
    """
    return _path_in(LORAS, name)


def checkpoint_files() -> list[str]:
    """Return the names of the safetensors files in ComfyUI's checkpoints folders."""
    return [name for name in folder_paths.get_filename_list(CHECKPOINTS) if name.endswith(SUFFIX)]


def checkpoint_path(name: str) -> str:
    """Return the path of a file in ComfyUI's checkpoints folders; raise the error of ``lora_path``."""
    return _path_in(CHECKPOINTS, name)


def statistics_files() -> list[str]:
    """Return the names of the files that "Save Statistics" wrote."""
    return _below(_statistics_folder(), SUFFIX)


def statistics_path(name: str) -> Path:
    """Return the path of one of ``statistics_files``; raise ``ValueError`` for any other."""
    return _listed_file(_statistics_folder(), name, statistics_files())


def list_files() -> list[str]:
    """Return the names of the text files and tables in ComfyUI's input folder."""
    folder = Path(folder_paths.get_input_directory())
    return _below(folder, ".txt", *TABLES)


def list_path(name: str) -> Path:
    """Return the path of one of ``list_files``; raise ``ValueError`` for any other."""
    return _listed_file(Path(folder_paths.get_input_directory()), name, list_files())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal: it tells ComfyUI whether a file of the same name changed."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            sha.update(part)
    return sha.hexdigest()


def stamp(path: str | Path) -> tuple[int, int]:
    """Return the time of a file's last change, in nanoseconds, and its size in bytes.

    They tell ComfyUI whether a file was replaced, where reading it for a ``digest`` would take too long.
    """
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def _path_in(kind: str, name: str) -> str:
    path = folder_paths.get_full_path(kind, name) if isinstance(name, str) else None
    if path is None:
        raise ValueError(f"file '{excerpt(name)}' is in none of the {kind} folders; choose one that the list shows")
    return path


def _statistics_folder() -> Path:
    return Path(folder_paths.get_output_directory(), STATISTICS)


def _below(folder: Path, *suffixes: str) -> list[str]:
    """Return the files below ``folder`` with one of the ``suffixes``, sorted; it is walked once, as it may be large."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name.endswith(suffixes))
    return sorted(path.relative_to(folder).as_posix() for path in files if path.is_file())


def _listed_file(folder: Path, name: str, names: list[str]) -> Path:
    """Return the path of the file ``name`` in ``folder``; raise ``ValueError`` unless it is one of ``names``.

    ComfyUI does not check what comes through its API, so a name may be any path.
    """
    if name not in names:
        listing = shortened([excerpt(one) for one in names]) or "none"
        raise ValueError(f"file '{excerpt(name)}' is not in {folder}; there are: {listing}")
    return folder / name
