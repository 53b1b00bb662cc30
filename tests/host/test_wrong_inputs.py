"""Every input of every node with values that it cannot have: one sentence that names it, and ComfyUI lives on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import graphs
import pytest
from comfy_server import ROOT, ComfyServer, PromptError

TOY, RECE, OTHER, EMPTY, PICTURES, ANCHORS, WRITTEN = "2", "6", "7", "5", "8", "9", "90"
HALF, NUL, BELL = "cat \ud83d", "cat\x00", "cat\x07"
NO_NUMBERS = [None, "many", {"a": 1}, {"__value__": [1]}, float("nan")]
NO_SOCKETS = ["cat", 5, {"a": 1}, {"__value__": [1]}]
FOLDERS = ["a/" * 2_000 + "cat", "cat" * 100, "a/" + "b" * 300 + "/cat", "a\nb"]
MODEL = {"model": [TOY, 0], "clip": [TOY, 1]}
ABSENT = ["absent.safetensors"]
SAMPLING = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal"}
TRAINING = {"steps": 1, "learning_rate": 1e-4, "seconds": 0.0, "rank": 1, "seed": 0, "strength": 1.0}
RUNS: dict[str, dict[str, Any]] = {
    "ErasureRECE": {"statistics": [RECE, 3]},
    "ErasureFewShot": {
        **MODEL, **TRAINING, "concept": "cat", "preset": "object (toy)", "growth": 0.0, "towers": "text_encoder",
        "vae": [TOY, 2], "images": [PICTURES, 0],
    },
    "ErasureDoCo": {
        **MODEL, **TRAINING, "concept": "cat -> dog", "preset": "object (toy)", "gradient_checkpointing": False,
        "anchors": [ANCHORS, 0],
    },
    "ErasureAbO": {
        **MODEL, **TRAINING, "concept": "cat -> dog", "preset": "object (toy)", "gradient_checkpointing": False,
        "preserve": "", "preserve_common": False, "unconditional_weight": 1.0, "preserve_weight": 1.0,
        "scope": "cross-attention",
    },
    "ErasureApply": {**MODEL, "erasure": [RECE, 2], "strength_model": 1.0, "strength_clip": 1.0},
    "ErasureCombine": {"a": [RECE, 2], "b": [OTHER, 2], "strength_a": 1.0, "strength_b": 1.0},
    "ErasureSave": {"erasure": [RECE, 2], "filename_prefix": "wrong"},
    "ErasureLoad": {"file": ABSENT[0]},
    "ErasureBake": {
        "checkpoint": "wrong.safetensors", "erasure": [RECE, 2], "strength": 1.0, "filename_prefix": "wrong",
    },
    "ErasurePurify": {
        **MODEL, "vae": [TOY, 2], "erasure": [RECE, 2], "images": [PICTURES, 0], "prompt": "a cat", "steps": 1,
        "guidance": 1.0,
    },
    "ErasureCompare": {
        **MODEL, **SAMPLING, "vae": [TOY, 2], "latent": [EMPTY, 0], "prompts": "a cat", "negative": "", "labels": "",
        "difference": False, "model_1": [RECE, 0], "clip_5": [TOY, 1],
    },
    "ErasureReport": {
        **MODEL, **SAMPLING, "vae": [TOY, 2], "erased_model": [RECE, 0], "latent": [EMPTY, 0], "concept": "cat",
        "kind": "object", "prompts": "", "neighbours": 1, "erased_clip": [RECE, 1],
    },
    "ErasureRedTeam": {
        **MODEL, "vae": [TOY, 2], "erased_model": [RECE, 0], "concept": "cat", "kind": "object", "prompts": "",
        **dict.fromkeys(("derived", "inversion", "discrete", "noised"), False), "pictures": 1, "steps": 1,
        "seconds": 0.0, "sampling_steps": 1, "guidance": 1.0, "seed": 0, "erased_clip": [RECE, 1],
        "images": [PICTURES, 0],
    },
    "ErasureSuggestNames": {**MODEL, "concepts": "cat", "erase_aliases": True, "minimum": 0.87, "limit": 3},
    "ErasureLoadConcepts": {"file": "wrong.txt", "column": ""},
    "ErasureRestore": {**MODEL, "statistics": [RECE, 3], "names": "cat"},
    "ErasureSaveStatistics": {"statistics": [RECE, 3], "filename_prefix": "wrong"},
    "ErasureLoadStatistics": {"file": ABSENT[0]},
}  # fmt: skip


@pytest.fixture
def prompt() -> dict[str, Any]:
    """Erasing a cat with plain UCE; a picture of noise, which are wanted by some nodes."""
    found = graphs.api("erase-an-object")
    found[EMPTY]["inputs"]["batch_size"] = 1
    found[RECE]["inputs"] |= {"preset": "custom", "loops": 0, "preserve_common": False, "ridge": 1.0}
    found[PICTURES] = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    found[ANCHORS] = {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}}
    found[OTHER] = {**found[RECE], "inputs": {**found[RECE]["inputs"], "concepts": "lion"}}
    return {node: found[node] for node in (TOY, RECE, OTHER, EMPTY, PICTURES, ANCHORS)}


def with_node(prompt: dict[str, Any], name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The prompt with a node of which something is wrong, and what asks for it."""
    shown = {"class_type": "PreviewAny", "inputs": {"source": ["50", 0]}}
    return {**prompt, "50": {"class_type": name, "inputs": inputs}, WRITTEN: shown}


