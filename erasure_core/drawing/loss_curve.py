"""The losses of a training run, drawn as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .contact_sheet import FAINT, FONT_SIZE, INK, PAPER

MARGIN = 12


def loss_curve(losses: Sequence[float], title: str = "", size: tuple[int, int] = (512, 288)) -> Image.Image:
    """Draw the loss of each step from left to right, with the lowest at the bottom and the range as labels.

    ``size`` is the width and height in pixels; the default fits into a node of ComfyUI. Raises ``ValueError`` when
    there is no loss, or one that is not finite.
    """
    if not losses or not all(map(math.isfinite, losses)):
        raise ValueError(f"a curve needs at least one loss and finite ones, got {list(losses)[:5]}")
    picture = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=FONT_SIZE)
    low, high = min(losses), max(losses)
    labels = f"{high:.4g}", f"{low:.4g}"
    left = MARGIN + max(math.ceil(font.getlength(label)) for label in labels) + MARGIN
    top, right, bottom = 2 * MARGIN + FONT_SIZE, size[0] - MARGIN, size[1] - 2 * MARGIN - FONT_SIZE
    pen.text((MARGIN, MARGIN), title, INK, font)
    for label, y in zip(labels, (top, bottom), strict=True):
        pen.text((MARGIN, y - FONT_SIZE // 2), label, FAINT, font)
    pen.text((left, size[1] - MARGIN - FONT_SIZE), f"{len(losses)} steps", FAINT, font)
    pen.line([(left, top), (left, bottom), (right, bottom)], FAINT)
    across, spread = (right - left) / max(1, len(losses) - 1), high - low or 1.0
    points = [
        (left + step * across, bottom - (loss - low) / spread * (bottom - top)) for step, loss in enumerate(losses)
    ]
    pen.line(points if len(points) > 1 else [*points, (right, points[0][1])], INK, width=2)
    return picture
