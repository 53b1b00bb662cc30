"""The templates in the browser, as a user opens and runs them."""

from __future__ import annotations

import json
import urllib.parse

import graphs
import pytest
from comfy_page import ComfyPage, extent, overlaps, picture_of
from comfy_server import PACK

FIRST, MANY = "01 Erase an object", "05 Erase many concepts"
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
    before = set(files(comfy, "LoraLoader"))
    comfy.run()
    comfy.wait(picture_of("PreviewImage"))
    comfy.says("Erased with preset 'general': cat -> dog.")
    comfy.says("As a LoRA ComfyUI's Load LoRA, A1111, Forge and diffusers read it")
    comfy.wait(f"(count) => {LISTED % 'LoraLoader'}.length > count", len(before))
    (new,) = set(files(comfy, "LoraLoader")) - before
    assert new.startswith("erasure") and "cat-to-dog_" in new
    comfy.remove("LoraLoader")
    comfy.fit()
    comfy.page.wait_for_timeout(2000)
    comfy.shot(f"{FIRST} - run")
    assert overlaps(comfy.boxes(), comfy.groups()) == []


def test_saved_statistics_are_listed(comfy: ComfyPage) -> None:
    """Without a press of R, and the node says where the file is."""
    comfy.server.free()
    comfy.load(graphs.ui(MANY), MANY)
    comfy.add("ErasureLoadStatistics")
    before = set(files(comfy, "ErasureLoadStatistics"))
    comfy.run()
    comfy.says("Erased with preset 'several': ")
    comfy.says("twelve-things_")
    comfy.wait(f"(count) => {LISTED % 'ErasureLoadStatistics'}.length > count", len(before))
    (new,) = set(files(comfy, "ErasureLoadStatistics")) - before
    assert new.startswith("twelve-things_")
    comfy.remove("ErasureLoadStatistics")
    comfy.fit()
    comfy.shot(f"{MANY} - run")
    assert overlaps(comfy.boxes(), comfy.groups()) == []


LISTED = "app.graph._nodes.find((node) => node.type === '%s').widgets[0].options.values"


def files(comfy: ComfyPage, loader: str) -> list[str]:
    """The files that a loader's list offers."""
    return comfy.page.evaluate(f"() => [...{LISTED % loader}]")
