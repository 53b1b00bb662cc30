"""Atomic writing: a file appears whole or not at all, and replaces another file only if the caller says so.

A file is first written under another name in the same folder, and renamed once it is complete. While it is written,
its writer holds a lock on it. A partial file without a lock is what a killed program has left behind; the next program
that writes into the folder deletes it. On file systems without such locks, as on some network folders, it stays.
A new file has the usual permissions (those of the umask).
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..quoting import excerpt

if sys.platform == "win32":  # where a file that is open cannot be deleted or moved
    fcntl = None
else:
    import fcntl
PREFIX, SUFFIX = ".erasure-", ".partial"
MOST_OF_A_PATH = 300  # characters of a path that a message quotes
TAKEN = "is already there; choose another name, or ask to overwrite it (overwrite=True, --overwrite)"


def check_target(path: Path, overwrite: bool) -> None:
    """Raise the error that ``write_whole`` would raise for this path, before anything is computed for the file.

    Raises ``FileExistsError`` when something is there and ``overwrite`` is false, another ``OSError`` when no file can
    be written there, and ``ValueError`` when no file can have this name.
    """
    folder, name = path.parent, quoted_path(path)
    try:
        if not folder.is_dir():
            reason = "it is a file, not a folder" if folder.exists() else "there is no such folder"
            raise NotADirectoryError(f"cannot write into {quoted_path(folder)}: {reason}")
        status = path.stat() if path.exists() else path.lstat()
    except FileNotFoundError:
        status = None
    except NotADirectoryError:
        raise
    except OSError as error:
        raise OSError(f"cannot write {name}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"cannot write {name}: no file can have this name ({error})") from error
    if status and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"cannot write {name}: it is a folder; name a file in it")
    if status and not overwrite:
        raise FileExistsError(f"{name} {TAKEN}")
    if status and not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise OSError(f"cannot write {name}: it is a device or a pipe; name a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {quoted_path(folder)}: it is read-only")


def write_whole(path: Path, write: Callable[[BinaryIO], object], overwrite: bool) -> None:
    """Call ``write`` with an open binary file, and rename that file to ``path`` once ``write`` has returned.

    Until then ``path`` stays as it was. Raises the errors of ``check_target``, ``OSError`` when writing fails, and
    whatever ``write`` raises.
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
        raise OSError(f"could not write {quoted_path(path)}: {error.strerror or error}") from error
    finally:
        with suppress(FileNotFoundError):  # it was renamed, or another program has cleared it
            os.unlink(file.name)


def clear(folder: Path) -> None:
    """Delete the partial files that killed programs have left in a folder; a file that cannot be deleted stays."""
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
    """Return a new empty file, open and locked.

    Between creating and locking it another program may have cleared it (``clear``); then a second one is made.
    """
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        try:
            file = path.open("x+b")
        except OSError as error:
            raise OSError(f"cannot write into {quoted_path(folder)}: {error.strerror}") from error
        _lock(file)
        if path.exists():
            return file
        file.close()


def _lock(file: BinaryIO) -> None:
    """Lock ``file`` until it is closed, if its file system has locks."""
    if fcntl:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def _move(partial: str, path: Path, overwrite: bool) -> None:
    """Rename ``partial`` to ``path``.

    Without ``overwrite`` a file that has appeared at ``path`` meanwhile is an error. This is certain only on file
    systems with hard links; on others the check and the renaming are two steps.
    """
    if overwrite:
        os.replace(partial, path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(f"{quoted_path(path)} {TAKEN}") from None
    except OSError:
        if path.exists():
            raise FileExistsError(f"{quoted_path(path)} {TAKEN}") from None
        os.replace(partial, path)


def quoted_path(path: Path) -> str:
    """Return a path for a message."""
    return excerpt(str(path), MOST_OF_A_PATH)
