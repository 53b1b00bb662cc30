"""Several processes that share the reading of prompts: the same sums, the same errors, one file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pure.fakes import FakeModel, TwoTowers

from erasure_core import Concept, Erasure
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics_file import load_statistics, save_statistics
from erasure_core.commands import shared
from erasure_core.commands.main import main

ROOT = Path(__file__).parents[2]
CONCEPTS = [Concept(f"thing {number}", ("", "dog", "red fish")[number % 3]) for number in range(41)]
PRESERVE, EXACTLY = [f"kept {number}" for number in range(12)], ["owl", "wolf"]
GATHER = """
import sys
import torch
from pure.fakes import FakeModel, TwoTowers
from toy.test_two_processes import CONCEPTS, EXACTLY, PRESERVE
from erasure_core import Concept
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics_file import save_statistics
from erasure_core.closed_form.update import updated
from erasure_core.workers import joined

with joined(torch.device("cpu")) as workers:
    assert workers.count == 2
    model = TwoTowers()
    read = []
    original = model.text_rows
    model.text_rows = lambda prompts: read.extend(prompts) or original(prompts)
    statistics = gather_statistics(model, CONCEPTS[:-1], PRESERVE, exactly=EXACTLY, workers=workers)
    own = [one for one in read if one.startswith("thing")]
    assert len(own) == 20, own
    few = gather_statistics(model, CONCEPTS[-1:], ["hill"], workers=workers)
    statistics = updated(statistics, model, CONCEPTS[-1:], common=False, workers=workers)
    save_statistics(statistics, f"{sys.argv[1]}/{workers.rank}.safetensors")
    save_statistics(few, f"{sys.argv[1]}/few-{workers.rank}.safetensors")
    class Deaf(FakeModel):
        def _words(self, prompt):
            return [word for word in super()._words(prompt) if word != "7"]
        def reads(self, prompt):
            return tuple(prompt.split())
    try:
        gather_statistics(Deaf(), [Concept(one.name[6:], "") for one in CONCEPTS], workers=workers)
    except ValueError as error:
        print(str(error), file=open(f"{sys.argv[1]}/{workers.rank}.txt", "w"))
"""
COMMAND = """
import sys
from pure.fakes import FakeModel
from erasure_core.commands import main, shared
shared.load_model = lambda *_: FakeModel()
sys.exit(main.main(sys.argv[1:]))
"""


def in_two_processes(code: str, *arguments: object) -> list[subprocess.CompletedProcess]:
    """Run code in two processes that have the environment of ``torchrun``; returns how they ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    shared_by_both = {
        **os.environ, "PYTHONPATH": path, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", code, *map(str, arguments)]
    running = [
        subprocess.Popen(
            command, env={**shared_by_both, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    ended = []
    for one in running:
        out, err = one.communicate(timeout=300)
        ended.append(subprocess.CompletedProcess(command, one.returncode, out, err))
    return ended


def close(one: Path, other: Path) -> None:
    found, expected = load_statistics(one), load_statistics(other)
    assert (found.concepts, found.preserve, found.exactly) == (expected.concepts, expected.preserve, expected.exactly)
    for name, entry in expected.entries.items():
        for mine, theirs in zip(found.entries[name].tensors(), entry.tensors(), strict=True):
            assert float((mine - theirs).abs().max()) <= 1e-12 * float(theirs.abs().max().clamp(min=1))


def test_two_processes_gather_what_one_does(tmp_path: Path) -> None:
    """By gloo: the same sums to 1e-12, each encoding its half, and an error of one in both."""
    for one in in_two_processes(GATHER, tmp_path):
        assert one.returncode == 0, one.stderr
    whole = gather_statistics(TwoTowers(), CONCEPTS, PRESERVE, exactly=EXACTLY)
    save_statistics(whole, tmp_path / "whole.safetensors")
    save_statistics(gather_statistics(TwoTowers(), CONCEPTS[-1:], ["hill"]), tmp_path / "few.safetensors")
    for rank in range(2):
        close(tmp_path / f"{rank}.safetensors", tmp_path / "whole.safetensors")
        close(tmp_path / f"few-{rank}.safetensors", tmp_path / "few.safetensors")
        assert "reads nothing in '7'" in (tmp_path / f"{rank}.txt").read_text()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    model = FakeModel()
    monkeypatch.setattr(shared, "load_model", lambda *_: model)
    return model


def test_the_command_writes_one_file_from_two_processes(fake: FakeModel, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, CONCEPTS)), encoding="utf-8")
    command = ["erase", "--model", "toy", "--concepts", listed, "--preset", "several", "--exactly", "kite"]
    both, alone = tmp_path / "both.safetensors", tmp_path / "alone.safetensors"
    saved = ["--save-statistics", tmp_path / "sums.safetensors"]
    first, second = in_two_processes(COMMAND, *command, "--out", both, *saved)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "both.safetensors: erases" in first.stdout and second.stdout == ""
    assert main([*map(str, command), "--out", str(alone)]) == 0
    found, expected = Erasure.load(both), Erasure.load(alone)
    assert found.origins[0].concepts == expected.origins[0].concepts == tuple(CONCEPTS)
    for name, delta in expected.deltas.items():
        torch.testing.assert_close(found.deltas[name].dense(), delta.dense(), rtol=1e-4, atol=1e-5)
    assert load_statistics(tmp_path / "sums.safetensors").concepts == tuple(CONCEPTS)


def test_torchrun_starts_the_command(tmp_path: Path) -> None:
    """The real thing: two processes of torchrun erase from the embedded model and write one file."""
    listed, out = tmp_path / "list.txt", tmp_path / "a.safetensors"
    listed.write_text("\n".join(f"thing {number}" for number in range(40)), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "erasure_core", "erase", "--model", "toy", "--concepts", str(listed), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a.safetensors: erases") == 1
    assert len(Erasure.load(out).concepts) == 40
