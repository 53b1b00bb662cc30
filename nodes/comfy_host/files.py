"""The files of this pack in ComfyUI's folders: LoRAs, statistics, lists."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...erasure_core import Erasure
from ...erasure_core.concepts.lists import TABLES
from ...erasure_core.quoting import shortened, shown

LORAS, STATISTICS = "loras", "erasure-statistics"  # folders of the output folder
SUFFIX = ".safetensors"
MOST_FOLDERS, MOST_BYTES = 20, 200  # of a prefix, in one another, and of one name: file systems take 255


def save_as_lora(erasure: Erasure, prefix: str) -> Path:
    """Write an erasure to a new file below ``output/loras``."""
    return saved(LORAS, prefix, erasure.save)


def saved(folder: str, prefix: str, save: Callable[[Path], Path]) -> Path:
    """What ``save`` gives for a new file below a folder of the output folder, numbered as "Save Image" numbers.

    Raises ``ValueError`` for a prefix that names no file or leads elsewhere, and where nothing can be written.
    """
    _check_names(prefix)
    root = os.path.join(os.path.abspath(folder_paths.get_output_directory()), folder)
    wanted = os.path.abspath(os.path.join(root, os.path.dirname(os.path.normpath(prefix))))
    if not os.path.basename(prefix).strip(". "):
        raise ValueError(f"filename_prefix '{shown(prefix)}' names no file; write for example 'erasure/no-van-gogh'")
    if os.path.commonpath((root, wanted)) != root:
        raise ValueError(f"filename_prefix '{shown(prefix)}' leads out of {root}; saving elsewhere is not allowed")
    try:
        place, name, counter, _, _ = folder_paths.get_save_image_path(prefix, root)
        return save(Path(place) / f"{name}_{counter:05}_{SUFFIX}")
    except OSError as error:
        raise ValueError(f"filename_prefix '{shown(prefix)}': nothing could be written to {wanted}: {error}") from error


def _check_names(prefix: str) -> None:
    parts = prefix.replace("\\", "/").split("/")
    if not prefix.isprintable() or len(parts) > MOST_FOLDERS or any(len(p.encode()) > MOST_BYTES for p in parts):
        raise ValueError(
            f"filename_prefix '{shown(prefix)}' must be on one line, with at most {MOST_FOLDERS} folders and "
            f"{MOST_BYTES} bytes for the name of each"
        )


def lora_files() -> list[str]:
    """The safetensors files of ComfyUI's loras folders."""
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(SUFFIX)]


def lora_path(name: str) -> str:
    """Raises ``ValueError`` for a file that is not there, in a sentence that the host can print."""
    path = folder_paths.get_full_path("loras", name) if isinstance(name, str) else None
    if path is None:
        raise ValueError(f"file '{shown(name)}' is in none of the loras folders; choose one that the list shows")
    return path


def statistics_files() -> list[str]:
    """The files that "Save Statistics" wrote."""
    return _below(_statistics_folder(), SUFFIX)


def statistics_path(name: str) -> Path:
    return _named(_statistics_folder(), name, statistics_files())


def list_files() -> list[str]:
    """The text files and tables of ComfyUI's input folder."""
    folder = Path(folder_paths.get_input_directory())
    return sorted(name for suffix in (".txt", *TABLES) for name in _below(folder, suffix))


def list_path(name: str) -> Path:
    return _named(Path(folder_paths.get_input_directory()), name, list_files())


def digest(path: Path) -> str:
    """Return a digest of a file's content, which may change while its name stays."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()


def stamp(path: str | Path) -> tuple[int, int]:
    """Return what changes when a file is replaced, for files that are too large to be read for a comparison."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size


def _statistics_folder() -> Path:
    return Path(folder_paths.get_output_directory(), STATISTICS)


def _below(folder: Path, suffix: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}") if path.is_file())


def _named(folder: Path, name: str, known: list[str]) -> Path:
    """The host does not check what comes through its API: only files that are listed can be named."""
    if name not in known:
        there = shortened([shown(one) for one in known]) or "none"
        raise ValueError(f"file '{shown(name)}' is not in {folder}; there are: {there}")
    return folder / name
