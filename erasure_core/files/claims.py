"""Claims to jobs: several processes share a list of them, each job is done once, and that of a dead process again.

A claim is a lock on a file, which the system takes away when the process that holds it ends, however it ends. Processes
on several machines need a file system with locks that all of them see, such as NFS 4.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
WAIT = 0.5  # seconds until jobs that others do are looked at again


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the claim whose file is ``path`` for the length of a ``with`` block.

    Yields whether it is held: False where another process holds it. With ``wait`` it is waited for instead. The file
    stays. Raises ``OSError`` where no file can be written or its file system has no locks.
    """
    with path.open("a+b") as file:
        try:
            _lock(file.fileno(), wait)
        except BlockingIOError:
            yield False
            return
        yield True


def _lock(number: int, wait: bool) -> None:
    """Lock an open file until it is closed. Raises ``BlockingIOError`` where another process holds the lock."""
    if sys.platform == "win32":
        while True:
            try:
                os.lseek(number, 0, os.SEEK_SET)
                return msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
            except PermissionError:
                if not wait:
                    raise BlockingIOError from None
                time.sleep(WAIT)
    fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file to which other processes add theirs; each line is whole."""
    with claimed(path.with_name(f".{path.name}.claim"), wait=True), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def spread(
    jobs: Mapping[str, Callable[[], None]], folder: Path, is_done: Callable[[str], bool], *, first: int = 0
) -> list[str]:
    """Do the jobs that no other process has done or is at, and return the names of those that this process did.

    Any number of processes may call this with the same ``jobs`` and the same ``folder``, where their claims are. It
    returns in all of them once every job is done; until then a process that finds nothing to do waits, and takes up the
    job of one that has died. ``is_done`` says by name whether a job's result is there. ``first`` is the number of the
    job to begin with, so that processes begin at different ones. What a job raises reaches the caller.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, done = list(jobs), []
    numbers = {name: number for number, name in enumerate(names)}
    order = [*names[first % max(1, len(names)) :], *names[: first % max(1, len(names))]]
    while pending := [name for name in order if not is_done(name)]:
        idle = True
        for name in pending:
            with claimed(folder / f"{numbers[name]}.claim") as mine:
                if mine and not is_done(name):
                    jobs[name]()
                    done.append(name)
                    idle = False
        if idle:
            time.sleep(WAIT)
    return done
