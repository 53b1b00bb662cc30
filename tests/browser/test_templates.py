"""The templates in the browser, as a user opens and runs them."""

from __future__ import annotations

import json
import urllib.parse

import graphs
import pytest
from comfy_page import ComfyPage, extent, overlaps, picture_of
from comfy_server import PACK

FIRST = "01 Erase an object"
WIDEST, TALLEST = 1700, 1150  # pixels; larger graphs open so small that the classic renderer draws no text


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_a_template_opens_whole(comfy: ComfyPage, name: str) -> None:
    path = urllib.parse.quote(f"/api/workflow_templates/{PACK}/{name}.json")
    comfy.load(json.loads(comfy.server.request(path)), name)
    comfy.fit()
    comfy.shot(name)
    nodes = comfy.boxes()
    assert comfy.missing() == [] and len(nodes) == len(graphs.ui(name)["nodes"])
    assert overlaps(nodes, comfy.groups()) == []
    width, height = extent(nodes)
    assert width <= WIDEST and height <= TALLEST


def test_the_first_is_run_and_its_file_is_listed(comfy: ComfyPage) -> None:
    """Its picture is seen, nodes say what they did, nothing covers anything then, and Load LoRA offers the file."""
    comfy.server.free()  # newer hosts do not repeat what a node said whose result is cached
    comfy.load(graphs.ui(FIRST), FIRST)
    comfy.add("LoraLoader")
    before = set(files(comfy))
    comfy.run()
    comfy.wait(picture_of("PreviewImage"))
    comfy.says("Erased with preset 'general': cat -> dog.")
    comfy.says("As a LoRA ComfyUI's Load LoRA, A1111, Forge and diffusers read it")
    comfy.wait("(count) => " + LISTED + ".length > count", len(before))
    (new,) = set(files(comfy)) - before
    assert new.startswith("erasure") and "cat-to-dog_" in new
    comfy.remove("LoraLoader")
    comfy.fit()
    comfy.page.wait_for_timeout(2000)
    comfy.shot(f"{FIRST} - run")
    assert overlaps(comfy.boxes(), comfy.groups()) == []


LISTED = "app.graph._nodes.find((node) => node.type === 'LoraLoader').widgets[0].options.values"


def files(comfy: ComfyPage) -> list[str]:
    return comfy.page.evaluate(f"() => [...{LISTED}]")
