"""Files are whole or not there, over nothing that nobody asked to replace, and nothing is left of killed programs."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from erasure_core.files import atomic
from erasure_core.files.atomic import PREFIX, SUFFIX, _lock, _move, check_target, clear, write_whole

ROOT = Path(atomic.__file__).parent.parent


def put(path: Path, content: bytes = b"new", overwrite: bool = False) -> None:
    write_whole(path, lambda file: file.write(content), overwrite)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_over(folder: Path, name: str = "1234") -> Path:
    path = folder / f"{PREFIX}{name}{SUFFIX}"
    path.write_bytes(b"half")
    return path


def test_a_file_is_written(tmp_path: Path) -> None:
    put(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new" and names(tmp_path) == ["a"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0o000, 0o666)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_permissions_are_the_umasks(tmp_path: Path, mask: int, mode: int, overwrite: bool) -> None:
    if overwrite:
        put(tmp_path / "a", b"old")
    before = os.umask(mask)
    try:
        put(tmp_path / "a", overwrite=overwrite)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_what_is_there_stays_unless_it_may_go(tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(path, b"old")
    with pytest.raises(FileExistsError, match=f"{path} is already there; choose another name, or ask to overwrite it"):
        put(path)
    assert path.read_bytes() == b"old"
    put(path, overwrite=True)
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("links", [True, False])
def test_what_appears_meanwhile_stays(tmp_path: Path, monkeypatch, links: bool) -> None:
    path = tmp_path / "a"

    def unable(*_) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", unable)
    with pytest.raises(FileExistsError, match="a is already there"):
        write_whole(path, lambda file: path.write_bytes(b"somebody else's"), False)
    assert path.read_bytes() == b"somebody else's" and names(tmp_path) == ["a"]
    path.unlink()
    put(path)
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_half_a_file_is_none(tmp_path: Path, problem: BaseException, overwrite: bool) -> None:
    path = tmp_path / "a"
    if overwrite:
        put(path, b"old")

    def half(file) -> None:
        file.write(b"half")
        raise problem

    with pytest.raises(type(problem)) as caught:
        write_whole(path, half, overwrite)
    if isinstance(problem, OSError):
        assert str(caught.value) == f"could not write {path}: No space left on device"
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([b"old"] if overwrite else [])


def test_what_cannot_be_written_to_the_disk_is_no_file(tmp_path: Path, monkeypatch) -> None:
    def fail(_) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="could not write .*a: Input/output error"):
        put(tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("folder", IsADirectoryError, "cannot write .*folder: it is a folder; name a file in it"),
        ("to_folder", IsADirectoryError, "it is a folder"),
        ("missing/a", NotADirectoryError, "cannot write into .*missing: there is no such folder"),
        ("file/a", NotADirectoryError, "cannot write into .*file: it is a file, not a folder"),
        ("a" * 300, OSError, "cannot write .*a+.*: File name too long"),
        ("a\0b", ValueError, r"cannot write .*a\\x00b: no file can have this name"),
        ("a\ud83d", ValueError, r"cannot write .*a\\ud83d: no file can have this name"),
        ("pipe", OSError, "cannot write .*pipe: it is a device or a pipe; name a file"),
    ],
)
def test_targets_that_cannot_be(tmp_path: Path, name: str, error: type, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    (tmp_path / "to_folder").symlink_to(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    for refuse in (lambda path: check_target(path, True), lambda path: put(path, overwrite=True)):
        with pytest.raises(error, match=message) as caught:
            refuse(tmp_path / name)
        assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    assert names(tmp_path) == before


def test_a_link_to_nothing_is_something(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.symlink_to(tmp_path / "nothing")
    with pytest.raises(FileExistsError):
        check_target(path, False)
    put(path, overwrite=True)
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a"]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    put(tmp_path / ("a" * 255))
    assert names(tmp_path) == ["a" * 255]


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK | os.X_OK))
    with pytest.raises(PermissionError, match=f"cannot write into {tmp_path}: it is read-only"):
        check_target(tmp_path / "a", False)


def test_a_folder_that_only_seems_writable(tmp_path: Path, monkeypatch) -> None:
    def refuse(self, mode) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=f"^cannot write into {tmp_path}: Permission denied$"):
        put(tmp_path / "a")


def test_what_a_killed_program_left_is_cleared(tmp_path: Path) -> None:
    """And nothing else: neither files of others, nor what is being written."""
    others = [tmp_path / name for name in (".erasure-1234", "erasure-1.partial", ".b.partial", "a.partial")]
    for other in others:
        other.write_bytes(b"somebody else's")
    writing = textwrap.dedent("""
        import sys, types
        from pathlib import Path

        package = sys.modules["erasure_core"] = types.ModuleType("erasure_core")
        package.__path__ = [str(Path("erasure_core").absolute())]  # without torch, which takes seconds
        from erasure_core.files.atomic import write_whole

        def write(file):
            file.write(b"half")
            file.flush()
            print("half", flush=True)
            sys.stdin.readline()
            file.write(b" and half")

        write_whole(Path(sys.argv[1]), write, False)
    """)
    command = [sys.executable, "-c", writing, str(tmp_path / "b")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
    with subprocess.Popen(command, **pipes) as killed, subprocess.Popen(command, **pipes) as alive:
        assert killed.stdout.readline() == alive.stdout.readline() == "half\n"
        assert len(list(tmp_path.glob(".erasure-*.partial"))) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        put(tmp_path / "a")
        assert len(list(tmp_path.glob(".erasure-*.partial"))) == 1
        alive.communicate("\n")
        assert alive.returncode == 0
    assert (tmp_path / "b").read_bytes() == b"half and half"
    assert names(tmp_path) == sorted(["a", "b", *(other.name for other in others)])


def test_what_is_cleared_before_it_is_locked_is_written_anew(tmp_path: Path, monkeypatch) -> None:
    lock, locked = _lock, []

    def late(file) -> None:
        locked.append(file.name)
        if len(locked) == 1:
            clear(tmp_path)
        lock(file)

    monkeypatch.setattr(atomic, "_lock", late)
    put(tmp_path / "a")
    assert len(set(locked)) == 2 and names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"new"


def test_another_program_may_clear_what_was_written_and_closed(tmp_path: Path, monkeypatch) -> None:
    """Between the closing of a partial file, which frees its lock, and its deletion."""
    unlink = os.unlink

    def late(path) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", late)
    put(tmp_path / "a")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"new"


def test_what_cannot_be_cleared_stays(tmp_path: Path, monkeypatch) -> None:
    left = left_over(tmp_path)

    def refuse(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.fcntl, "flock", refuse)
    put(tmp_path / "a")
    assert names(tmp_path) == sorted([left.name, "a"])


def test_without_locks(tmp_path: Path, monkeypatch) -> None:
    """As on Windows, where a file must be closed to be moved, and what can be deleted is not open."""
    moved, move = [], _move

    def watched(partial, path, overwrite) -> None:
        moved.append(partial)
        move(partial, path, overwrite)

    monkeypatch.setattr(atomic, "fcntl", None)
    monkeypatch.setattr(atomic, "_move", watched)
    left_over(tmp_path)
    opened = []
    write_whole(tmp_path / "a", lambda file: (file.write(b"new"), opened.append(file)), False)
    assert opened[0].closed and len(moved) == 1 and names(tmp_path) == ["a"]
    put(tmp_path / "a", b"newer", overwrite=True)
    assert (tmp_path / "a").read_bytes() == b"newer"
