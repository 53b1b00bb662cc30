"""Lists that a user names as files, read no further than a list can be long."""

from __future__ import annotations

from pathlib import Path

from ..quoting import shown

MOST_TEXT = 16 * 2**20  # bytes; a million concepts


def read_list(path: Path) -> bytes:
    """All of a text file, or of what comes through a pipe. Raises ``ValueError`` when it is too long for a list."""
    if path.is_dir():
        raise ValueError(f"{shown(path.name)} is a folder; name a text file")
    with path.open("rb") as file:
        found = file.read(MOST_TEXT + 1)
    if len(found) > MOST_TEXT:
        raise ValueError(f"{shown(path.name)} is longer than {MOST_TEXT // 2**20} MiB, too long for a list; split it")
    return found
