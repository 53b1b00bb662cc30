"""Exit codes, and what is said when a command is cut short: only what is true of the files."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from PIL import Image
from pure.command_line import fails
from pure.fakes import FakeModel

from erasure_core import Erasure, rece
from erasure_core.commands import audit_options, purify
from erasure_core.commands.exit_codes import Interrupted, Tolerant, code_for_text
from erasure_core.commands.main import main
from erasure_core.commands.progress import Progress
from erasure_core.files.images import save_image


def after(act, error: BaseException, times: int = 1):
    """``act``, which raises ``error`` when it has been done so many times."""
    calls = []

    def done(*arguments, **named):
        found = act(*arguments, **named)
        calls.append(found)
        if len(calls) == times:
            raise error
        return found

    return done


def instead(error: BaseException):
    def fail(*arguments, **named):
        raise error

    return fail


ERASE = ["erase", "--model", "toy", "--concept", "cat", "--no-common", "--out"]


def test_an_interrupt_before_anything_is_written(fake: FakeModel, monkeypatch, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new/a.safetensors"
    out.parent.mkdir()
    out.write_bytes(b"before")
    monkeypatch.setattr(Erasure, "save", instead(KeyboardInterrupt()))
    assert fails(capsys, *ERASE, out, "--overwrite", code=130) == "interrupted; nothing was written"
    assert out.read_bytes() == b"before"


def test_an_interrupt_behind_the_last_file(fake: FakeModel, monkeypatch, tmp_path: Path, capsys) -> None:
    out = tmp_path / "a.safetensors"
    monkeypatch.setattr(Erasure, "save", after(Erasure.save, KeyboardInterrupt()))
    assert fails(capsys, *ERASE, out, code=130) == f"interrupted; {out} had been written"
    Erasure.load(out)


def test_an_interrupt_and_an_error_between_two_files(fake: FakeModel, monkeypatch, tmp_path: Path, capsys) -> None:
    out, kept = tmp_path / "a.safetensors", tmp_path / "s.safetensors"
    monkeypatch.setattr(Erasure, "save", instead(Interrupted(signal.SIGTERM)))
    command = (*ERASE, out, "--save-statistics", kept)
    assert fails(capsys, *command, code=143) == f"interrupted; {kept} had been written"
    monkeypatch.setattr(Erasure, "save", instead(OSError(28, "No space left on device", str(out))))
    told = fails(capsys, *command, "--overwrite")
    assert told == f"error: {out}: No space left on device; {kept} had been written"
    assert kept.exists() and not out.exists()


def test_an_interrupt_between_two_pictures(fake: FakeModel, monkeypatch, tmp_path: Path, capsys) -> None:
    erasure, out = rece(fake, "cat").save(tmp_path / "e.safetensors"), tmp_path / "out"
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"pictures/{name}.png")
    command = ["purify", "--model", "toy", "--erasure", str(erasure), "--images", str(tmp_path / "pictures")]
    monkeypatch.setattr(purify, "save_image", after(save_image, KeyboardInterrupt(), 2))
    assert main([*command, "--steps", "1", "--out", str(out)]) == 130
    assert capsys.readouterr().err == f"\ninterrupted; {out / 'a.png'}, {out / 'b.png'} had been written\n"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]


def test_an_interrupt_leaves_no_folder(fake: FakeModel, monkeypatch, tmp_path: Path, capsys) -> None:
    erasure, before = rece(fake, "cat").save(tmp_path / "e.safetensors"), set(tmp_path.iterdir())
    monkeypatch.setattr(FakeModel, "decode_latents", instead(KeyboardInterrupt()))
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures/a.png")
    common = ("--model", "toy", "--erasure", erasure, "--out")
    for command in (
        ("report", *common, tmp_path / "deep/out", "--neighbours", "1"),
        ("attack", *common, tmp_path / "deep/out", "--attack", "name"),
        ("purify", *common, tmp_path / "deep/out", "--images", tmp_path / "pictures"),
        ("compare", *common, tmp_path / "deep/out.png", "--prompt", "cat"),
    ):
        monkeypatch.setattr(audit_options, "chosen_recogniser", lambda args: None)
        assert fails(capsys, *command, code=130) == "interrupted; nothing was written"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "pictures"} and fake.erasures == ()


def test_too_little_memory_is_a_sentence(fake: FakeModel, monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(FakeModel, "encoded", instead(MemoryError()))
    assert fails(capsys, *ERASE, tmp_path / "a.safetensors") == "error: there is not enough memory"


class Full(io.RawIOBase):
    """A disk without room, on the number of a real file."""

    def __init__(self, number: int):
        self._number = number

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        return self._number


@pytest.mark.parametrize("written", [True, False])
def test_text_that_cannot_be_printed(written: bool, monkeypatch, tmp_path: Path, capsys) -> None:
    with (tmp_path / "file").open("wb") as file:
        stream = Tolerant(io.BufferedWriter(Full(file.fileno())), encoding="ascii", errors="backslashreplace")
        monkeypatch.setattr("sys.stdout", stream)
        print("кот")
        assert code_for_text(written) == (0 if written else 2)
        word = "note" if written else "error"
        assert capsys.readouterr().err == f"{word}: standard output took no text (No space left on device)\n"
        monkeypatch.undo()
        stream.detach()


def test_text_that_is_printed(capsys) -> None:
    print("done")
    assert code_for_text(True) == code_for_text(False) == 0


def test_progress_without_a_stream(monkeypatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with Progress("erase", patience=0) as bar:
        bar(1, 2, "training")
