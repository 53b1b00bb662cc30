"""The rooms of the package and their order: a module imports its own room and those below it, never one above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (
    "quoting", "model", "arguments", "devices", "files", "concepts", "text_layers", "erasures", "closed_form",
    "drawing", "sampling", "training", "methods", "diffusers", "toy", "audit", "commands", "eval_unlearn",
)  # fmt: skip
"""Of ``erasure_core``, from the lowest to the highest; a room is a folder or a single module."""
FACADE = ("__init__", "__main__")
"""They stand above all rooms: what users import and what they run."""


def modules(top: str) -> dict[str, Path]:
    return {dotted(path): path for path in sorted((ROOT / top).rglob("*.py"))}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the project that a module imports, inside its functions too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.split(".")[: package.count(".") + 2 - node.level]
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in known else source


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


CORE = modules("erasure_core")


def test_every_module_has_a_room() -> None:
    assert {room(name) for name in CORE} == {*ROOMS, *FACADE}


def test_imports_lead_down() -> None:
    upward = []
    for name in [name for name in CORE if room(name) not in FACADE]:
        below = ROOMS[: ROOMS.index(room(name)) + 1]
        upward += [(name, one) for one in imported(name, CORE[name], CORE) if room(one) not in below]
    assert upward == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Also within a room; what is imported inside a function counts."""
    ahead = {name: set(imported(name, path, CORE)) for name, path in CORE.items() if room(name) not in FACADE}
    while free := [name for name in ahead if not ahead[name] & ahead.keys() - {name}]:
        for name in free:
            del ahead[name]
    assert sorted(ahead) == []


def test_the_core_knows_no_node() -> None:
    nodes = modules("nodes")
    found = {one for name, path in nodes.items() for one in imported(name, path, {**CORE, **nodes})}
    assert found & CORE.keys(), "nodes are made of the core"
    assert not [one for name, path in CORE.items() for one in imported(name, path, {**CORE, **nodes}) if one in nodes]
    below = [name for name in nodes if name.startswith("nodes.comfy_host")]
    above = set(nodes) - set(below)
    assert not [(name, one) for name in below for one in imported(name, nodes[name], nodes) if one in above]
