"""The command line as a process of its own: signals, and streams that take nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from erasure_core import Erasure, rece

ROOT = Path(__file__).parents[2]
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
LONG = 120  # seconds


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "erasure_core", *map(str, arguments)]


@pytest.fixture(scope="module")
def erasure(toy, tmp_path_factory) -> Path:
    return rece(toy, "cat -> dog").save(tmp_path_factory.mktemp("erasure") / "e.safetensors")


def listen() -> None:
    """Undo what nohup and a shell's ``&`` do: a signal that they ignore stays ignored in what they start."""
    for one in (signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


def interrupted(arguments: Sequence[object], seen: str | None, sent: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr, on a terminal, of a command that gets a signal once ``seen`` stands on stderr.

    With nothing to see it gets it as soon as it listens to it, when modules are being imported.
    """
    ours, theirs = pty.openpty()
    told, deadline, number = "", time.monotonic() + LONG, getattr(signal, sent)
    words, streams = {**os.environ, "PYTHONPATH": str(ROOT)}, {"stdout": subprocess.DEVNULL, "stderr": theirs}
    with subprocess.Popen(command(*arguments), cwd=folder, env=words, preexec_fn=listen, **streams) as process:
        os.close(theirs)
        waits = True
        while time.monotonic() < deadline:
            if waits and (listens(process.pid, signal.SIGTERM) if seen is None else seen in told):
                process.send_signal(number)
                waits = False
            if select.select([ours], [], [], 0.02)[0]:
                try:
                    part = os.read(ours, 10_000)
                except OSError:  # the other end is closed
                    break
                told += part.decode()
            elif process.poll() is not None:
                break
        assert not waits, f"'{seen}' was not seen in {told}"
        code = process.wait(LONG)
    os.close(ours)
    return code, re.sub(r"\r[^\n]*\r", "", told).replace("\r", "")


def listens(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    with contextlib.suppress(OSError):
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
        return bool(int(caught[1], 16) >> (number - 1) & 1)
    return False


@pytest.mark.parametrize("sent", SIGNALS)
def test_a_signal_while_modules_are_imported(sent: str, tmp_path: Path) -> None:
    code, told = interrupted(["evaluate"], None, sent, tmp_path)
    assert (code, told.strip()) == (SIGNALS[sent], "interrupted; nothing was written")


COMMANDS = {
    "demo": ["demo", "--out", "out"],
    "erase": ["erase", "--model", "toy", "--concept", "cat -> dog", "--method", "abo", "--out", "o.safetensors"],
    "purify": ["purify", "--model", "toy", "--images", ".", "--steps", "100", "--out", "out"],
    "compare": ["compare", "--model", "toy", "--prompt", "a cat", "--pictures", "50", "--out", "o.png"],
    "report": ["report", "--model", "toy", "--out", "out"],
    "attack": ["attack", "--model", "toy", "--out", "out"],
    "evaluate": ["evaluate", "--num-images", "2000"],  # enough not to end before the signal comes
}


@pytest.mark.parametrize(("name", "sent"), [*((name, "SIGINT") for name in COMMANDS), ("erase", "SIGTERM")])
def test_a_signal_at_work(name: str, sent: str, tmp_path: Path, erasure: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    needs = ["--erasure", erasure] if name in ("purify", "compare", "report", "attack") else []
    code, told = interrupted([*COMMANDS[name], *needs], "%", sent, tmp_path)
    assert code == SIGNALS[sent] and told.strip() == "interrupted; nothing was written"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


ERASE = [
    "erase", "--model", "toy", "--concept", "cat -> кот", "--method", "uce", "--no-common", "--out", "o.safetensors",
]  # fmt: skip


def shell(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """``$ERASURE`` is ``python -m erasure_core``."""
    words = {**os.environ, "PYTHONPATH": str(ROOT), "ERASURE": f"{sys.executable} -m erasure_core", **variables}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=words, capture_output=True, text=True, timeout=LONG)


NOTE = "note: standard output took no text"


@pytest.mark.parametrize(
    ("streams", "told"),
    [
        ("2>&-", ""),
        (">&-", NOTE),
        (">&- 2>&- <&-", ""),
        (">/dev/full", f"{NOTE} (No space left on device)"),
        ("| head -c 0; exit ${PIPESTATUS[0]}", f"{NOTE} (Broken pipe)"),
    ],
)
def test_a_file_is_whole_whatever_becomes_of_the_text(streams: str, told: str, tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in ERASE)
    done = shell(f"$ERASURE {words} {streams}", tmp_path)
    assert done.returncode == 0 and done.stderr.startswith(told) and "Traceback" not in done.stderr
    assert bool(done.stderr) == bool(told)
    assert [path.name for path in tmp_path.iterdir()] == ["o.safetensors"]
    assert Erasure.load(tmp_path / "o.safetensors").concepts[0].instead == "кот"


def test_letters_that_a_terminal_lacks(tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in ERASE)
    done = shell(f"$ERASURE {words}", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == "" and "erases 'cat -> \\u043a\\u043e\\u0442'; rank" in done.stdout


@pytest.mark.parametrize(
    ("words", "streams"),
    [
        ("--version", ">/dev/full"),
        ("--help", ">&-"),
        ("--version", "| head -c 0; exit ${PIPESTATUS[0]}"),
        ("evaluate --images 1", ">/dev/full"),
    ],
)
def test_text_that_was_all_that_was_asked_for(words: str, streams: str, tmp_path: Path) -> None:
    done = shell(f"$ERASURE {words} {streams}", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: standard output took no text (")
    assert len(done.stderr.splitlines()) == 1


def test_an_error_is_one_whatever_becomes_of_its_sentence(tmp_path: Path) -> None:
    for streams in ("2>&-", "2>/dev/full"):
        for words in ("erase --model toy --out o.safetensors", "nonsense"):
            assert shell(f"$ERASURE {words} {streams}", tmp_path).returncode == 2
