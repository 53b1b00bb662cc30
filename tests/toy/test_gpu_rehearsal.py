"""A rehearsal of the check for GPUs: on the CPU, with layers of a few numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS_A_GPU = ("torch.compile", "model offload", "sequential offload")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("gpu") / "rehearsal.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu_check.py"),
        "--device",
        "cpu",
        "--small",
        "--out",
        str(out),
    ]
    only = ["--seconds", "3000", "--only", "waits", "repeated", "rece", "step", "offload", "compile", "ComfyUI"]
    done = subprocess.run([*command, *only], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())["parts"]


def test_every_part_is_ok_or_says_why_it_did_not_run(rehearsed: dict) -> None:
    for name, row in rehearsed.items():
        if row["state"] != "ok":
            assert row["state"] == "not run" and row["why"], name
    assert rehearsed["toy"]["why"] == "--only left it out"
    assert all("needs a GPU" in rehearsed[name]["why"] for name in NEEDS_A_GPU)
    assert "overflows in float16" in rehearsed["rece, T5-XXL, fp16"]["why"]
    assert all("tree was not carried" in row["why"] for name, row in rehearsed.items() if name.startswith("ComfyUI"))


@pytest.mark.parametrize("part", ["rece, sd15, fp32", "rece, sdxl, bf16", "rece, sd15, fp16", "rece, T5-XXL, fp32"])
def test_each_number_of_concepts_has_its_floor(rehearsed: dict, part: str) -> None:
    for count in ("1", "10", "60"):
        row = rehearsed[part][count]
        assert row["seconds"] >= row["encode"] + row["solve"] > 0 and row["rank"] > 0
        assert row["ratio"] > 0 and set(row["floor"]) == {"encode", "weights", "Gram", "deltas"}


def test_steps_are_measured_and_float16_is_refused(rehearsed: dict) -> None:
    for method in ("few-shot", "DoCo", "AbO"):
        assert rehearsed[f"step, {method}, fp32"]["ratio"] > 0 and rehearsed[f"step, {method}, bf16"]["ratio"] > 0
        assert "float16 gives NaN" in rehearsed[f"step, {method}, fp16"]["refused"]


def test_waits_grow_with_batches_and_not_with_concepts(rehearsed: dict) -> None:
    few, many = rehearsed["waits"]["8"], rehearsed["waits"]["40"]
    assert many["reads"] - few["reads"] <= 3 * 8 and many["transfers"] == few["transfers"] == 0
