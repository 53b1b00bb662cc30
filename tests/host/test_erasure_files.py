"""Erasures as files in a running ComfyUI: what they do elsewhere, combined, and which are refused."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from comfy_server import ComfyServer
from rece_prompt import AFTER, BEFORE, RECE, pixels, refused, save, saved_files, with_sampler
from safetensors.torch import load_file, save_file

from erasure_core.quoting import excerpt


def test_the_file_does_elsewhere_what_the_node_does(server: ComfyServer, prompt: dict[str, Any]) -> None:
    direct = pixels(server, server.queue(prompt), AFTER)
    path = save(server, prompt, "erasure/no-cat")
    assert path.parent == server.directory / "output" / "loras" / "erasure"
    name = str(path.relative_to(server.directory / "output" / "loras"))
    stock = {"lora_name": name, "strength_model": 1.0, "strength_clip": 1.0, "model": ["2", 0], "clip": ["2", 1]}
    own = {"erasure": ["41", 0], "strength_model": 1.0, "strength_clip": 1.0, "model": ["2", 0], "clip": ["2", 1]}
    loaders = {
        "LoraLoader": {"40": {"class_type": "LoraLoader", "inputs": stock}},
        "ErasureApply": {
            "41": {"class_type": "ErasureLoad", "inputs": {"file": name}},
            "40": {"class_type": "ErasureApply", "inputs": own},
        },
    }
    printed = len(server.log())
    for loader, nodes in loaders.items():
        assert name in str(server.object_info()["LoraLoader"]["input"]["required"]["lora_name"])
        loaded = prompt | nodes
        with_sampler(loaded, ["40", 0], ["40", 1])
        difference = np.abs(pixels(server, server.queue(loaded), AFTER) - direct)
        assert difference.max() <= 1, loader
    log = server.log()[printed:]
    for complaint in ("lora key not loaded", "other weights", "ERROR", "WARNING"):
        assert complaint not in log, log


def test_the_file_works_as_a_hook(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """As a LoRA of one prompt alone, for a part of the steps: what Prompt Control's <lora:...> does too."""
    direct, before = (pixels(server, server.queue(prompt), node) for node in (AFTER, BEFORE))
    name = str(save(server, prompt, "hooked").relative_to(server.directory / "output" / "loras"))
    prompt["40"] = {
        "class_type": "CreateHookLora",
        "inputs": {"lora_name": name, "strength_model": 1.0, "strength_clip": 0.0},
    }
    sampler = prompt["10"]["inputs"]
    for node, side in (("41", "positive"), ("42", "negative")):
        own = {"cond_NEW": sampler[side], "strength": 1.0, "set_cond_area": "default", "hooks": ["40", 0]}
        prompt[node] = {"class_type": "ConditioningSetProperties", "inputs": own}
        sampler[side] = [node, 0]
    with_sampler(prompt, ["2", 0])
    hooked = pixels(server, server.queue(prompt), AFTER)
    assert np.abs(hooked - direct).max() <= 1 and np.abs(hooked - before).max() > 50
    server.free()
    assert np.array_equal(pixels(server, server.queue(prompt), BEFORE), before), "the hook is gone afterwards"


def test_nothing_is_overwritten(server: ComfyServer, prompt: dict[str, Any]) -> None:
    first = save(server, prompt, "twice")
    content = first.read_bytes()
    prompt[RECE]["inputs"]["concepts"] = "dog"
    second = save(server, prompt, "twice")
    assert (first.name, second.name) == ("twice_00001_.safetensors", "twice_00002_.safetensors")
    assert first.read_bytes() == content != second.read_bytes()


def test_strength_zero_changes_nothing_and_combining_adds(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt["49"] = deepcopy(prompt[RECE])
    prompt["49"]["inputs"]["concepts"] = "lion"
    prompt["50"] = {
        "class_type": "ErasureCombine",
        "inputs": {"a": [RECE, 2], "b": ["49", 2], "strength_a": 0.75, "strength_b": 0.25},
    }
    given = {"clip": ["2", 1], "strength_clip": 1.0}
    for node, erasure, model, strength in (
        ("51", ["50", 0], "2", 0.0), ("52", [RECE, 2], "2", 0.75), ("53", ["49", 2], "52", 0.25)
    ):  # fmt: skip
        own = {"erasure": erasure, "model": [model, 0], "strength_model": strength}
        prompt[node] = {"class_type": "ErasureApply", "inputs": given | own}
    server.free()
    with_sampler(prompt, ["53", 0])
    entry = server.queue(prompt)
    before, direct = (pixels(server, entry, node) for node in (BEFORE, AFTER))
    with_sampler(prompt, ["51", 0])
    assert np.array_equal(pixels(server, server.queue(prompt), AFTER), before)
    prompt["51"]["inputs"]["strength_model"] = 1.0
    assert np.abs(pixels(server, server.queue(prompt), AFTER) - direct).max() <= 1


@pytest.mark.parametrize(
    "prefix",
    ["../escaped", "/tmp/escaped", "a/../../../escaped", "", "folder/", "taken/erasure", "long" * 80],
)
def test_bad_folders(server: ComfyServer, prompt: dict[str, Any], prefix: str) -> None:
    loras = server.directory / "output" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    (loras / "taken").write_text("a file where a folder is asked for")
    files = saved_files(server)
    prompt["30"] = {"class_type": "ErasureSave", "inputs": {"erasure": [RECE, 2], "filename_prefix": prefix}}
    assert f"filename_prefix '{excerpt(prefix)}'" in refused(server, prompt)
    assert saved_files(server) == files
    assert not list(server.directory.rglob("escaped*"))


def test_bad_files(server: ComfyServer, prompt: dict[str, Any]) -> None:
    good = save(server, prompt, "good")
    folder = server.directory / "models" / "loras"
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{stem}.lora_up.weight": torch.ones(96, 1)}, folder / "foreign.safetensors")
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:2000])
    tensors = load_file(good)
    prompt["41"] = {"class_type": "ErasureLoad", "inputs": {"file": "foreign.safetensors"}}
    prompt["31"] = {"class_type": "ErasureSave", "inputs": {"erasure": ["41", 0], "filename_prefix": "again"}}
    assert "foreign.safetensors was not written by this pack" in refused(server, prompt)
    prompt["41"]["inputs"]["file"] = "cut.safetensors"
    assert "cut.safetensors is not a readable safetensors file" in refused(server, prompt)
    prompt["41"]["inputs"]["file"] = "absent.safetensors"
    assert "absent.safetensors" in refused(server, prompt)
    save_file(tensors, folder / "bare.safetensors")
    prompt["41"]["inputs"]["file"] = "bare.safetensors"
    assert "bare.safetensors was not written by this pack" in refused(server, prompt)
    assert not any("again" in name for name in saved_files(server))