def wrong_values(name: str, of_type: Any, options: dict[str, Any], required: bool) -> Iterator[Any]:
    """What an input of this kind cannot have, as far as it can come through the API."""
    if of_type == "STRING":
        yield from (HALF, NUL, BELL)
        yield from FOLDERS if name == "filename_prefix" else ()
    elif of_type == "COMBO" or isinstance(of_type, list):
        yield from (None, 5, "absent", HALF, NUL, {"a": 1}, {"__value__": ["a", "b"]})
    elif of_type in ("INT", "FLOAT"):
        yield from (*NO_NUMBERS, options["min"] - 1, options["max"] * 2 + 1, float("inf"), float("-inf"))
    elif of_type != "BOOLEAN":  # of anything ComfyUI makes true or false
        yield from NO_SOCKETS
        yield from [None] * required


def submitted(server: ComfyServer, prompt: dict[str, Any]) -> tuple[str | None, str]:
    """The id of a prompt that ComfyUI took, or why it did not."""
    try:
        return server.submit(prompt), ""
    except PromptError as refusal:
        return None, str(refusal)


def failure(server: ComfyServer, prompt_id: str) -> tuple[str, str]:
    """The kind of the error that a prompt ended with, and what it says."""
    messages = dict(server.wait(prompt_id, timeout=60)["status"]["messages"])
    assert "execution_error" in messages, messages
    return messages["execution_error"]["exception_type"], messages["execution_error"]["exception_message"].strip()


@pytest.mark.parametrize("name", RUNS)
def test_wrong_inputs(server: ComfyServer, prompt: dict[str, Any], name: str) -> None:
    (server.directory / "input").mkdir(exist_ok=True)
    (server.directory / "input" / "wrong.txt").write_text("cat")
    checkpoints = server.directory / "models" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "erasure_core" / "toy" / "weights" / "unet.safetensors", checkpoints / "wrong.safetensors")
    given, listed = prompt[RECE]["inputs"] | RUNS[name], server.object_info()[name]["input"]
    given = {one: given[one] for kind in listed.values() for one in kind if one in given}
    if given.get("file") not in ABSENT:
        server.queue(with_node(prompt, name, given))
    tried = []
    for kind in ("required", "optional"):
        for one, (of_type, *options) in listed.get(kind, {}).items():
            for value in wrong_values(one, of_type, (options or [{}])[0], kind == "required"):
                tried.append((one, value, *submitted(server, with_node(prompt, name, given | {one: value}))))
    assert tried
    for one, value, prompt_id, refusal in tried:
        kind, sentence = failure(server, prompt_id) if prompt_id else ("refused", refusal)
        assert kind in ("refused", "ValueError") and one in sentence, f"{one}={value!r}: {kind}: {sentence}"
        assert not prompt_id or (sentence.isprintable() and len(sentence) < 600), sentence
    if given.get("file") not in ABSENT:
        server.queue(with_node(prompt, name, given))


def test_every_node_is_tried(server: ComfyServer) -> None:
    ours = {name for name, node in server.object_info().items() if node["category"].startswith("Erasure/")}
    assert ours - {"ErasureLoadToy"} == set(RUNS)  # which has no inputs
