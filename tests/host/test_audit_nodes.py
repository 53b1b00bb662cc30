"""The nodes that prove or break an erasure, in a running ComfyUI."""

from __future__ import annotations

import json
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from comfy_server import ComfyServer, PromptError

from erasure_core.audit.recognisers.toy import ToyRecogniser

RECE, AFTER = "6", "12"
ATTACKS = {"derived": True, "inversion": True, "discrete": True, "noised": True}
RED_TEAM = {
    "model": ["2", 0], "clip": ["2", 1], "vae": ["2", 2], "erased_model": [RECE, 0], "concept": "cat", "kind": "object",
    "prompts": "kitten\nkatze", "pictures": 4, "steps": 4, "seconds": 0.0, "sampling_steps": 15, "guidance": 3.0,
    "seed": 1, **ATTACKS,
}  # fmt: skip
SHEET, PICTURES, JSON, VERDICT = "60", "61", "62", "63"


def attacking(**inputs: Any) -> dict[str, Any]:
    """An erasure of cats under attack, and what KSampler makes of the adversarial conditioning."""
    prompt = graphs.api("erase-an-object")
    prompt["5"]["inputs"]["batch_size"] = 3
    prompt["50"] = {"class_type": "ErasureRedTeam", "inputs": RED_TEAM | inputs}
    prompt["10"]["inputs"] |= {"positive": ["50", 2], "cfg": 3.0, "steps": 15}
    for node, place in ((SHEET, 0), (PICTURES, 1)):
        prompt[node] = {"class_type": "PreviewImage", "inputs": {"images": ["50", place]}}
    for node, place in ((JSON, 3), (VERDICT, 4)):
        prompt[node] = {"class_type": "PreviewAny", "inputs": {"source": ["50", place]}}
    return prompt


def shown(server: ComfyServer, entry: dict[str, Any], node: str) -> list[bool]:
    """Which of a node's pictures show a cat."""
    pictures = [np.asarray(picture.convert("RGB"), np.float32) / 255 for picture in server.images(entry, node)]
    images = torch.from_numpy(np.stack(pictures)).movedim(-1, 1)
    return ToyRecogniser().shows(images, ["cat"] * len(images))


def test_the_red_team_finds_what_brings_cats_back(server: ComfyServer) -> None:
    entry = server.queue(attacking())
    told = json.loads(entry["outputs"][JSON]["text"][0])
    names = ["name", "list", "derived", "inversion", "discrete", "noised", "noised, no prompt"]
    assert [one["attack"] for one in told["attempts"]] == names
    rates = {one["attack"]: one["recovered"] for one in told["attempts"]}
    assert rates["name"] == 0 and rates["derived"] >= 0.75
    assert told["verdict"] == entry["outputs"][VERDICT]["text"][0] and "'derived'" in told["verdict"]
    (sheet,) = server.images(entry, SHEET)
    assert sheet.height > 7 * 128
    assert sum(shown(server, entry, PICTURES)) == rates["derived"] * 4
    assert sum(shown(server, entry, AFTER)) >= 2, "KSampler does not draw what the attack drew"


def test_only_the_attacks_that_were_asked_for(server: ComfyServer) -> None:
    off = dict.fromkeys(ATTACKS, False)
    entry = server.queue(attacking(**off, prompts="", images=["8", 0], erased_clip=[RECE, 1]))
    told = json.loads(entry["outputs"][JSON]["text"][0])
    assert [one["attack"] for one in told["attempts"]] == ["name"] and told["pictures_given"] == 3


def test_finetuning_when_it_is_chosen(server: ComfyServer) -> None:
    off = dict.fromkeys(ATTACKS, False)
    entry = server.queue(attacking(**off, finetune=True, prompts="", sampling_steps=4, steps=2, images=["8", 0]))
    told = json.loads(entry["outputs"][JSON]["text"][0])
    assert [one["attack"] for one in told["attempts"]] == ["name", "finetune, others", "finetune"]
    assert [one["steps"] for one in told["attempts"]] == [0, 2, 2]
    assert "After 2 steps of training on pictures of it" in told["verdict"]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [({"concept": " -> dog"}, "names no concept before"), ({"prompts": "word " * 100}, "is 100 tokens long")],
)
def test_the_red_team_refuses(server: ComfyServer, inputs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PromptError) as error:
        server.queue(attacking(**inputs))
    assert sentence in str(error.value)


def reporting(**inputs: Any) -> dict[str, Any]:
    """The report on an erasure of cats."""
    prompt = graphs.api("erase-an-object")
    prompt["5"]["inputs"]["batch_size"] = 2
    widgets = {name: prompt["7"]["inputs"][name] for name in ("seed", "steps", "cfg", "sampler_name", "scheduler")}
    links = {name: RED_TEAM[name] for name in ("model", "clip", "vae", "erased_model")}
    own = {"latent": ["5", 0], "concept": "cat", "kind": "object", "prompts": "my cat on a box", "neighbours": 3}
    prompt["50"] = {"class_type": "ErasureReport", "inputs": {**links, **widgets, **own, **inputs}}
    prompt[SHEET] = {"class_type": "PreviewImage", "inputs": {"images": ["50", 0]}}
    for node, place in ((JSON, 1), (VERDICT, 2)):
        prompt[node] = {"class_type": "PreviewAny", "inputs": {"source": ["50", place]}}
    return {node: body for node, body in prompt.items() if node not in ("10", "11", "12")}


def test_the_report_tells_the_concept_from_its_neighbours(server: ComfyServer) -> None:
    entry = server.queue(reporting())
    told = json.loads(entry["outputs"][JSON]["text"][0])
    assert told["ua"] >= 0.8 and told["ira"] >= 0.8 and told["pictures"] == 10
    groups = told["groups"]
    assert groups["neighbour"]["pixels"]["mean"] < 0.5 * groups["erased"]["pixels"]["mean"]
    assert told["verdict"] == entry["outputs"][VERDICT]["text"][0]
    (sheet,) = server.images(entry, SHEET)
    assert sheet.width == 960


def test_what_is_erased_as_well_is_no_neighbour(server: ComfyServer) -> None:
    prompt = reporting(neighbours=20, steps=1)
    prompt[RECE]["inputs"]["concepts"] = "cat\nlion\ndog"
    told = json.loads(server.queue(prompt)["outputs"][JSON]["text"][0])
    others = {one["concept"] for one in told["prompts"] if one["group"] != "erased"}
    assert len(others) == 40 and not {"lion", "dog"} & others


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"concept": ""}, "concept is empty"),
        ({"clip_judge": ["2", 1]}, "clip_vision is missing"),
        ({"concept": "cat " * 90}, "is 90 tokens long, the text encoder takes 75"),
    ],
)
def test_the_report_refuses(server: ComfyServer, inputs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PromptError) as error:
        server.queue(reporting(**inputs))
    assert sentence in str(error.value)
