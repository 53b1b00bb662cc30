"""The check for GPUs: its page, what it does without what it needs, and what the library spares a device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_page import page
from erasure_core.erasures import erasure
from erasure_core.erasures.erasure import deltas_of
from erasure_core.erasures.low_rank import LowRank
from erasure_core.model import TextEntry

DEVICE = {
    "type": "cuda", "name": "A card", "gigabytes": 80, "torch": "2.9", "cuda": "13.0", "version": "1.0",
    "python": "3.12", "transformers": "5.0",
}  # fmt: skip


def measured(seconds: float, ratio: float = 1.2) -> dict:
    floor = {"encode": seconds / 2, "weights": 0.0, "Gram": 0.01, "deltas": 0.01}
    return {
        "seconds": seconds, "encode": seconds / 2, "solve": seconds / 4, "floor": floor, "ratio": ratio,
        "megabytes": 50.0, "first": 2 * seconds, "rank": 7,
    }  # fmt: skip


def parts(**more) -> dict:
    return {
        "toy": {"state": "ok", "edit": 1e-5, "picture": 1e-4, "judged": 1.0},
        "waits": {"state": "ok", "8": {"reads": 12, "transfers": 9}, "40": {"reads": 14, "transfers": 13}},
        "rece, sd15, fp32": {"state": "ok", "1": measured(0.08), "100": measured(2.0), "took": 3.0},
        "step, AbO, fp16": {"state": "ok", "refused": "training in float16 gives NaN", "floor": 0.2},
        "step, AbO, fp32": {
            "state": "ok", "seconds": 0.3, "floor": 0.2, "ratio": 1.5, "megabytes": 9.0, "floor_megabytes": 8.0,
        },
        "ComfyUI": {"state": "not run", "why": "ComfyUI's tree was not carried"}, **more,
    }  # fmt: skip


def test_a_page_of_a_card_names_it_and_judges_each_target() -> None:
    text = page({"device": DEVICE, "small": False, "parts": parts()})
    assert "on one **A card** (80 GB)" in text and "yet" not in text.partition("##")[0]
    assert "- SD 1.5, 1 concept: at most 0.1 s: **met** (0.08 s)" in text
    assert "- SD 1.5, 1 concept, the solve alone: at most 0.05 s: **met** (0.02 s)" in text
    assert "- SD 1.5, 100 concepts: at most 1 s: **missed** (2 s)" in text
    assert "- SDXL, 1 concept: at most 1 s: **not measured**" in text
    assert "- never more than 1.5 times the floor: **met** (1.2 times)" in text
    assert "refused" in text and "12 reads and 9 transfers for 8 concepts" in text
    assert "ComfyUI's tree was not carried" in text


def test_one_ratio_beyond_the_bound_is_enough() -> None:
    text = page(
        {
            "device": DEVICE,
            "small": False,
            "parts": parts(**{"rece, sdxl, bf16": {"state": "ok", "1": measured(1.0, 1.6)}}),
        }
    )
    assert "1.5 times the floor: **missed** (1.6 times)" in text


def test_the_page_of_a_rehearsal_says_that_nothing_has_run_on_a_gpu() -> None:
    text = page({"device": {**DEVICE, "type": "cpu", "name": "x86_64"}, "small": True, "parts": parts()})
    assert "**Nothing here has run on a GPU yet.**" in text and "**met**" not in text and "0.08" not in text


def test_a_machine_without_what_is_needed_is_told_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(gpu_check.NEEDED, "no_such_module", "no-such-wheel")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "a.json"), "--wheels", str(tmp_path)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert gpu_check.main() == 2
    assert "lacks no-such-wheel; put their wheels into a folder" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text())["missing"] == ["no-such-wheel"]


def test_wheels_are_for_what_is_missing(tmp_path: Path, monkeypatch) -> None:
    """They are installed behind what is there, and without the network."""
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "no_such-1.whl").touch()
    assert gpu_check.install_missing(tmp_path) == [] and not ran
    monkeypatch.setitem(gpu_check.NEEDED, "no_such_module", "no-such-wheel")
    assert gpu_check.install_missing(tmp_path) == ["no-such-wheel"]
    (command,) = ran
    assert "--no-index" in command and command[-1].endswith("no_such-1.whl") and sys.path[-1] in command


def test_no_cuda_is_an_error_and_no_rehearsal(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "a.json")])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match="finds no CUDA GPU; --device cpu --small rehearses"):
        gpu_check.main()


def test_changes_come_back_from_a_device_many_layers_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are on PyTorch's device without numbers, which stands for a GPU."""
    moved: list[int] = []

    def on_cpu(tensors):
        moved.append(len(tensors))
        return [torch.zeros(one.shape) for one in tensors]

    monkeypatch.setattr(erasure, "on_cpu", on_cpu)
    entry = TextEntry({f"layer {number}": torch.empty(6, 4, device="meta") for number in range(5)})
    change = LowRank(torch.randn(4, 2), torch.randn(2, 4))
    deltas, _ = deltas_of(change, entry)
    assert moved == [5] and list(deltas) == list(entry.weights)
    assert all(delta.up.shape == (6, 2) for delta in deltas.values())
    moved.clear()
    monkeypatch.setattr(erasure, "MOST_WAITING_BYTES", 6 * 2 * 4)
    deltas_of(change, entry)
    assert [count for count in moved if count] == [2, 2, 1]
