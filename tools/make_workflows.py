"""Write the workflows that ship, laid out in columns, from what a running ComfyUI says of its nodes.

    python tools/make_workflows.py

``workflow_templates`` says what is in each, ``workflow_notes.txt`` what its note says. Sizes have room for both of
ComfyUI's renderers, and for the texts that nodes show after a run. ``make_thumbnails`` draws the pictures.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from get_comfyui import ROOT, comfyui
from workflow_templates import TEMPLATES, Column, Node

sys.path.insert(0, str(ROOT / "tests" / "host"))

import graphs  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402

HERE = Path(__file__).parent
GAP, TITLE, PAD = 30, 34, 16  # pixels: between columns, of a node's title, between a group's frame and its nodes
BELOW = TITLE + 44  # from the end of a node to the start of the next
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PACK = {key: re.search(rf'^{key} = "(.*)"$', PROJECT, re.MULTILINE)[1] for key in ("name", "version")}
HOST = {"cnr_id": "comfy-core", "ver": "0.3.75"}
OWN = {"cnr_id": PACK["name"], "ver": PACK["version"]}
HEIGHTS = {
    "ErasureLoadToy": 170, "EmptyLatentImage": 122, "EmptySD3LatentImage": 122, "RepeatLatentBatch": 82,
    "CheckpointLoaderSimple": 108, "CLIPTextEncode": 140, "KSampler": 270, "VAEDecode": 58, "UNETLoader": 94,
    "DualCLIPLoader": 148, "VAELoader": 68, "PrimitiveStringMultiline": 230, "FluxGuidance": 70,
    "ConditioningZeroOut": 40, "PreviewAny": 170, "ErasureRECE": 690, "ErasureSave": 270,
    "ErasureSaveStatistics": 190, "ErasureBake": 260, "ErasureCompare": 680, "ErasureFewShot": 610,
    "ErasureDoCo": 540, "ErasureAbO": 600, "ErasurePurify": 250, "ErasureReport": 620, "ErasureRedTeam": 740,
}  # fmt: skip


def workflow(columns: tuple[Column, ...], words: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return a workflow in the format of ComfyUI's frontend."""
    placed = [(column, node) for column in columns for node in column.nodes]
    numbers = {node.key: number for number, (_, node) in enumerate(placed, start=1)}
    links: list[list[Any]] = []
    graph_nodes, groups, left = {}, [], 0
    for column in columns:
        top = 0
        for node in column.nodes:
            height = node.height or HEIGHTS[node.kind]
            graph_nodes[node.key] = _node(node, words, numbers, links, known, (left, top), (column.width, height))
            top += height + BELOW
        groups += [_group(title, colour, [graph_nodes[key] for key in keys]) for title, colour, keys in column.groups]
        left += column.width + GAP
    for link in links:
        number, source, slot, *_ = link
        output = graph_nodes[placed[source - 1][1].key]["outputs"][slot]
        output.setdefault("links", []).append(number)
        link[-1] = output["type"]  # the input's may be any
    return {
        "last_node_id": len(placed), "last_link_id": len(links), "nodes": list(graph_nodes.values()), "links": links,
        "groups": [{"id": number, **group} for number, group in enumerate(groups, start=1)], "config": {},
        "extra": {"ds": {"scale": 0.8, "offset": [60, 120]}}, "version": 0.4,
    }  # fmt: skip


def _node(node, words, numbers, links, known, place, size) -> dict[str, Any]:
    number = numbers[node.key]
    body: dict[str, Any] = {
        "id": number, "type": node.kind, "pos": list(place), "size": list(size), "flags": {}, "order": number - 1,
        "mode": 0, "inputs": [], "outputs": [],
    }  # fmt: skip
    if node.kind in graphs.NOTES:
        return body | {
            "properties": {},
            "widgets_values": [words],
            "title": "What this shows",
            "color": "#432",
        }
    info = known[node.kind]
    named = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    for socket, (of_type, *_) in named.items():
        widget = isinstance(of_type, list) or of_type in graphs.WIDGETS
        linked = node.links.get(socket)
        if widget and not linked:
            continue
        one: dict[str, Any] = {"name": socket, "type": of_type, "link": None}
        if linked:
            source, slot = linked
            one["link"] = len(links) + 1
            links.append([one["link"], numbers[source], slot, number, len(body["inputs"]), of_type])
        if widget:
            one["widget"] = {"name": socket}
        body["inputs"].append(one)
    outputs = zip(info["output_name"], info["output"], strict=True)
    body["outputs"] = [{"name": title, "type": of_type} for title, of_type in outputs]
    own = node.kind.startswith("Erasure")
    models = {"models": list(node.models)} if node.models else {}
    body["properties"] = {**(OWN if own else HOST), "Node name for S&R": node.kind, **models}
    body["widgets_values"] = _values(node, named, info)
    return body | ({"title": node.title} if node.title else {})


def _values(node: Node, named: dict[str, Any], info: dict[str, Any]) -> list[Any]:
    """Return the values of a node's widgets in their order; what the template does not say is the default."""
    values: list[Any] = []
    left = dict(node.values)
    for widget in graphs.widgets(info):
        if widget is None:
            values.append("fixed")
            continue
        of_type, *options = named[widget]
        more = options[0] if options else {}
        choices = of_type if isinstance(of_type, list) else more.get("options")
        default = more.get("default", next(iter(choices or ()), None))
        values.append(left.pop(widget, default))
    assert not left, f"{node.kind} has no {', '.join(left)}"
    return values


def _group(title: str, colour: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    left = min(node["pos"][0] for node in nodes) - PAD / 2
    top = min(node["pos"][1] for node in nodes) - TITLE - 30
    right = max(node["pos"][0] + node["size"][0] for node in nodes) + PAD / 2
    bottom = max(node["pos"][1] + node["size"][1] for node in nodes) + PAD / 2
    bounding = [left, top, right - left, bottom - top]
    return {"title": title, "bounding": bounding, "color": colour, "font_size": 22, "flags": {}}


def workflows(known: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all workflows by their titles; ``known`` is what a running ComfyUI says of its nodes."""
    text = (HERE / "workflow_notes.txt").read_text(encoding="utf-8")
    notes = dict(re.findall(r"^# (.+?)\n\n(.+?)(?=\n\n# |\n\Z)", text, re.M | re.S))
    return {name: workflow(columns, notes[name], known) for name, columns in TEMPLATES.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ComfyServer(comfyui(), Path(folder)) as server:
        known = server.object_info()
    for name, written in workflows(known).items():
        path = ROOT / "workflows" / f"{name}.json"
        path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
