"""Real renders of all objects and styles of the embedded model, for checks of its judge and autoencoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .captions import COLOURS, OBJECTS, STYLES, Caption
from .config import PICTURE

SHEET = Path(__file__).with_name("renders.png")
COLUMNS = 16


def captions() -> list[Caption]:
    """Return the captions of the sheet, row by row: every object in every style, with background colours in turn.

    The colours of an object's four pictures differ, a style comes on all colours, and a colour behind all styles.
    """
    colours = tuple(COLOURS)
    return [
        Caption(thing, style, colours[(row + 5 * column) % len(colours)])
        for row, thing in enumerate(OBJECTS)
        for column, style in enumerate(STYLES)
    ]


def load_renders() -> tuple[list[Caption], Tensor]:
    """Return the captions and the images ``[n, 3, 64, 64]`` with values from 0 to 1."""
    sheet = torch.from_numpy(np.asarray(Image.open(SHEET).convert("RGB")).copy())
    tiles = sheet.unfold(0, PICTURE, PICTURE).unfold(1, PICTURE, PICTURE)
    return captions(), tiles.flatten(0, 1)[: len(captions())].float() / 255


def save_renders(images: Tensor) -> None:
    """Write the sheet from images ``[n, 3, 64, 64]`` with values from 0 to 1, in the order of ``captions``."""
    rows = [torch.cat(list(row), -1) for row in images.split(COLUMNS)]
    sheet = (torch.cat(rows, -2).permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(sheet).save(SHEET, optimize=True)


def psnr(images: Tensor, others: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB between two batches ``[n, 3, h, w]``, as the mean over images."""
    return float((-10 * torch.log10((images - others).square().mean((1, 2, 3)))).mean())
