"""The nodes that train, in a running ComfyUI: a few steps each, and how they refuse and stop."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import graphs
import numpy as np
import pytest
from comfy_server import ComfyServer, PromptError
from rece_prompt import pixels

METHOD, BEFORE, AFTER, CURVE = "6", "9", "12", "62"
TRAINING = {
    "preset": "object (toy)", "steps": 2, "learning_rate": 1e-3, "seconds": 0.0, "rank": 0,
    "seed": 1, "strength": 1.0,
}  # fmt: skip
ABO = {
    "preserve": "lion", "preserve_common": False, "unconditional_weight": 1.0, "preserve_weight": 1.0,
    "scope": "cross-attention", "gradient_checkpointing": False,
}  # fmt: skip
NODES: dict[str, dict[str, Any]] = {
    "ErasureFewShot": {"concept": "cat", "growth": 0.0, "vae": ["2", 2], "images": ["8", 0]},
    "ErasureDoCo": {
        "concept": "cat -> dog",
        "learning_rate": 1e-2,
        "steps": 4,
        "gradient_checkpointing": False,
        "anchors": ["7", 0],
    },
    "ErasureAbO": {"concept": "cat -> dog", **ABO},
}


def prompt_of(node: str, **inputs: Any) -> dict[str, Any]:
    """Two pictures before and after, in four steps, by the node in the place of RECE, and its loss curve."""
    prompt = graphs.api("erase-an-object")
    prompt["5"]["inputs"]["batch_size"] = 2
    for sampler in ("7", "10"):
        prompt[sampler]["inputs"]["steps"] = 4
    prompt[METHOD] = {
        "class_type": node,
        "inputs": {"model": ["2", 0], "clip": ["2", 1]} | TRAINING | NODES[node] | inputs,
    }
    prompt["20"] = deepcopy(prompt["3"])
    prompt["20"]["inputs"]["clip"] = [METHOD, 1]
    prompt["10"]["inputs"] |= {"model": [METHOD, 0], "positive": ["20", 0]}
    prompt[CURVE] = {"class_type": "SaveImage", "inputs": {"images": [METHOD, 3], "filename_prefix": "loss"}}
    return prompt


@pytest.mark.parametrize("node", NODES)
def test_it_changes_the_pictures_and_shows_its_loss(server: ComfyServer, node: str) -> None:
    printed = len(server.log())
    entry = server.queue(prompt_of(node))
    assert not np.array_equal(pixels(server, entry, BEFORE), pixels(server, entry, AFTER))
    assert pixels(server, entry, CURVE).shape == (1, 288, 512, 3)
    steps = prompt_of(node)[METHOD]["inputs"]["steps"]
    assert f"step {steps} of {steps}" in server.log()[printed:] and "loss " in server.log()[printed:]
    (outcome,) = entry["outputs"][METHOD]["text"]
    assert outcome.startswith("Erased cat") and f" in {steps} steps as object, learning rate 0.0" in outcome


def test_the_original_is_left_alone(server: ComfyServer) -> None:
    prompt = prompt_of("ErasureFewShot")
    before = pixels(server, server.queue(prompt), BEFORE)
    prompt["7"]["inputs"]["seed"] += 1
    server.queue(prompt)
    prompt["7"]["inputs"]["seed"] -= 1
    assert np.array_equal(pixels(server, server.queue(prompt), BEFORE), before)


@pytest.mark.parametrize(
    ("node", "inputs", "sentence"),
    [
        ("ErasureFewShot", {"concept": " "}, "no concept is named"),
        (
            "ErasureFewShot",
            {"concept": "cat -> dog", "preset": "published (toy)"},
            "few-shot takes no replacement with the objective 'ascent'; write 'cat' without '->'",
        ),
        ("ErasureFewShot", {"captions": "a cat"}, "captions must be one for each of 2 images, got 1"),
        ("ErasureFewShot", {"captions": "a cat\na dog"}, "captions: 'a dog' does not name 'cat'"),
        ("ErasureFewShot", {"preserve": "cat"}, "preserve lists 'cat', which is to be erased"),
        ("ErasureFewShot", {"vae": None}, "VAE is missing"),
        ("ErasureFewShot", {"strength": float("nan")}, "strength must be a finite number from 0 to 2, got nan"),
        ("ErasureDoCo", {"concept": "cat"}, "DoCo needs an anchor"),
        ("ErasureDoCo", {"seconds": float("nan")}, "seconds must be a finite number from 0 to"),
        ("ErasureAbO", {"concept": "cat => dog"}, "has the unknown separator '=>'; write 'cat -> dog'"),
        ("ErasureAbO", {"preserve_weight": float("nan")}, "preserve_weight must be a finite number from 0 to"),
        ("ErasureAbO", {"steps": -1}, "steps"),
        ("ErasureAbO", {"clip": None}, "clip"),
        ("ErasureAbO", {"learning_rate": 1.0, "steps": 40}, "nothing was changed. Try a lower learning rate"),
        ("ErasureFewShot", {"growth": float("nan")}, "growth must be a finite number from 0 to"),
    ],
)
def test_bad_input(server: ComfyServer, node: str, inputs: dict[str, Any], sentence: str) -> None:
    prompt = prompt_of(node, **inputs)
    if prompt[METHOD]["inputs"].get("vae", 0) is None:
        del prompt[METHOD]["inputs"]["vae"]
    with pytest.raises(PromptError) as refused:
        server.queue(prompt)
    assert sentence in str(refused.value)


def test_few_shot_draws_its_own_pictures_towards_a_replacement(server: ComfyServer) -> None:
    """Neither a VAE nor pictures are connected; the captions are the user's, and what is not given is as it was."""
    prompt = prompt_of("ErasureFewShot", concept="cat -> dog", captions="a cat\na red cat", preserve_common=False)
    for name in ("vae", "images"):
        del prompt[METHOD]["inputs"][name]
    printed = len(server.log())
    entry = server.queue(prompt)
    assert not np.array_equal(pixels(server, entry, BEFORE), pixels(server, entry, AFTER))
    assert "few-shot, loss " in server.log()[printed:]


def test_purify_refuses(server: ComfyServer) -> None:
    prompt = graphs.api("purify-pictures")
    prompt["5"]["inputs"]["batch_size"] = 1
    prompt["7"]["inputs"]["steps"] = 2
    prompt["10"]["inputs"]["guidance"] = float("nan")
    with pytest.raises(PromptError, match="guidance must be a finite number from 0 to 30, got nan"):
        server.queue(prompt)


def test_training_can_be_cancelled(server: ComfyServer) -> None:
    prompt = prompt_of("ErasureAbO", steps=100_000)
    printed = len(server.log())
    started = server.submit(prompt)
    server.wait_until_running(started)
    latest = time.monotonic() + 300
    while "AbO, loss" not in server.log()[printed:]:
        assert time.monotonic() < latest, server.log_tail()
        time.sleep(0.2)
    server.interrupt()
    messages = dict(server.wait(started)["status"]["messages"])
    assert messages["execution_interrupted"]["node_type"] == "ErasureAbO"
