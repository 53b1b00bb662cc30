"""The rooms of the package and their order: a module imports its own room and those below it, never one above."""

from __future__ import annotations

import re
from pathlib import Path

from rooms import imports_of, modules, rooms_imported

ROOT = Path(__file__).parents[2]
ROOMS = (
    "quoting", "conditioning", "devices", "workers", "model", "progress", "arguments", "limits", "families", "files",
    "concepts", "text_layers", "erasures", "baking", "closed_form", "drawing", "sampling", "training", "methods",
    "diffusers",
    "toy", "audit", "commands", "eval_unlearn",
)  # fmt: skip
"""Of ``erasure_core``, from the lowest to the highest; a room is a folder or a single module."""
FACADE = ("__init__", "__main__")
"""They stand above all rooms: what users import and what they run."""


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


ALL = modules(ROOT)
CORE = {name: path for name, path in ALL.items() if name.startswith("erasure_core")}


def test_every_module_has_a_room() -> None:
    assert {room(name) for name in CORE} == {*ROOMS, *FACADE}


def test_imports_lead_down() -> None:
    upward = []
    for name in [name for name in CORE if room(name) not in FACADE]:
        below = ROOMS[: ROOMS.index(room(name)) + 1]
        upward += [(name, one) for one in imports_of(name, CORE[name], CORE) if room(one) not in below]
    assert upward == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Also within a room; what is imported inside a function counts."""
    ahead = {name: set(imports_of(name, path, CORE)) for name, path in CORE.items() if room(name) not in FACADE}
    while free := [name for name in ahead if not ahead[name] & ahead.keys() - {name}]:
        for name in free:
            del ahead[name]
    assert sorted(ahead) == []


def test_the_core_knows_no_node() -> None:
    nodes = {name: path for name, path in ALL.items() if name not in CORE}
    met = {one for name, path in nodes.items() for one in imports_of(name, path, ALL)}
    assert met & CORE.keys(), "nodes are made of the core"
    assert not [one for name, path in CORE.items() for one in imports_of(name, path, ALL) if one in nodes]
    below = [name for name in nodes if name.startswith("nodes.comfy_host")]
    above = set(nodes) - set(below)
    assert not [(name, one) for name in below for one in imports_of(name, nodes[name], nodes) if one in above]


def test_the_page_has_the_rooms_in_their_order() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w/]+)` \|", page.partition("## The way")[0], re.MULTILINE)
    assert named == ["nodes", "nodes/comfy_host", *reversed(ROOMS)]


def test_every_arrow_of_the_picture_is_an_import() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    between = rooms_imported(ALL)
    arrows = re.findall(r'^    (\w+)(?:\["[^"]*"\])? --> (\w+)', page, re.MULTILINE)
    assert len(arrows) > 15 and [(upper, lower) for upper, lower in arrows if lower not in between[upper]] == []
