"""The files that a command will write: checked before the work begins, and listed when it ends early."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .atomic import quoted_path


class Outputs:
    """The files that one run of a command writes.

    ``inputs`` are the files and folders that it reads, by the option that names them: none of these may be replaced.
    """

    def __init__(self, inputs: Mapping[str, Sequence[Path]]):
        self._read = {_place(path): option for option, paths in inputs.items() for one in paths for path in _all(one)}
        self._taken: dict[object, str] = {}
        self._before: dict[Path, tuple | None] = {}

    def add(self, option: str, *paths: Path, besides: str = "") -> None:
        """Announce that ``option`` is going to write these files.

        Raises ``ValueError`` for a file that another option reads or writes, whatever path leads to it, and ``OSError``
        when no file can be written there. The option ``besides`` may read the file: it is meant to be replaced.
        """
        for path in paths:
            place = _place(path)
            reads, writes = self._read.get(place, besides), self._taken.setdefault(place, option)
            if reads != besides:
                raise ValueError(
                    f"{option} would replace {quoted_path(path)}, which {reads} reads; write to another place"
                )
            if writes != option:
                raise ValueError(
                    f"{option} and {writes} name the same file, {quoted_path(path)}; give each one of its own"
                )
            _check_writable(path)
            self._before[path] = _state(path)

    def written(self) -> list[Path]:
        """Return the announced files that have been written since they were announced."""
        return [path for path, before in self._before.items() if _state(path) not in (None, before)]

    def summary(self) -> str:
        """Return which files have been written, as half a sentence."""
        names = ", ".join(map(quoted_path, self.written()))
        return f"{names} had been written" if names else "nothing was written"


def same_place(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file or folder, also through links, and also if it does not exist yet."""
    return _place(one) == _place(other)


def _place(path: Path) -> object:
    """Return what is equal for two paths to the same file: device and inode, or the real path of a missing file."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _all(path: Path) -> Iterator[Path]:
    """Iterate over a path and, if it is a folder, over its contents two levels deep, as model folders are."""
    yield path
    if os.path.isdir(path):
        folders = [one for one in path.iterdir() if one.is_dir() and os.access(one, os.R_OK)]
        for folder in (path, *folders):
            yield from folder.iterdir()


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {quoted_path(path)}: it is a folder")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"cannot write into {quoted_path(folder)}: it is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {quoted_path(folder)}: it is read-only")


def _state(path: Path) -> tuple | None:
    """Return what changes when the file at ``path`` is replaced or rewritten; ``None`` if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
