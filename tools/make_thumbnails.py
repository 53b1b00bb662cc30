"""Run the workflows in a real ComfyUI and write each one's square thumbnail.

    python tools/make_thumbnails.py [NAME ...]

All pictures are drawn by the embedded model, for the workflows with a checkpoint of the user's by that of the first
workflow with other concepts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from get_comfyui import ROOT, comfyui
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(ROOT / "tests" / "host"))

import graphs  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402

SIDE, MARGIN, GAP, CAPTION, TEXT = 512, 16, 12, 52, 30  # pixels
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (120, 120, 120)
PICTURE, STEP, EDGE, BELOW = 128, 134, 16, 22  # of a comparison: a picture, to the next one, right of and below all
NOT_RUN = ("ErasureSave", "ErasureRedTeam")  # since no thumbnail shows what they do
CAPTIONS: Mapping[str, str] = {
    "01 Erase an object": "cat to dog, lion stays",
    "02 Erase a style": "one style to another",
    "03 Erase from your checkpoint": "your SD or SDXL",
    "04 Erase from a transformer": "Flux, SD 3 and others",
    "05 Erase many concepts": "12 at once, 2 stay",
    "06 Erase from a fast model at CFG 1": "works at CFG 1",
    "07 Learn to forget with few-shot": "few-shot: trained",
    "08 Learn to forget with DoCo": "DoCo: trained",
    "09 Learn to forget with AbO": "AbO: trained",
    "10 Take it out of a picture": "cat taken out",
    "11 Check an erasure": "measured, attacked",
    "12 Bake a checkpoint": "a file to hand out",
}
IN_PLACE_OF_THE_USERS: Mapping[str, dict[str, str]] = {
    "03 Erase from your checkpoint": {
        "concepts": "rose -> sunflower",
        "prompts": "a rose in the style of noto on a blue background\n"
        "a banana in the style of noto on a red background",
    },
    "04 Erase from a transformer": {
        "concepts": "owl -> penguin",
        "prompts": "an owl in the style of fluent on a yellow background\n"
        "a frog in the style of fluent on a purple background",
    },
    "12 Bake a checkpoint": {
        "concepts": "robot -> snowman",
        "prompts": "a robot in the style of twemoji on a blue background\n"
        "a pumpkin in the style of twemoji on a green background",
    },
}


def prompt_of(name: str, known: dict[str, Any]) -> dict[str, Any]:
    """The workflow as ComfyUI runs it, on the embedded model."""
    instead = IN_PLACE_OF_THE_USERS.get(name)
    prompt = graphs.as_api(graphs.ui("01 Erase an object" if instead else name), known)
    for node in prompt.values():
        node["inputs"].update({key: value for key, value in (instead or {}).items() if key in node["inputs"]})
    left_out = {key for key, node in prompt.items() if node["class_type"].startswith(NOT_RUN)}
    left_out |= {key for key, node in prompt.items() if left_out & {str(one[0]) for one in links(node)}}
    return {key: node for key, node in prompt.items() if key not in left_out}


def links(node: dict[str, Any]) -> list[list]:
    return [value for value in node["inputs"].values() if isinstance(value, list)]


def pairs(sheet: Image.Image, rows: Sequence[int]) -> list[Image.Image]:
    """Pictures of a comparison before and after, of these rows counted from the last."""
    left = sheet.width - EDGE - PICTURE - STEP
    tops = [sheet.height - BELOW - PICTURE - row * STEP for row in rows]
    return [
        sheet.crop((x, top, x + PICTURE, top + PICTURE)).convert("RGB") for top in tops for x in (left, left + STEP)
    ]


def thumbnail(caption: str, pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in two columns, before and after, under a caption."""
    page = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=TEXT)
    pen.text((SIDE / 2, MARGIN), caption, INK, font, anchor="ma")
    rows = len(pictures) // 2
    side = (SIDE - CAPTION - MARGIN - rows * GAP) // rows
    left = (SIDE - 2 * side - 2 * GAP) // 2
    for place, picture in enumerate(pictures):
        row, column = divmod(place, 2)
        large = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        page.paste(large, (left + column * (side + 2 * GAP), CAPTION + GAP + row * (side + GAP)))
    return page


def cropped(caption: str, sheet: Image.Image) -> Image.Image:
    """The upper part of a sheet under a caption."""
    page = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=TEXT)
    pen.text((SIDE / 2, MARGIN), caption, INK, font, anchor="ma")
    width = SIDE - 2 * MARGIN
    shrunk = sheet.convert("RGB").resize((width, round(sheet.height * width / sheet.width)), Image.Resampling.LANCZOS)
    page.paste(shrunk, (MARGIN, CAPTION + GAP))
    return page


def drawn(server: ComfyServer, name: str) -> Image.Image:
    """Run a workflow and return its thumbnail."""
    prompt = prompt_of(name, server.object_info())
    entry = server.queue(prompt, timeout=3600)
    previews = {key: node["inputs"]["images"] for key, node in prompt.items() if node["class_type"] == "PreviewImage"}
    shown = {
        prompt[source]["class_type"]: server.images(entry, key) for key, (source, slot) in previews.items() if not slot
    }
    if "ErasureCompare" in shown:
        (sheet,) = shown["ErasureCompare"]
        count = (sheet.height - EDGE) // STEP
        rows = range(count - 1, -1, -1) if name.startswith("05") else [count - 1, 0]
        return thumbnail(CAPTIONS[name], pairs(sheet, rows))
    if "ErasurePurify" in shown:
        both = zip(shown["VAEDecode"], shown["ErasurePurify"], strict=True)
        return thumbnail(CAPTIONS[name], [picture for pair in list(both)[:2] for picture in pair])
    return cropped(CAPTIONS[name], shown["ErasureReport"][0])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ComfyServer(comfyui(), Path(folder)) as server:
        for name in sys.argv[1:] or CAPTIONS:
            target = ROOT / "workflows" / f"{name}.jpg"
            drawn(server, name).save(target, quality=90)
            print(target, flush=True)


if __name__ == "__main__":
    main()
