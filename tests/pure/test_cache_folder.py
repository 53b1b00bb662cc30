"""A folder of tensors by key: what is read is what was written, whoever else writes, and it stays in its limit."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from erasure_core.files.cache_folder import CacheFolder, prepare
from erasure_core.files.safetensors_files import SUFFIX

ROOT = Path(__file__).parents[2]
MUCH = 10_000_000
SHARE = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from pure.test_cache_folder import content, key_of
from erasure_core.files.cache_folder import CacheFolder
folder, hits = CacheFolder(Path(sys.argv[1]), 40_000), 0
for turn in range(60):
    number = turn * int(sys.argv[3]) % 40
    kept = folder.read(key_of(number))
    if kept is None:
        folder.write(key_of(number), *content(number))
        folder.trim()
    else:
        hits += 1
        assert kept[0]["about"] == str(number) and kept[1]["0"].equal(content(number)[1]["0"])
print(hits)
"""


def key_of(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def content(number: int) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and a tensor of some 2,000 bytes."""
    return {"about": str(number)}, {"0": torch.full((20, 25), float(number))}


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path / "below" / "contexts", MUCH)


def file_of(folder: CacheFolder, number: int) -> Path:
    return folder._path / f"{key_of(number)}{SUFFIX}"


def test_what_is_written_is_read(folder: CacheFolder) -> None:
    assert folder.read(key_of(1)) is None
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(2, dtype=torch.float64), "none": torch.zeros(0, 5)}
    folder.write(key_of(1), {"about": "ä"}, tensors)
    metadata, kept = folder.read(key_of(1))
    assert metadata["about"] == "ä" and set(kept) == set(tensors)
    assert all(kept[name].dtype == one.dtype and kept[name].equal(one) for name, one in tensors.items())
    assert folder.read(key_of(2)) is None


def test_what_is_there_stays(folder: CacheFolder) -> None:
    folder.write(key_of(1), *content(1))
    folder.write(key_of(1), *content(2))
    assert folder.read(key_of(1))[0]["about"] == "1"


@pytest.mark.parametrize("harm", ["a bit", "the end", "everything", "of another key", "a field"])
def test_a_damaged_file_is_made_anew(folder: CacheFolder, harm: str, caplog) -> None:
    folder.write(key_of(1), *content(1))
    folder.write(key_of(2), *content(2))
    file = file_of(folder, 1)
    whole = file.read_bytes()
    harmed = {
        "a bit": whole[:-1] + bytes([whole[-1] ^ 1]), "the end": whole[:-1], "everything": b"not tensors",
        "of another key": file_of(folder, 2).read_bytes(), "a field": whole.replace(b'"about":"1"', b'"about":"7"'),
    }[harm]  # fmt: skip
    assert harmed != whole
    file.write_bytes(harmed)
    with caplog.at_level(logging.WARNING):
        assert folder.read(key_of(1)) is None
    assert "it is made anew" in caplog.text and file.name in caplog.text
    folder.write(key_of(1), *content(1))
    assert file.read_bytes() == whole


def test_the_oldest_files_are_removed_and_others_left_alone(folder: CacheFolder) -> None:
    other = folder._path / f"my model{SUFFIX}"
    other.write_bytes(bytes(100_000))
    for number in range(5):
        folder.write(key_of(number), *content(number))
        os.utime(file_of(folder, number), ns=(0, 10**9 * (5 - number)))  # the last is the oldest
    size = file_of(folder, 0).stat().st_size
    folder.trim()
    assert all(file_of(folder, number).exists() for number in range(5))
    CacheFolder(folder._path, 3 * size).trim()
    assert [file_of(folder, number).exists() for number in range(5)] == [True] * 3 + [False] * 2
    CacheFolder(folder._path, size - 1).trim()
    assert list(folder._path.iterdir()) == [other]


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; name a folder"):
        prepare(file)
    with pytest.raises(OSError, match=r"cannot make the folder .*below"):
        prepare(file / "below")
    assert file.read_text() == "mine"


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """Both read, write and remove the same forty keys, of which about sixteen fit, and never read anything wrong."""
    command = [sys.executable, "-c", SHARE, str(tmp_path / "contexts"), str(ROOT)]
    both = [
        subprocess.Popen([*command, step], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for step in ("7", "11")
    ]
    for one in both:
        out, err = one.communicate(timeout=300)
        assert one.returncode == 0 and err == "", err
    files = list((tmp_path / "contexts").iterdir())
    assert files and all(len(one.name) == 64 + len(SUFFIX) for one in files), "nothing partial is left"
    CacheFolder(tmp_path / "contexts", 40_000).trim()
    assert sum(one.stat().st_size for one in (tmp_path / "contexts").iterdir()) <= 40_000
