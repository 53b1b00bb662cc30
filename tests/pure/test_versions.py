"""The versions that the project says it works with are those that are tested."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lowest_versions import PROJECT, lowest_versions

ROOT = Path(PROJECT).parent


def test_each_has_a_lowest_version_and_no_highest() -> None:
    text = PROJECT.read_text(encoding="utf-8")
    found = lowest_versions(text)
    assert set(found) == {"torch", "safetensors", "numpy", "pillow", "diffusers", "transformers", "accelerate", "peft"}
    assert "<" not in text and "==" not in text


def test_the_page_of_installing_names_them() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for name, version in lowest_versions(PROJECT.read_text(encoding="utf-8")).items():
        assert name in ("numpy", "pillow") or f"{name} {version}" in page, name


def test_the_target_installs_them() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = makefile.partition("\ntest-oldest:")[2].partition("\n\n")[0]
    assert "lowest_versions.py" in target and "$(OLDEST)" in target and "OLDEST ?= python3.10\n" in makefile


def recipe(*words: str) -> subprocess.CompletedProcess[str]:
    """What ``make`` would run, with nothing installed yet."""
    command = ["make", "--dry-run", "--what-if=pyproject.toml", *words]
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=alone)


def test_torch_for_the_cpu_alone_comes_first() -> None:
    index = "https://download.pytorch.org/whl/cpu"
    small = recipe("demo", "TORCH=cpu").stdout.splitlines()
    (first,) = [place for place, line in enumerate(small) if index in line]
    (second,) = [place for place, line in enumerate(small) if "-e '.[dev]'" in line]
    assert first < second and "-m erasure_core demo" in small[-1]
    assert index not in recipe("demo").stdout
    wrong = recipe("demo", "TORCH=gpu")
    assert wrong.returncode != 0 and "TORCH is 'gpu'; write TORCH=cpu" in wrong.stderr
