"""Random checkpoints: through ``erase-from-your-checkpoint`` in a running ComfyUI, and every family in full size."""

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

FAMILIES = ("sd15", "sd15_inpainting", "sd15_instruct", "sd21", "sdxl", "sdxl_refiner")
SMALL = {"5": {"width": 64, "height": 64}, "7": {"steps": 2}, "10": {"steps": 2}}
KINDS = ("CheckpointLoaderSimple", "ErasureRECE", "ErasureBake", "PreviewImage")
MOST_MEGABYTES = 20 * 1024**3 / 1e6


def made(family: str, *options: str, full: bool = True):
    marks = [pytest.mark.full] if full else []
    return pytest.param((family, *options), id=" ".join((family, *options)), marks=marks)


@pytest.fixture(scope="module")
def own_server(comfy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """One that gives its memory back when the tests have ended."""
    with ComfyServer(comfy_path, tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module", params=[made("sd15", "--small", "unet", full=False), made("sd15"), made("sdxl")])
def checkpoint(request, own_server: ComfyServer) -> Iterator[Path]:
    """The file in ComfyUI's checkpoints folder; deleted afterwards."""
    family, *options = request.param
    path = own_server.directory / "models" / "checkpoints" / f"random-{family}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    make(own_server.comfy_path, family, path, *options)
    yield path
    own_server.free()
    path.unlink()


def make(comfy_path: Path, family: str, path: Path, *options: str) -> None:
    command = [sys.executable, str(INSIDE / "make_checkpoint.py"), family, str(path), *options]
    subprocess.run(command, check=True, cwd=comfy_path, env=inside_environment(comfy_path))


def test_the_workflow_and_its_file(own_server: ComfyServer, checkpoint: Path) -> None:
    """The stock loaders of checkpoints and of LoRAs: the file draws what the node's own result draws."""
    server = own_server
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
    assert server.peak_megabytes() < MOST_MEGABYTES


def test_the_template_that_bakes(own_server: ComfyServer, checkpoint: Path) -> None:
    """The file that it writes draws by itself what the erased model draws."""
    server = own_server
    prompt = graphs.as_api(graphs.ui("12 Bake a checkpoint"), server.object_info())
    small = {"ckpt_name": checkpoint.name, "checkpoint": checkpoint.name, "width": 64, "height": 64}
    for node in prompt.values():
        steps = {"steps": 2} if node["class_type"] == "KSampler" else {}
        node["inputs"] |= {name: value for name, value in (small | steps).items() if name in node["inputs"]}
    by_kind = {kind: [key for key, node in prompt.items() if node["class_type"] == kind] for kind in KINDS}
    (load,), (erase,), (bake,), (before, after) = by_kind.values()
    entry = server.queue(prompt, timeout=1800)
    plain, direct = (np.asarray(server.images(entry, node)[0], np.int16) for node in (before, after))
    assert np.abs(plain - direct).max() > 0

    path, outcome = entry["outputs"][bake]["text"]
    name = str(Path(path).relative_to(server.directory / "output" / "checkpoints"))
    assert "tensors have changed" in outcome and name in str(server.object_info()["CheckpointLoaderSimple"])
    prompt[load]["inputs"]["ckpt_name"] = name
    for key in (erase, bake, after):
        del prompt[key]
    baked = np.asarray(server.images(server.queue(prompt, timeout=1800), before)[0], np.int16)
    assert np.abs(baked - direct).max() <= 4, "the file is rounded to its precision, the node's change is not"


def test_small_families(comfy_path: Path) -> None:
    run_inside(
        comfy_path, *(str(INSIDE / f"check_{name}.py") for name in ("families", "precision", "bake", "gguf", "lowvram"))
    )


@pytest.mark.full
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_full_size(comfy_path: Path, family: str) -> None:
    run_inside(comfy_path, str(INSIDE / "check_families.py"), FAMILIES=family, FULL="1")


@pytest.mark.full
def test_every_method_trains(comfy_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "random-sd15.safetensors"
    make(comfy_path, "sd15", path)
    run_inside(comfy_path, str(INSIDE / "check_sd15.py"), SD15_CHECKPOINT=str(path))
    path.unlink()
