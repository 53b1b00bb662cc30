"""What a reader of the code meets: its rooms, the imports between them, and the way of a MODEL through the RECE node.

``python tools/rooms.py [FOLDER]`` prints the numbers of docs/architecture.md for this checkout, or for another one.
The node runs on the stand-in for ComfyUI in ``tests/stand_in``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, ModuleType

PACK = "pack"
NUMBERS = {"loops": 1, "regularization": 1e-3}  # the node reads them, the preset decides
TOPS = ("erasure_core", "nodes")
Rooms = Mapping[str, set[str]]


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    files = modules(root)
    between = rooms_imported(files)
    print(f"{len(files)} modules in {len(between)} rooms")
    print(f"{sum(map(len, between.values()))} imports between rooms")
    circles = [circle for circle in circles_of(between) if len(circle) > 1]
    upward = sum(least_upward(between, circle) for circle in circles)
    print(
        f"{upward} upward at least, {len(circles)} circles {'; '.join(', '.join(sorted(c)) for c in circles)}".rstrip()
    )
    way = way_of_a_model(root, files)
    floors = floors_of(between)
    climbs = sum(floors[after] > floors[before] for before, after in itertools.pairwise(way))
    print(f"the RECE node: {len(set(way))} rooms in {len(way)} stays with {climbs} climbs")
    print(" > ".join(way))


def modules(root: Path) -> dict[str, Path]:
    """Every module of the pack by its dotted name."""
    files = [path for top in TOPS for path in sorted((root / top).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def room_of(name: str) -> str:
    """The folder or single module below ``erasure_core``; of the nodes, those that know ComfyUI's internals apart."""
    top, inner, *_ = [*name.split("."), "", ""]
    if top == "nodes":
        return "comfy_host" if inner == "comfy_host" or inner.partition("_")[0] == "host" else top
    return inner or top


def imports_of(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the pack that a module imports, inside its functions too."""
    parents = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
    for node in relative_imports(path):
        base = ".".join([*parents[: len(parents) + 1 - node.level], *filter(None, [node.module])])
        yield from (inner if (inner := f"{base}.{alias.name}") in known else base for alias in node.names)


@functools.cache
def relative_imports(path: Path) -> list[ast.ImportFrom]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


def rooms_imported(files: Mapping[str, Path]) -> Rooms:
    """For each room the others that it imports; the facade, which may import all, is left out."""
    found: dict[str, set[str]] = {room_of(name): set() for name in files}
    for name, path in files.items():
        found[room_of(name)] |= {room_of(one) for one in imports_of(name, path, files) if one in files}
    for facade in ("erasure_core", "__main__"):
        found.pop(facade, None)
    return {room: others & found.keys() - {room} for room, others in found.items()}


def reachable(between: Rooms, room: str) -> set[str]:
    met, ahead = set(), list(between[room])
    while ahead:
        one = ahead.pop()
        if one not in met:
            met.add(one)
            ahead += between[one]
    return met


def circles_of(between: Rooms) -> list[set[str]]:
    """Rooms that import each other, however far around, belong to one circle; most are one room alone."""
    reach = {room: reachable(between, room) for room in between}
    found: list[set[str]] = []
    for room in between:
        if not any(room in circle for circle in found):
            found.append({room, *(one for one in reach[room] if room in reach[one])})
    return found


def least_upward(between: Rooms, circle: set[str]) -> int:
    """The fewest imports that run upward, in whatever order the rooms of a circle stand."""
    orders = itertools.permutations(sorted(circle))
    return min(
        sum(other in between[room] for place, room in enumerate(order) for other in order[place + 1 :])
        for order in orders
    )


def floors_of(between: Rooms) -> dict[str, int]:
    """How many imports, one below the other, lie beneath each room; the rooms of a circle share a floor."""
    circles = circles_of(between)
    circle_of = {room: number for number, circle in enumerate(circles) for room in circle}
    floors: dict[int, int] = {}

    def floor(number: int) -> int:
        if number not in floors:
            below = {circle_of[other] for room in circles[number] for other in between[room]} - {number}
            floors[number] = 1 + max((floor(one) for one in below), default=-1)
        return floors[number]

    return {room: floor(number) for room, number in circle_of.items()}


def way_of_a_model(root: Path, files: Mapping[str, Path]) -> list[str]:
    """The rooms of the functions that get a MODEL or what was read from it, in the order of their first calls."""
    node, model, clip = stage(root)
    from torch import Tensor

    kinds = (type(model), type(clip), Tensor)
    rooms = {str(path): room_of(name) for name, path in files.items()}
    met: dict[object, str] = {}

    def profile(frame: FrameType, event: str, _) -> None:
        room = rooms.get(frame.f_code.co_filename)
        if event == "call" and room and frame.f_code not in met and holds(dict(frame.f_locals), kinds):
            met[frame.f_code] = room

    sys.setprofile(profile)
    try:
        node.execute(model, clip, "cat -> horses", "", False, "object", 1.0, **NUMBERS)
    finally:
        sys.setprofile(None)
    return [room for room, _ in itertools.groupby(met.values())]


def holds(value: object, kinds: tuple[type, ...], depth: int = 4) -> bool:
    """Whether one of ``kinds`` is among a function's arguments, or in an object or list that is."""
    if isinstance(value, kinds):
        return True
    inner = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    parts = [*inner.values(), *(value if isinstance(value, list | tuple) else ())]
    return depth > 0 and not isinstance(value, type) and any(holds(part, kinds, depth - 1) for part in parts)


def stage(root: Path) -> tuple:
    """The RECE node of a checkout, with a MODEL of one pair of keys and values and its CLIP."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "stand_in"))
    for name in (PACK, f"{PACK}.nodes"):  # without their __init__, which imports every node
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    import torch
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("to_k", "to_v")})
    names = {f"down_blocks.0.attn2.{name}.weight": f"{name}.weight" for name in layers}
    model, clip = ModelPatcher(BaseModel(layers, names)), CLIP(torch.nn.Module())
    return importlib.import_module(f"{PACK}.nodes.rece").ErasureRECE, model, clip


if __name__ == "__main__":
    main()
