"""Runs the tests of ``inside/`` in a process of their own, where ComfyUI's modules can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfy_server import server_environment

INSIDE = Path(__file__).with_name("inside")


def inside_environment(comfy_path: Path) -> dict[str, str]:
    """An environment in which ComfyUI's modules can be imported."""
    environment = server_environment()
    return environment | {"PYTHONPATH": os.pathsep.join([str(comfy_path), environment["PYTHONPATH"]])}


def run_inside(comfy_path: Path, *arguments: str, **variables: str) -> None:
    """Run pytest on a file of ``inside/``; a failure there is a failure here, with its output."""
    environment = inside_environment(comfy_path) | variables
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command += ["-c", os.devnull, "--rootdir", str(INSIDE), "--confcutdir", str(INSIDE)]
    done = subprocess.run(
        [*command, *arguments],
        cwd=comfy_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        pytest.fail(done.stdout, False)


def test_toy_and_adapter(comfy_path: Path) -> None:
    names = ("toy", "adapter", "erasures_of_model", "recognise", "sdxl")
    run_inside(comfy_path, *(str(INSIDE / f"check_{name}.py") for name in names))


def test_entries(comfy_path: Path) -> None:
    run_inside(comfy_path, str(INSIDE / "check_entries.py"))


@pytest.mark.parametrize("option", ["", "--use-split-cross-attention"])
def test_training(comfy_path: Path, option: str) -> None:
    run_inside(comfy_path, str(INSIDE / "check_training.py"), COMFYUI_OPTION=option)


def test_previews(comfy_path: Path) -> None:
    run_inside(comfy_path, str(INSIDE / "check_previews.py"))


def test_leaks(comfy_path: Path) -> None:
    run_inside(comfy_path, str(INSIDE / "check_leaks.py"))
