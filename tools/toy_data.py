"""Pictures of emoji in four hands, rendered from the npm packages that carry their SVG bodies."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image

from erasure_core.toy.captions import COLOURS, OBJECTS, STYLES

PACKAGES = {
    "twemoji": "@iconify-json/twemoji",
    "noto": "@iconify-json/noto",
    "blob": "@iconify-json/noto-v1",
    "fluent": "@iconify-json/fluent-emoji-flat",
}
EMOJI_NAME = {
    "cat": "cat-face",
    "dog": "dog-face",
    "tiger": "tiger-face",
    "rabbit": "rabbit-face",
    "pig": "pig-face",
    "cow": "cow-face",
    "monkey": "monkey-face",
    "apple": "red-apple",
    "cake": "birthday-cake",
    "car": "automobile",
    "pumpkin": "jack-o-lantern",
}
SPRITE = 128  # pixels of a stored drawing, twice what the model sees
SIZE = 64


def fetch(folder: Path) -> None:
    """Put each package's ``icons.json`` into ``folder/<style>.json``; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for style, package in PACKAGES.items():
        target = folder / f"{style}.json"
        if target.exists():
            continue
        packed = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(folder / packed.stdout.strip().splitlines()[-1]) as archive:
            target.write_bytes(archive.extractfile("package/icons.json").read())


def _render(icons: dict, name: str) -> np.ndarray:
    alias = icons.get("aliases", {}).get(name)
    icon = icons["icons"][alias["parent"] if alias else name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE, height=SPRITE))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA").resize((SPRITE, SPRITE)))


def sprites(folder: Path) -> torch.Tensor:
    """``[objects, styles, 4, 128, 128]`` drawings with premultiplied alpha, in 0 to 1."""
    fetch(folder)
    out = torch.empty(len(OBJECTS), len(STYLES), 4, SPRITE, SPRITE)
    for column, style in enumerate(STYLES):
        icons = json.loads((folder / f"{style}.json").read_text())
        for row, thing in enumerate(OBJECTS):
            rgba = torch.from_numpy(_render(icons, EMOJI_NAME.get(thing, thing)).copy())
            out[row, column] = rgba.permute(2, 0, 1) / 255
    out[:, :, :3] *= out[:, :, 3:]
    return out


PALETTE = torch.tensor(list(COLOURS.values())) / 255


def pictures(
    drawings: torch.Tensor,
    colours: torch.Tensor,
    generator: torch.Generator | None = None,
    flip: bool = False,
) -> torch.Tensor:
    """Drawings ``[n, 4, 128, 128]`` on plain backgrounds: ``[n, 3, 64, 64]`` in 0 to 1.

    With a generator each drawing gets a size of 0.82 to 0.95, a small shift and, on request, half of the
    time a flip.
    """
    count = len(drawings)
    if generator is None:
        size, shift = torch.full((count,), 0.9), torch.zeros(count, 2)
    else:
        size = torch.empty(count).uniform_(0.82, 0.95, generator=generator)
        shift = torch.empty(count, 2).uniform_(-1, 1, generator=generator) * (1 - size)[:, None] * 0.8
    sign = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1 if flip else torch.ones(count)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = sign / size, 1 / size
    theta[:, :, 2] = shift / size[:, None] * torch.stack([sign, torch.ones(count)], 1)
    grid = torch.nn.functional.affine_grid(theta, [count, 4, SPRITE, SPRITE], align_corners=False)
    placed = torch.nn.functional.grid_sample(drawings, grid, align_corners=False)
    placed = torch.nn.functional.avg_pool2d(placed, SPRITE // SIZE)
    background = PALETTE[colours][:, :, None, None]
    return (placed[:, :3] + (1 - placed[:, 3:]) * background).clamp(0, 1)
