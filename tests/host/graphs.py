"""Workflows as files: the API format to queue, and what the UI format would send."""

from __future__ import annotations

import json
from typing import Any

from comfy_server import ROOT

NAMES = (
    "erase-an-object", "erase-a-style", "erase-from-your-checkpoint", "learn-to-forget-few-shot",
    "learn-to-forget-doco", "learn-to-forget-abo", "purify-pictures", "audit-an-erasure",
)  # fmt: skip
NOTES = {"Note", "MarkdownNote"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def api(name: str) -> dict[str, Any]:
    """The API-format twin of a workflow."""
    return json.loads((ROOT / "tests" / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def earlier(name: str) -> dict[str, Any]:
    """A workflow as earlier versions shipped it, which users have saved; its twin is ``api(name)``."""
    return json.loads((ROOT / "tests" / "workflows" / "earlier" / f"{name}.json").read_text(encoding="utf-8"))


TEMPLATES = tuple(sorted(path.stem for path in (ROOT / "workflows").glob("*.json")))


def ui(name: str) -> dict[str, Any]:
    """A workflow as the user gets it."""
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def without_titles(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node: {key: value for key, value in body.items() if key != "_meta"} for node, body in prompt.items()}


def as_api(graph: dict[str, Any], nodes: dict[str, Any]) -> dict[str, Any]:
    """What ComfyUI's frontend makes of a UI-format graph; ``nodes`` is what /object_info says."""
    sources = {link: [str(source), slot] for link, source, slot, *_ in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] not in NOTES:
            linked = {one["name"]: sources[one["link"]] for one in node["inputs"] if one["link"] is not None}
            names = widgets(nodes[node["type"]])
            later = names[len(node["widgets_values"]) :]  # inputs that came after the graph was saved
            assert set(later) <= set(nodes[node["type"]]["input"].get("optional", {})), "they have to be optional"
            values = zip(names, node["widgets_values"], strict=False)
            named = {name: value for name, value in values if name}
            prompt[str(node["id"])] = {"class_type": node["type"], "inputs": named | linked}
    return prompt


def widgets(info: dict[str, Any]) -> list[str | None]:
    """The inputs that are widgets, in their order on the node; None is the button that follows a seed."""
    names: list[str | None] = []
    for kind in ("required", "optional"):
        for name, (of_type, *options) in info["input"].get(kind, {}).items():
            if isinstance(of_type, list) or of_type in WIDGETS:
                seed = options and options[0].get("control_after_generate")
                names += [name, None] if seed else [name]
    return names
