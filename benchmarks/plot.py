"""Lines over logarithmic axes, as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from erasure_core.drawing.contact_sheet import FAINT, FONT_SIZE, INK, MARGIN, PAPER

GRID = (225, 225, 225)
COLOURS = ((0, 90, 181), (220, 50, 32), (0, 125, 80), (120, 70, 160))
DOT = 4

Points = Sequence[tuple[float, float]]


def log_chart(lines: Mapping[str, Points], title: str, below: str, size: tuple[int, int] = (400, 340)) -> Image.Image:
    """Draw each of ``lines`` through its points, both axes logarithmic, with a grid at the powers of ten.

    Raises ``ValueError`` when there is no point or one is not above 0.
    """
    points = [point for line in lines.values() for point in line]
    if not points or not all(math.isfinite(value) and value > 0 for point in points for value in point):
        raise ValueError(f"a logarithmic chart needs points above 0 and at least one, got {points[:5]}")
    picture = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=FONT_SIZE)
    columns, rows = (_powers([point[axis] for point in points]) for axis in (0, 1))
    left = MARGIN + max(math.ceil(font.getlength(_label(power))) for power in rows) + MARGIN // 2
    top, right, bottom = 2 * MARGIN + FONT_SIZE, size[0] - 2 * MARGIN, size[1] - 2 * MARGIN - 2 * FONT_SIZE

    def across(value: float) -> float:
        return left + _share(value, columns) * (right - left)

    def up(value: float) -> float:
        return bottom - _share(value, rows) * (bottom - top)

    pen.text((MARGIN, MARGIN // 2), title, INK, font)
    for power in columns:
        x = across(10.0**power)
        pen.line([(x, top), (x, bottom)], GRID)
        pen.text((x, bottom + MARGIN // 2), _label(power), FAINT, font, anchor="ma")
    for power in rows:
        y = up(10.0**power)
        pen.line([(left, y), (right, y)], GRID)
        pen.text((left - MARGIN // 2, y), _label(power), FAINT, font, anchor="rm")
    pen.text(((left + right) / 2, size[1] - MARGIN // 2), below, FAINT, font, anchor="ms")
    for (name, line), colour, row in zip(lines.items(), COLOURS, range(len(COLOURS)), strict=False):
        places = [(across(x), up(y)) for x, y in line]
        pen.line(places, colour, width=2)
        for x, y in places:
            pen.ellipse([x - DOT, y - DOT, x + DOT, y + DOT], colour)
        pen.text((left + MARGIN // 2, top + row * (FONT_SIZE + 4)), name, colour, font)
    return picture


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one height from left to right."""
    whole = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height), PAPER)
    x = 0
    for picture in pictures:
        whole.paste(picture, (x, 0))
        x += picture.width
    return whole


def _powers(values: Sequence[float]) -> range:
    """The powers of ten from the one below the least value to the one above the greatest, two at least."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return range(low, max(high, low + 1) + 1)


def _share(value: float, powers: range) -> float:
    return (math.log10(value) - powers[0]) / (powers[-1] - powers[0])


def _label(power: int) -> str:
    return f"{10.0**power:,.{max(0, -power)}f}"
