"""Files that are written whole or not at all, and never over another unless that is asked for.

What is being written has another name, in the same folder. Its writer holds a lock on it: what nobody holds is what a
killed program has left, and the next one that writes into the folder clears it. Where there are no such locks, as on
some network folders, it stays. Permissions are those of any new file: the umask's.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..quoting import shown

try:
    import fcntl
except ImportError:  # on Windows, where a file that is open cannot be deleted or moved
    fcntl = None
PREFIX, SUFFIX = ".erasure-", ".partial"
LONG = 300  # characters of a path that a sentence shows
TAKEN = "is already there; choose another name, or ask to overwrite it (overwrite=True, --overwrite)"


def check_target(path: Path, overwrite: bool) -> None:
    """Raise what ``write_whole`` would for this path, before anything is computed for it.

    ``FileExistsError`` when something is there and ``overwrite`` is false, another ``OSError`` when nothing can be
    written there, ``ValueError`` for what is no name of a file.
    """
    folder, told = path.parent, _told(path)
    try:
        if not folder.is_dir():
            there = "it is a file, not a folder" if folder.exists() else "there is no such folder"
            raise NotADirectoryError(f"cannot write into {_told(folder)}: {there}")
        found = path.stat() if path.exists() else path.lstat()
    except FileNotFoundError:
        found = None
    except NotADirectoryError:
        raise
    except OSError as error:
        raise OSError(f"cannot write {told}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"cannot write {told}: no file can have this name ({error})") from error
    if found and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"cannot write {told}: it is a folder; name a file in it")
    if found and not overwrite:
        raise FileExistsError(f"{told} {TAKEN}")
    if found and not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise OSError(f"cannot write {told}: it is a device or a pipe; name a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {_told(folder)}: it is read-only")


def write_whole(path: Path, write: Callable[[BinaryIO], object], overwrite: bool) -> None:
    """Give ``write`` a file that becomes ``path`` once all is in it; raises what ``check_target`` does.

    What was at ``path`` stays until then.
    """
    check_target(path, overwrite)
    clear(path.parent)
    file = _new(path.parent)
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if fcntl:
                _move(file.name, path, overwrite)
        if not fcntl:
            _move(file.name, path, overwrite)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(f"could not write {_told(path)}: {error.strerror or error}") from error
    finally:
        if os.path.exists(file.name):
            os.unlink(file.name)


def clear(folder: Path) -> None:
    """Delete what killed programs have left in a folder; what cannot be deleted stays."""
    for partial in folder.glob(f"{PREFIX}*{SUFFIX}"):
        try:
            if fcntl is None:
                partial.unlink()
                continue
            with partial.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
        except OSError:
            continue


def _new(folder: Path) -> BinaryIO:
    """An empty file, locked; another one where it was cleared before it was locked."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        try:
            file = path.open("x+b")
        except OSError as error:
            raise OSError(f"cannot write into {_told(folder)}: {error.strerror}") from error
        _lock(file)
        if path.exists():
            return file
        file.close()


def _lock(file: BinaryIO) -> None:
    """Hold ``file`` until it is closed, where its folder knows locks."""
    if fcntl:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def _move(partial: str, path: Path, overwrite: bool) -> None:
    """Rename; without ``overwrite`` not over what appeared meanwhile, unless there are no hard links."""
    if overwrite:
        os.replace(partial, path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(f"{_told(path)} {TAKEN}") from None
    except OSError:
        if path.exists():
            raise FileExistsError(f"{_told(path)} {TAKEN}") from None
        os.replace(partial, path)


def _told(path: Path) -> str:
    return shown(str(path), LONG)
