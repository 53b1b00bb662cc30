"""The harness itself, and that the pack loads in it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK, ComfyServer, PromptError, server_environment
from test_nodes import NODES

STOCK = {"CheckpointLoaderSimple", "CLIPTextEncode", "KSampler", "LoraLoader", "SaveImage", "VAEDecode"}


def red_picture(width: int = 8, prefix: str = "red") -> dict:
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": width, "height": 16, "batch_size": 1, "color": 0xFF0000},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def test_stock_nodes_are_there(server: ComfyServer) -> None:
    assert server.object_info().keys() >= STOCK


def test_a_prompt_gives_its_picture(server: ComfyServer) -> None:
    (picture,) = server.images(server.queue(red_picture()), "2")
    assert picture.size == (8, 16)
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    server.free()


def test_an_invalid_prompt_names_node_and_input(server: ComfyServer) -> None:
    with pytest.raises(PromptError, match=r"node 1 \(EmptyImage\).*width") as refused:
        server.queue(red_picture(width=-1))
    assert refused.value.node_errors.keys() == {"1"}


def test_a_failing_node_is_quoted(server: ComfyServer) -> None:
    with pytest.raises(PromptError, match=r"node 2 \(SaveImage\) failed.*outside the output folder"):
        server.queue(red_picture(prefix="../elsewhere"))


def test_an_interrupted_prompt_says_so(server: ComfyServer) -> None:
    prompt = red_picture(width=2048)
    prompt["1"]["inputs"]["height"] = 2048
    for link in range(10, 30):
        source = "1" if link == 10 else str(link - 1)
        inputs = {"image": [source, 0], "blur_radius": 15, "sigma": 5.0}
        prompt[str(link)] = {"class_type": "ImageBlur", "inputs": inputs}
    prompt["2"]["inputs"]["images"] = ["29", 0]
    started = server.submit(prompt)
    server.wait_until_running(started)
    server.interrupt()
    events = [event for event, _ in server.wait(started)["status"]["messages"]]
    assert "execution_interrupted" in events


def test_a_server_that_dies_quotes_its_log(comfy_path: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unrecognized arguments: --nonsense"):
        ComfyServer(comfy_path, tmp_path, "--nonsense").__enter__()


def test_the_pack_is_not_importable_outside_custom_nodes(tmp_path: Path) -> None:
    tried = subprocess.run(
        [sys.executable, "-c", "import erasure_core"],
        env=server_environment(), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "ModuleNotFoundError: No module named 'erasure_core'" in tried.stderr


def test_the_pack_loads(server: ComfyServer) -> None:
    complaints = [
        line
        for line in server.log().splitlines()
        if PACK in line and ("IMPORT FAILED" in line or "Cannot import" in line)
    ]
    assert not complaints, server.log()
    assert server.object_info().keys() >= set(NODES)


def test_the_page_asks_the_pack(server: ComfyServer) -> None:
    def asked(question: str, **members: object) -> Any:
        return json.loads(server.request(f"/api/concept_erasure/{question}", members))

    first = asked("completions", before="van g", after=" -> art", listing=True)[0]
    assert first == {"name": "Van Gogh", "note": "artist", "before": "Van Gogh", "after": " -> art"}
    said = asked("announcement", values={"concepts": "cat\nfox", "preserve": "lion"}, linked=["model"])
    assert said == {"text": "Erases 2 concepts without a replacement, preserves 1 prompt.", "wrong": False}
    for question, members, sentence in (
        ("completions", {}, "missing a required argument: 'before'"),
        ("announcement", {"values": {}, "linked": []}, "values names neither concepts nor concept"),
    ):
        with pytest.raises(urllib.error.HTTPError, match="400") as refusal:
            asked(question, **members)
        assert sentence in json.load(refusal.value)["error"]
