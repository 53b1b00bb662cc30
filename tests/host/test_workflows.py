"""The workflows, as a user runs them on the embedded model: pictures are judged."""

from __future__ import annotations

import json
import urllib.parse
from io import BytesIO
from typing import Any

import graphs
import make_workflows
import numpy as np
import pytest
import torch
from comfy_server import PACK, ComfyServer
from PIL import Image

from erasure_core.toy import Judge
from erasure_core.toy.judge import Verdict

pytestmark = pytest.mark.toy
CAT, LION = "a cat in the style of noto on a blue background", "a lion in the style of noto on a green background"


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def api(server: ComfyServer, name: str) -> dict[str, Any]:
    return graphs.as_api(graphs.ui(name), server.object_info())


def shown(judge: Judge, pictures: list[Image.Image]) -> Verdict:
    arrays = np.stack([np.asarray(picture.convert("RGB"), np.float32) / 255 for picture in pictures])
    return judge.judge(torch.from_numpy(arrays).movedim(-1, 1))


def drawn(server: ComfyServer, name: str, replaced: str, **values: Any) -> tuple[list, list]:
    """The pictures before and after of a template whose comparison is replaced by KSampler, four each.

    ``replaced`` is the prompt; the sheet of the comparison itself is read by people.
    """
    prompt = api(server, name)
    (compare,) = [key for key, node in prompt.items() if node["class_type"] == "ErasureCompare"]
    inputs = prompt.pop(compare)["inputs"]
    prompt = {key: node for key, node in prompt.items() if [compare, 0] not in node["inputs"].values()}
    names = ("seed", "steps", "cfg", "sampler_name", "scheduler")
    sampling = {one: inputs[one] for one in names} | {"denoise": 1.0} | values
    prompt[inputs["latent"][0]]["inputs"]["amount"] = 4
    for column, (model, clip) in enumerate((("model", "clip"), ("model_1", "clip_1"))):
        clip_link = inputs.get(clip, inputs["clip"])
        for key, words in (("positive", replaced), ("negative", inputs["negative"])):
            prompt[f"{column}-{key}"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": clip_link, "text": words}}
        links = {"model": inputs[model], "latent_image": inputs["latent"]}
        links |= {key: [f"{column}-{key}", 0] for key in ("positive", "negative")}
        prompt[f"{column}-sample"] = {"class_type": "KSampler", "inputs": sampling | links}
        decoding = {"samples": [f"{column}-sample", 0], "vae": inputs["vae"]}
        prompt[f"{column}-decode"] = {"class_type": "VAEDecode", "inputs": decoding}
        images = {"images": [f"{column}-decode", 0]}
        prompt[f"{column}-picture"] = {"class_type": "PreviewImage", "inputs": images}
    entry = server.queue(prompt, timeout=1800)
    before, after = (server.images(entry, f"{column}-picture") for column in (0, 1))
    return before, after


@pytest.mark.parametrize(
    ("name", "dogs"),
    [
        ("01 Erase an object", 3),
        ("06 Erase from a fast model at CFG 1", 2),
        ("07 Learn to forget with few-shot", 0),
        pytest.param("08 Learn to forget with DoCo", 1, marks=pytest.mark.full),  # trains for minutes
        pytest.param("09 Learn to forget with AbO", 2, marks=pytest.mark.full),
    ],
)
def test_cats_are_forgotten_and_lions_stay(server: ComfyServer, judge: Judge, name: str, dogs: int) -> None:
    before, after = (shown(judge, pictures) for pictures in drawn(server, name, CAT))
    assert before.objects.count("cat") >= 3, before
    assert after.objects.count("cat") <= 1 and after.objects.count("dog") >= dogs, after
    lions = [shown(judge, pictures).objects.count("lion") for pictures in drawn(server, name, LION)]
    assert lions[1] >= lions[0] - 1, lions


def test_a_style_is_forgotten(server: ComfyServer, judge: Judge) -> None:
    before, after = (shown(judge, pictures) for pictures in drawn(server, "02 Erase a style", CAT))
    assert before.styles.count("noto") >= 3, before
    assert after.styles.count("noto") <= 1 and after.objects.count("cat") >= 3, after


def test_many_are_forgotten(server: ComfyServer, judge: Judge) -> None:
    before, after = (shown(judge, pictures) for pictures in drawn(server, "05 Erase many concepts", CAT))
    assert before.objects.count("cat") >= 3 and after.objects.count("cat") <= 1, (before, after)
    lions = [shown(judge, pictures).objects.count("lion") for pictures in drawn(server, "05 Erase many concepts", LION)]
    assert lions[1] >= lions[0] - 1, lions


def test_pictures_lose_a_cat(server: ComfyServer, judge: Judge) -> None:
    prompt = api(server, "10 Take it out of a picture")
    entry = server.queue(prompt, timeout=900)
    previews = [key for key, node in prompt.items() if node["class_type"] == "PreviewImage"]
    purified = [key for key in previews if prompt[prompt[key]["inputs"]["images"][0]]["class_type"] == "ErasurePurify"]
    before, after = (
        shown(judge, server.images(entry, key)) for key in (*sorted(set(previews) - set(purified)), *purified)
    )
    assert before.objects.count("cat") >= 3, before
    assert after.objects.count("cat") <= 1 and after.objects.count("dog") >= 3, after


def test_an_erasure_is_checked(server: ComfyServer) -> None:
    """Two pictures and two verdicts are shown."""
    prompt = api(server, "11 Check an erasure")
    for node in prompt.values():
        if node["class_type"] == "ErasureRedTeam":
            node["inputs"] |= {"steps": 4, "pictures": 2}
    entry = server.queue(prompt, timeout=900)
    kinds = {key: node["class_type"] for key, node in prompt.items()}
    pictures = [server.images(entry, key)[0] for key in kinds if kinds[key] == "PreviewImage"]
    assert len(pictures) == 2 and all(picture.width > 300 for picture in pictures)
    verdicts = [entry["outputs"][key]["text"][0] for key in kinds if kinds[key] == "PreviewAny"]
    assert len(verdicts) == 2 and all("cat" in verdict for verdict in verdicts)


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_ui_format(server: ComfyServer, name: str) -> None:
    graph, known = graphs.ui(name), server.object_info()
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert graph["version"] == 0.4
    assert graph["last_node_id"] == max(nodes) and len(nodes) == len(graph["nodes"])
    (words,) = [node["widgets_values"][0] for node in nodes.values() if node["type"] in graphs.NOTES]
    assert len(words) > 100 and "`" not in words
    for link, source, slot, target, socket, of_type in graph["links"]:
        output, given = nodes[source]["outputs"][slot], nodes[target]["inputs"][socket]
        assert link in output["links"] and given["link"] == link
        assert known[nodes[source]["type"]]["output"][slot] == output["type"] == of_type
        assert given["type"] in (of_type, "*")
    linked = sum(len(output.get("links") or ()) for node in nodes.values() for output in node["outputs"])
    assert linked == len(graph["links"]) == graph["last_link_id"]
    for node in nodes.values():
        if node["type"] not in graphs.NOTES:
            own = node["type"].startswith("Erasure")
            assert node["properties"]["cnr_id"] == (PACK if own else "comfy-core") and node["properties"]["ver"]
        if "Loader" in node["type"]:
            assert all({"name", "url", "directory"} == set(one) for one in node["properties"]["models"]), node["type"]


def test_they_are_what_the_tool_writes(server: ComfyServer) -> None:
    """With the defaults of the pack's nodes as they are; those of stock nodes differ between versions of ComfyUI."""

    def own(graph: dict[str, Any]) -> list[tuple]:
        return [
            (node["type"], node["pos"], node["size"], node["widgets_values"])
            for node in graph["nodes"]
            if node["type"].startswith("Erasure")
        ]

    for name, written in make_workflows.workflows(server.object_info()).items():
        assert own(graphs.ui(name)) == own(json.loads(json.dumps(written))), name


def test_the_template_browser_lists_them(server: ComfyServer) -> None:
    assert set(json.loads(server.request("/api/workflow_templates"))[PACK]) >= set(graphs.TEMPLATES)
    for name in graphs.TEMPLATES:
        served = json.loads(server.request(f"/api/workflow_templates/{PACK}/{urllib.parse.quote(name)}.json"))
        assert served == graphs.ui(name)


@pytest.mark.parametrize("name", graphs.TEMPLATES)
def test_it_has_a_thumbnail(server: ComfyServer, name: str) -> None:
    """Where ComfyUI's frontend looks for it; ``tools/make_thumbnails.py`` draws it."""
    thumbnail = Image.open(BytesIO(server.request(f"/api/workflow_templates/{PACK}/{urllib.parse.quote(name)}.jpg")))
    assert thumbnail.format == "JPEG" and thumbnail.width == thumbnail.height >= 256
