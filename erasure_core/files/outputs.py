"""The files that a command writes: none of them is one that it reads, and it can tell which are there by now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..quoting import shown

LONG = 300  # characters of a path that a sentence shows


class Outputs:
    """``inputs`` are the files and folders that a command reads, by the options that name them."""

    def __init__(self, inputs: Mapping[str, Sequence[Path]]):
        self._read = {_place(path): option for option, paths in inputs.items() for one in paths for path in _all(one)}
        self._taken: dict[object, str] = {}
        self._before: dict[Path, tuple | None] = {}

    def add(self, option: str, *paths: Path, besides: str = "") -> None:
        """Files that an ``option`` has written, before they are.

        Raises ``ValueError`` for one that an option reads, by whatever path, unless it is ``besides``; ``OSError``
        where no file can be written.
        """
        for path in paths:
            place = _place(path)
            reads, writes = self._read.get(place, besides), self._taken.setdefault(place, option)
            if reads != besides:
                raise ValueError(f"{option} would replace {_told(path)}, which {reads} reads; write to another place")
            if writes != option:
                raise ValueError(f"{option} and {writes} name the same file, {_told(path)}; give each one of its own")
            _check_writable(path)
            self._before[path] = _state(path)

    def written(self) -> list[Path]:
        """Those that are there, whole, and were not when they were added."""
        return [path for path, before in self._before.items() if _state(path) not in (None, before)]

    def told(self) -> str:
        """What has been written, for a sentence."""
        found = ", ".join(map(_told, self.written()))
        return f"{found} had been written" if found else "nothing was written"


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, through links too, or would if it were there."""
    return _place(one) == _place(other)


def _place(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _all(path: Path) -> Iterator[Path]:
    """A file; a folder with its files and those of the folders in it, which is as deep as models' folders are."""
    yield path
    if os.path.isdir(path):
        folders = [one for one in path.iterdir() if one.is_dir() and os.access(one, os.R_OK)]
        for folder in (path, *folders):
            yield from folder.iterdir()


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {_told(path)}: it is a folder")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"cannot write into {_told(folder)}: it is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {_told(folder)}: it is read-only")


def _state(path: Path) -> tuple | None:
    """What tells that another file is at ``path``; ``None`` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _told(path: Path) -> str:
    return shown(str(path), LONG)
