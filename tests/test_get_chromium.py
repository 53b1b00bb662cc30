"""Finding and installing Chromium, without apt-get."""

from __future__ import annotations

import subprocess
from pathlib import Path

import get_chromium
import pytest


class System:
    """A machine with apt-get and its calls; ``failing`` are the numbers of those that fail, from 0 on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: int, programs: tuple[str, ...] = ("apt-get",)):
        self.programs, self.failing = set(programs), failing
        self.calls: list[str] = []
        monkeypatch.delenv("CHROMIUM", raising=False)
        monkeypatch.setattr(get_chromium.os, "geteuid", lambda: 0)
        monkeypatch.setattr(
            get_chromium.shutil, "which", lambda name: f"/usr/bin/{name}" if name in self.programs else None
        )
        monkeypatch.setattr(get_chromium.subprocess, "run", self.run)

    def run(self, command: list[str], **_: object) -> None:
        self.calls.append(command[1])
        if len(self.calls) - 1 in self.failing:
            raise subprocess.CalledProcessError(100, command)
        if command[1] == "install":
            self.programs.add("chromium")


def test_it_is_installed_where_there_is_none(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    system = System(monkeypatch)
    get_chromium.main()
    assert system.calls == ["update", "install"] and capsys.readouterr().out == "/usr/bin/chromium\n"


def test_one_that_is_there_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    system = System(monkeypatch, programs=("apt-get", "google-chrome"))
    get_chromium.main()
    assert not system.calls and capsys.readouterr().out == "/usr/bin/google-chrome\n"


@pytest.mark.parametrize(
    ("failing", "calls"),
    [
        ((0,), ["update", "install"]),  # the old lists did
        ((0, 1), ["update", "install"] * 2),
        ((1,), ["update", "install"] * 2),
    ],
)
def test_a_failure_of_apt_once_in_a_while_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, capsys, failing: tuple[int, ...], calls: list[str]
) -> None:
    system = System(monkeypatch, *failing)
    get_chromium.main()
    assert system.calls == calls and capsys.readouterr().out == "/usr/bin/chromium\n"


def test_it_gives_up_after_two_attempts_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    system = System(monkeypatch, *range(10))
    with pytest.raises(SystemExit, match="run 'apt-get install chromium', or let CHROMIUM name"):
        get_chromium.main()
    assert system.calls == ["update", "install"] * 2 and "apt-get install: " in capsys.readouterr().err


def test_nothing_is_installed_by_who_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch)
    monkeypatch.setattr(get_chromium.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="There is no Chromium"):
        get_chromium.main()
    assert not system.calls


def test_one_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    system = System(monkeypatch, programs=("apt-get", "/opt/chrome"))
    monkeypatch.setenv("CHROMIUM", "/opt/chrome")
    get_chromium.main()
    assert capsys.readouterr().out == "/opt/chrome\n"
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="nowhere, which is no program"):
        get_chromium.main()
    assert not system.calls
