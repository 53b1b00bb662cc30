"""Jobs that processes share: each is done once, that of a dead process again, and nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from erasure_core.files.claims import append_line, claimed, spread

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from erasure_core.files.claims import spread
folder = Path(sys.argv[1])
def hang():
    (folder / "began").touch()
    time.sleep(600)
spread({"a": hang, "b": lambda: (folder / "b").touch()}, folder / "claims", lambda name: (folder / name).exists())
"""
SHARE = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from erasure_core.files.claims import append_line, spread
rows = Path(sys.argv[1]) / "rows"
done = lambda name: rows.exists() and name in rows.read_text().split()
spread({f"job{n}": partial(append_line, rows, f"job{n}") for n in range(40)}, rows.parent / "claims", done,
       first=int(sys.argv[3]))
"""


def started(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])


def test_a_job_of_a_dead_process_is_taken_up(tmp_path: Path) -> None:
    other = started(HOLD, tmp_path, ROOT)
    try:
        while not (tmp_path / "began").exists():
            assert other.poll() is None
            time.sleep(0.02)
        with claimed(tmp_path / "claims" / "0.claim") as mine:
            assert not mine
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    jobs = {name: (tmp_path / name).touch for name in ("a", "b")}
    assert spread(jobs, tmp_path / "claims", lambda name: (tmp_path / name).exists()) == ["a", "b"]


def test_processes_share_jobs_and_do_each_once(tmp_path: Path) -> None:
    both = [started(SHARE, tmp_path, ROOT, first) for first in (0, 20)]
    assert [one.wait() for one in both] == [0, 0]
    rows = (tmp_path / "rows").read_text().split()
    assert sorted(rows) == sorted(f"job{number}" for number in range(40))


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    done = {"a"}
    jobs = {name: partial(done.add, name) for name in ("a", "b", "c")}
    assert spread(jobs, tmp_path / "claims", done.__contains__, first=2) == ["c", "b"]
    assert spread(jobs, tmp_path / "claims", done.__contains__) == []
    assert spread({}, tmp_path / "claims", done.__contains__, first=3) == []


def test_an_error_reaches_the_caller_and_frees_the_claim(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("this job")

    with pytest.raises(ValueError, match="this job"):
        spread({"a": fail}, tmp_path, lambda name: False)
    with claimed(tmp_path / "0.claim") as mine:
        assert mine


def test_lines_are_added_whole(tmp_path: Path) -> None:
    append_line(tmp_path / "rows", "one")
    append_line(tmp_path / "rows", "two")
    assert (tmp_path / "rows").read_text() == "one\ntwo\n"
