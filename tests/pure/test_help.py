"""The nodes' help pages: what they say of inputs is what the nodes have, and each has an example and its limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from pure.whole_pack import comfyui, load

ROOT = Path(__file__).resolve().parents[2]
HELP = ROOT / "web" / "docs"
WIDGETS = {"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"}
MOST_BYTES = 120_000  # of a picture


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict:
    with comfyui(tmp_path_factory.mktemp("comfyui")):
        return {node.__name__: node.define_schema() for node in load(ROOT)}


def test_every_node_has_a_page_and_every_page_a_node(schemas: dict) -> None:
    assert {path.stem for path in HELP.glob("*.md")} == set(schemas)


def test_pages_name_the_inputs_that_there_are(schemas: dict) -> None:
    inputs = {name: [one.id for one in getattr(schema, "inputs", ())] for name, schema in schemas.items()}
    outputs = [getattr(one, "display_name", "") for schema in schemas.values() for one in schema.outputs]
    known = {*outputs, *(one for ids in inputs.values() for one in ids)}
    known |= {"strength_model", "strength_clip"}  # of the stock Load LoRA
    for name, schema in schemas.items():
        page = (HELP / f"{name}.md").read_text(encoding="utf-8")
        bold = set(re.findall(r"\*\*([^*]+)\*\*", page))
        assert bold <= known, name
        widgets = {one.id for one in getattr(schema, "inputs", ()) if one.io_type in WIDGETS}
        assert widgets <= bold, name


@pytest.mark.parametrize("path", sorted(HELP.glob("*.md")), ids=lambda path: path.stem)
def test_a_page_has_an_example_and_limits(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page.index("\n## Example\n") < page.index("\n## Limits\n")
    for _, picture in re.findall(r"!\[([^]]+)\]\(([^)]+)\)", page):
        assert "/" not in picture, "the frontend looks in this folder only"
    assert re.findall(r"(?<!!)\[[^]]+\]\((?!https://)[^)]*", page) == [], "ComfyUI shows pages without their folder"


def test_pictures_are_small_and_used() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in HELP.glob("*.md"))
    for path in HELP.glob("*.jpg"):
        assert f"]({path.name})" in pages and path.stat().st_size < MOST_BYTES
        assert Image.open(path).width <= 900
