"""Run the workflows in a real ComfyUI and write each one's thumbnail, before and after side by side.

    python tools/make_thumbnails.py [NAME ...]

All pictures are drawn by the embedded model, those of ``erase-from-your-checkpoint`` too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from get_comfyui import ROOT, comfyui
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(ROOT / "tests" / "host"))

import graphs  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402

BEFORE, AFTER = "9", "12"
WHOLE = {"audit-an-erasure": "10"}  # workflows whose thumbnail is one picture of theirs
INSTEAD_OF_A_CHECKPOINT = {
    "3": {"text": "a rose in the style of twemoji on a green background"},
    "5": {"width": 64, "height": 64, "batch_size": 4},
    "6": {"concepts": "rose", "preserve": "", "preset": "object"},
    "7": {"cfg": 3.0},
    "10": {"cfg": 3.0},
}
SIDE, COLUMNS, ROWS = 128, 2, 2
GAP, CAPTION, TEXT = 12, 34, 20  # pixels
PAPER, INK = (255, 255, 255), (20, 20, 20)


def on_the_toy(prompt: dict[str, Any]) -> dict[str, Any]:
    """A graph that loads a checkpoint, on the embedded model and without saving; others as they are."""
    if prompt["2"]["class_type"] == "CheckpointLoaderSimple":
        prompt["2"] = {"class_type": "ErasureLoadToy", "inputs": {}}
        del prompt["13"]
        for node, inputs in INSTEAD_OF_A_CHECKPOINT.items():
            prompt[node]["inputs"] |= inputs
    return prompt


def grid(pictures: list[Image.Image], caption: str) -> Image.Image:
    """The first pictures in rows, under a caption."""
    step = SIDE + GAP
    page = Image.new("RGB", (COLUMNS * step, CAPTION + ROWS * step), PAPER)
    ImageDraw.Draw(page).text((0, 4), caption, INK, ImageFont.load_default(size=TEXT))
    for place, picture in enumerate(pictures[: COLUMNS * ROWS]):
        row, column = divmod(place, COLUMNS)
        enlarged = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        page.paste(enlarged, (column * step, CAPTION + row * step))
    return page


def thumbnail(before: list[Image.Image], after: list[Image.Image], concept: str) -> Image.Image:
    """Both grids side by side."""
    left, right = grid(before, "before"), grid(after, f"erased: {concept}")
    sheet = Image.new("RGB", (2 * GAP + left.width + right.width, GAP + left.height), PAPER)
    sheet.paste(left, (GAP, GAP))
    sheet.paste(right, (2 * GAP + left.width, GAP))
    return sheet


def top(sheet: Image.Image) -> Image.Image:
    """The upper part of a sheet, as wide as the other thumbnails."""
    width = 2 * COLUMNS * (SIDE + GAP) + 2 * GAP
    height = CAPTION + ROWS * (SIDE + GAP) + GAP
    shrunk = sheet.convert("RGB").resize((width, round(sheet.height * width / sheet.width)), Image.Resampling.LANCZOS)
    return shrunk.crop((0, 0, width, min(height, shrunk.height)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ComfyServer(comfyui(), Path(folder)) as server:
        for name in sys.argv[1:] or graphs.NAMES:
            prompt = on_the_toy(graphs.api(name))
            entry = server.queue(prompt)
            target = ROOT / "workflows" / f"{name}.jpg"
            if name in WHOLE:
                top(server.images(entry, WHOLE[name])[0]).save(target, quality=90)
            else:
                before, after = (server.images(entry, node) for node in (BEFORE, AFTER))
                inputs = prompt["6"]["inputs"]
                thumbnail(before, after, inputs.get("concepts") or inputs["concept"]).save(target, quality=90)
            print(target)


if __name__ == "__main__":
    main()
