"""The command line end to end, as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import erasure_core
from erasure_core import Erasure, rece
from erasure_core.toy import load_toy

ROOT = Path(erasure_core.__file__).resolve().parent.parent


def run(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "erasure_core", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def numbers(line: str) -> list[float]:
    return [float(cell) for cell in re.findall(r"\d+(?:\.\d+)?", line)]


def test_erase_then_evaluate(tmp_path: Path) -> None:
    path = tmp_path / "no-cat.safetensors"
    done = run("erase", "--model", "toy", "--concept", "cat -> dog", "--out", path, cwd=tmp_path)
    assert path.name in done.stdout and Erasure.load(path).concepts[0].instead == "dog"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    done = run("evaluate", "--erasure", path, "--concept", "cat", "--images", 80, "--seed", 3, cwd=tmp_path)
    before, after = done.stdout.strip().splitlines()[-2:]
    ua_before, ira_before, *_ = numbers(before)
    ua_after, ira_after, *_ = numbers(after)
    assert ua_before <= 20 and ua_after >= 90 and ira_after >= ira_before - 10


def test_evaluate_the_model(tmp_path: Path) -> None:
    done = run("evaluate", "--model", "toy", "--images", 64, cwd=tmp_path)
    (drawn,) = [line for line in done.stdout.splitlines() if line.startswith("| generated")]
    things, styles, colours, pictures = numbers(drawn)
    assert pictures == 64 and min(things, styles, colours) >= 90
    real = [numbers(line) for line in done.stdout.splitlines() if line.startswith("| real")]
    assert len(real) == 2 and min(share for row in real for share in row[:3]) >= 97
    (noise,) = numbers(done.stdout.strip().splitlines()[-1])
    assert "dB PSNR" in done.stdout and noise >= 27


def test_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    done = run("erase", "--model", "toy", "--concept", "cat " * 90, "--out", "a.safetensors", cwd=tmp_path, code=2)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "tokens long" in line
    assert not list(tmp_path.iterdir())


def test_help(tmp_path: Path) -> None:
    assert all(name in run("--help", cwd=tmp_path).stdout for name in ("demo", "erase", "evaluate"))
    assert "--regularization" in run("erase", "--help", cwd=tmp_path).stdout


@pytest.mark.full
def test_the_demo(tmp_path: Path) -> None:
    done = run("demo", cwd=tmp_path)
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if " before " in line or " after " in line]
    assert len(rows) == 6 and (tmp_path / "out" / "demo.md").read_text() in done.stdout + "\n"
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        assert numbers(before)[0] <= 20 and numbers(after)[0] >= 90
    sheet = Image.open(tmp_path / "out" / "demo.png")
    assert sheet.format == "PNG" and sheet.width > 1000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["demo.md", "demo.png"]


@pytest.mark.full
def test_the_demo_of_all_methods(tmp_path: Path) -> None:
    done = run("demo", "--method", "all", cwd=tmp_path)
    rows = {line.split("|")[2].strip(): numbers(line) for line in done.stdout.splitlines() if "cat -> dog" in line}
    assert set(rows) == {"before", "RECE", "few-shot", "DoCo", "AbO"}
    least = dict.fromkeys(rows, 90) | {"before": 0, "DoCo": 60}  # leaves some cats, how many differs
    assert rows["before"][0] <= 20 and all(row[0] >= least[label] for label, row in rows.items())
    assert Image.open(tmp_path / "out" / "methods.png").height > 600


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_model_in_half_precision(dtype: str, tmp_path: Path) -> None:
    """What is erased from it is what is erased in full precision, within what the precision tells apart."""
    path = tmp_path / "no-cat.safetensors"
    run("erase", "--model", "toy", "--concept", "cat", "--out", path, "--dtype", dtype, "--device", "cpu", cwd=tmp_path)
    whole = rece(load_toy(), "cat")
    for name, delta in Erasure.load(path).deltas.items():
        apart = float((delta.dense() - whole.deltas[name].dense()).norm() / whole.deltas[name].dense().norm())
        assert apart < {"fp16": 0.05, "bf16": 0.3}[dtype], name
    sheet = tmp_path / "grid.png"
    compare = ("compare", "--model", "toy", "--erasure", path, "--prompt", "a cat", "--num-inference-steps", 2)
    run(*compare, "--dtype", dtype, "--out", sheet, cwd=tmp_path)
    assert sheet.is_file()
