"""Compare Erasures in a running ComfyUI: a grid of pictures, as KSampler draws them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer
from PIL import Image
from rece_prompt import AFTER, BEFORE, RECE, pixels, refused


def comparing(prompt: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """A grid in the place of the pictures after."""
    widgets = {
        "prompts": prompt["3"]["inputs"]["text"], "negative": "", "labels": "RECE", "difference": False,
        **{name: prompt["7"]["inputs"][name] for name in ("seed", "steps", "cfg", "sampler_name", "scheduler")},
    }  # fmt: skip
    links = {"model": ["2", 0], "clip": ["2", 1], "vae": ["2", 2], "latent": ["5", 0], "model_1": [RECE, 0]}
    prompt[AFTER]["inputs"]["images"] = ["50", 0]
    prompt["50"] = {"class_type": "ErasureCompare", "inputs": {**widgets, **links, **inputs}}
    return {node: body for node, body in prompt.items() if node not in ("10", "11")}


def test_compare_shows_ksamplers_pictures(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """Each picture stands twice as large on the grid, unchanged on its way through the eraser's column."""
    plain = server.queue(deepcopy(prompt))
    wanted = [pixels(server, plain, node) for node in (BEFORE, AFTER)]
    (sheet,) = server.images(server.queue(comparing(prompt)), AFTER)
    sheet_pixels = np.asarray(sheet.convert("RGB"), np.int16)
    places = []
    for pictures in wanted:
        for picture in pictures:
            large = Image.fromarray(picture.astype(np.uint8)).resize((128, 128), Image.Resampling.LANCZOS)
            places.append(_place(sheet_pixels, np.asarray(large, np.int16)))
    (first, second, third, fourth) = places
    assert first[1] == second[1] < third[1] == fourth[1]
    assert first[0] == third[0] < second[0] == fourth[0]


def _place(sheet: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """The row and column where a picture stands on a sheet, to the rounding of PNGs."""
    height, width = picture.shape[:2]
    corner = np.abs(sheet[: 1 - height or None, : 1 - width or None] - picture[0, 0]).max(-1) <= 3
    for row, column in np.argwhere(corner):
        if np.abs(sheet[row : row + height, column : column + width] - picture).max() <= 3:
            return int(row), int(column)
    pytest.fail("the picture is not on the sheet")


def test_compare_takes_models_of_every_kind(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """A column with a CLIP alone, and heat-maps."""
    more = {"clip_3": ["2", 1], "labels": "RECE\nitself", "difference": True}
    sizes = []
    for inputs in ({"prompts": "a cat\n# no\na dog", **more}, {"prompts": "a cat"}):
        (sheet,) = server.images(server.queue(comparing(deepcopy(prompt), **inputs)), AFTER)
        sizes.append(sheet.size)
    (wide, high), (narrow, low) = sizes
    assert wide > narrow + 3 * 128 and high > low + 2 * 128


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"prompts": "# nothing"}, "prompts is empty"),
        ({"labels": "a\nb"}, "labels has 2 lines for 1 models"),
        ({"labels": "before"}, "'before' is what the first column is called"),
    ],
)
def test_compare_refuses(server: ComfyServer, prompt: dict[str, Any], inputs: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(server, comparing(prompt, **inputs))
