"""A full-size SD 1.5 checkpoint of random weights through ``erase-from-your-checkpoint``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import graphs
import numpy as np
import pytest
from comfy_server import ComfyServer
from test_inside import INSIDE, inside_environment, run_inside

SMALL = {"5": {"width": 64, "height": 64}, "7": {"steps": 2}, "10": {"steps": 2}}
pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def checkpoint(server: ComfyServer) -> Iterator[Path]:
    """The file in ComfyUI's checkpoints folder; deleted afterwards."""
    path = server.directory / "models" / "checkpoints" / "random-sd15.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(INSIDE / "make_sd15.py"), str(path)]
    subprocess.run(command, check=True, cwd=server.comfy_path, env=inside_environment(server.comfy_path))
    yield path
    server.free()
    path.unlink()


def test_the_workflow_and_its_file(server: ComfyServer, checkpoint: Path) -> None:
    prompt = graphs.api("erase-from-your-checkpoint")
    prompt["2"]["inputs"]["ckpt_name"] = checkpoint.name
    for node, inputs in SMALL.items():
        prompt[node]["inputs"] |= inputs
    printed = len(server.log())
    entry = server.queue(prompt, timeout=1800)
    before, direct = (np.asarray(server.images(entry, node)[0], np.int16) for node in ("9", "12"))
    assert np.abs(before - direct).max() > 0

    saved = Path(entry["outputs"]["13"]["text"][0])
    name = str(saved.relative_to(server.directory / "output" / "loras"))
    assert name in str(server.object_info()["LoraLoader"])
    loader = {"lora_name": name, "strength_model": 1.0, "strength_clip": 1.0, "model": ["2", 0], "clip": ["2", 1]}
    prompt["6"] = {"class_type": "LoraLoader", "inputs": loader}
    del prompt["13"]
    stock = np.asarray(server.images(server.queue(prompt, timeout=1800), "12")[0], np.int16)
    assert np.abs(stock - direct).max() <= 1
    assert "not loaded" not in server.log()[printed:]


def test_weights(server: ComfyServer, checkpoint: Path) -> None:
    server.free()
    run_inside(server.comfy_path, str(INSIDE / "check_sd15.py"), SD15_CHECKPOINT=str(checkpoint))
