"""Text files that hold a list, read up to a limit of size."""

from __future__ import annotations

from pathlib import Path

from ..quoting import excerpt

MOST_TEXT = 16 * 2**20  # bytes; a million concepts


def read_list(path: Path) -> bytes:
    """Return the bytes of a text file or a pipe. Raises ``ValueError`` for a folder, and for more than 16 MiB."""
    if path.is_dir():
        raise ValueError(f"{excerpt(path.name)} is a folder; name a text file")
    with path.open("rb") as file:
        data = file.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise ValueError(f"{excerpt(path.name)} is longer than {MOST_TEXT // 2**20} MiB, too long for a list; split it")
    return data
