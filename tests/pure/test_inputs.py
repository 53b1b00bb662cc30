"""Files that hold lists are read no further than a list can be long."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from erasure_core.files.bounded_text import MOST_TEXT, read_list


def test_a_list_and_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"cat\n")
    assert read_list(tmp_path / "a.txt") == b"cat\n"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"dog\n"))
    writer.start()
    assert read_list(pipe) == b"dog\n"
    writer.join()


def test_a_list_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch()
    os.truncate(path, MOST_TEXT)
    assert len(read_list(path)) == MOST_TEXT


@pytest.mark.parametrize("size", [MOST_TEXT + 1, 10 * 2**30])
def test_a_file_that_is_too_long_for_a_list(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch()
    os.truncate(path, size)
    with pytest.raises(ValueError, match="^a.txt is longer than 16 MiB, too long for a list; split it$"):
        read_list(path)


def test_what_never_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^zero is longer than 16 MiB"):
        read_list(Path("/dev/zero"))


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; name a text file"):
        read_list(tmp_path)
