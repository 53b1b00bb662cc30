"""The nodes in a running ComfyUI: what they say of themselves, and of what they did."""

from __future__ import annotations

from typing import Any

import graphs
import numpy as np
import pytest
from comfy_server import PACK, ComfyServer
from rece_prompt import AFTER, BEFORE, RECE, pixels

NODES = (
    "ErasureRECE", "ErasureFewShot", "ErasureDoCo", "ErasureAbO", "ErasureApply", "ErasureCombine", "ErasureSave",
    "ErasureLoad", "ErasureBake", "ErasurePurify", "ErasureCompare", "ErasureReport", "ErasureRedTeam",
    "ErasureSuggestNames", "ErasureLoadConcepts", "ErasureRestore", "ErasureSaveStatistics", "ErasureLoadStatistics",
    "ErasureLoadToy",
)  # fmt: skip


def test_the_toy_brings_a_latent_of_its_size(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt["5"]["inputs"]["batch_size"] = 1
    prompt["10"]["inputs"] |= {"model": ["2", 0], "latent_image": ["2", 3]}
    entry = server.queue(prompt)
    wanted, drawn = pixels(server, entry, BEFORE), pixels(server, entry, AFTER)
    assert drawn.shape == (1, 64, 64, 3)
    assert np.array_equal(wanted, drawn)


def test_every_socket_explains_itself(server: ComfyServer) -> None:
    known = server.object_info()
    for name in NODES:
        node = known[name]
        assert node["category"].startswith("Erasure/") and node["description"] and node["display_name"] != name
        assert "Eras" in node["display_name"], "a name says whose node it is, where a host shows no badge"
        for kind in ("required", "optional"):
            for socket, (_, *options) in node["input"].get(kind, {}).items():
                assert options and options[0].get("tooltip"), f"{name}.{socket}"
        if node["output"]:
            assert len(node["output_tooltips"]) == len(node["output"]) and all(node["output_tooltips"]), name


def test_newer_hosts_find_nodes_by_other_words_and_hide_numbers(server: ComfyServer) -> None:
    known = server.object_info()
    rece = known["ErasureRECE"]["input"]["required"]
    assert rece["ridge"][1]["advanced"] and "advanced" not in rece["preset"][1]
    assert rece["preset"][1]["presets"]["general"]["amplification"] == 1.8
    if "search_aliases" in known["KSampler"]:
        assert {"forget", "unlearn", "negative", "UCE"} <= set(known["ErasureRECE"]["search_aliases"])
        assert all("concept erasure" in known[name]["search_aliases"] for name in NODES)


def test_nodes_say_what_they_did(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt[RECE]["inputs"] |= {"concepts": "cat -> dog", "preserve": "lion", "preset": "general", "strength": 0.9}
    prompt["30"] = {"class_type": "ErasureSave", "inputs": {"erasure": [RECE, 2], "filename_prefix": "said"}}
    outputs = server.queue(prompt)["outputs"]
    assert outputs[RECE]["text"] == ["Erased with preset 'general', at strength 0.9: cat -> dog. 1 prompt preserved."]
    assert outputs["30"]["saved"] == [True] and "said_00001_" in outputs["30"]["text"][0]


@pytest.mark.parametrize("name", graphs.NAMES)
def test_graphs_of_earlier_versions_load(server: ComfyServer, name: str) -> None:
    """Each value of a widget still belongs to the same input, and the host takes it."""
    prompt = graphs.as_api(graphs.earlier(name), server.object_info())
    assert prompt == graphs.without_titles(graphs.api(name))
    if any(node["class_type"] == "CheckpointLoaderSimple" for node in prompt.values()):
        return  # which fails without its file
    started = server.submit(prompt)
    server.request("/queue", {"delete": [started]})
    server.cancel_all()


@pytest.mark.parametrize("name", NODES)
def test_help_page(server: ComfyServer, name: str) -> None:
    page = server.request(f"/extensions/{PACK}/docs/{name}.md").decode()
    node = server.object_info()[name]
    assert page.startswith(f"# {node['display_name']}\n")
    for socket, (of_type, *_) in node["input"].get("required", {}).items():
        if isinstance(of_type, list) or of_type in graphs.WIDGETS:
            assert f"**{socket}**" in page or socket == "file", socket


def test_warnings_are_shown_at_the_node(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt[RECE]["inputs"]["concepts"] = "cat, dog"
    first, warning = server.queue(prompt)["outputs"][RECE]["text"]
    assert first == "Erased with preset 'object': cat, dog."
    assert warning.startswith("Warning: ") and "'cat, dog'" in warning


def test_words_that_the_toy_does_not_know_are_warned_of_at_the_node(
    server: ComfyServer, prompt: dict[str, Any]
) -> None:
    prompt[RECE]["inputs"]["concepts"] = "kat"
    _, warning = server.queue(prompt)["outputs"][RECE]["text"]
    assert warning.startswith("Warning: the model has not learned 'kat' (did you mean 'cat'?); ")
