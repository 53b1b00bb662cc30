"""A report drawn as a picture: bars with confidence intervals, the verdict, and the table of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from ..drawing.contact_sheet import FAINT, FONT_SIZE, INK, LINE, MARGIN, PAPER, TITLE_SIZE, Font, wrapped
from .report import HEADER, Interval, Report, cells

WIDTH, PANEL, BAR = 960, 200, 34  # pixels
LIGHT, STRONG = (178, 190, 205), (52, 92, 160)
COLUMNS = (0, 330, 440, 560, 640, 730, 820, 890)  # of the table


def report_sheet(report: Report) -> Image.Image:
    """Draw a report: which pictures still show their concept, what has changed, the verdict, and all prompts."""
    font, large = ImageFont.load_default(size=FONT_SIZE), ImageFont.load_default(size=TITLE_SIZE)
    verdict = wrapped(report.verdict(), font, WIDTH - 2 * MARGIN)
    lines = [[one.prompt, one.group, *cells(row)] for one, row in zip(report.prompts, report.rows, strict=True)]
    top = MARGIN + TITLE_SIZE + MARGIN
    below = top + PANEL + 4 * LINE
    height = below + LINE * (len(verdict) + 1) + LINE * (len(lines) + 1) + MARGIN
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), f"Erasure of '{report.concept}'", INK, large)
    groups = report.groups
    shown = {
        name: (row.shown_before, row.shown_after)
        for name, row in groups.items()
        if row.shown_before is not None and row.shown_after is not None
    }
    drift = {name: (row.pixels,) for name, row in groups.items()}
    half = WIDTH // 2
    if shown:
        _bars(pen, font, (MARGIN, top), half - 2 * MARGIN, "pictures that show what was asked, %", shown, 1.0)
        _legend(pen, font, (MARGIN, top + PANEL + 2 * LINE))
    else:
        pen.text((MARGIN, top), "Nobody looked at what the pictures show.", FAINT, font)
    most = max(row.pixels.high for row in groups.values()) or 1.0
    _bars(pen, font, (half + MARGIN, top), half - 2 * MARGIN, "change of pixels, % of their range", drift, most)
    for number, line in enumerate(verdict):
        pen.text((MARGIN, below + LINE * number), line, INK, font)
    _table(pen, font, below + LINE * (len(verdict) + 1), lines)
    return sheet


def _bars(
    pen: ImageDraw.ImageDraw, font: Font, corner: tuple[int, int], width: int, title: str,
    groups: Mapping[str, Sequence[Interval]], most: float,
) -> None:  # fmt: skip
    """Draw a bar for each interval, in groups; ``most`` is the value of the tallest bar."""
    left, top = corner
    pen.text((left, top), title, INK, font)
    floor, room = top + PANEL, PANEL - 3 * LINE
    pen.line([(left, floor), (left + width, floor)], FAINT)
    for place, (name, intervals) in enumerate(groups.items()):
        middle = left + round(width * (place + 0.5) / len(groups))
        start = middle - BAR * len(intervals) // 2
        for number, one in enumerate(intervals):
            x = start + BAR * number
            colour = STRONG if number == len(intervals) - 1 else LIGHT
            high, low = (floor - round(room * value / most) for value in (one.high, one.low))
            pen.rectangle([x, floor - round(room * one.mean / most), x + BAR - 4, floor], colour)
            centre = x + BAR // 2 - 2
            pen.line([(centre, high), (centre, low)], INK)
            pen.text((centre, high - 3), f"{100 * one.mean:.0f}", INK, font, anchor="mb")
        pen.text((middle, floor + LINE), name, INK, font, anchor="mm")


def _legend(pen: ImageDraw.ImageDraw, font: Font, corner: tuple[int, int]) -> None:
    x, y = corner
    for colour, text in ((LIGHT, "before"), (STRONG, "after")):
        pen.rectangle([x, y, x + FONT_SIZE, y + FONT_SIZE], colour)
        pen.text((x + LINE + 4, y), text, INK, font)
        x += 90
    pen.text((x, y), "whiskers: 95 % of bootstrap resamples", FAINT, font)


def _table(pen: ImageDraw.ImageDraw, font: Font, top: int, lines: Sequence[Sequence[str]]) -> None:
    header = (*HEADER[:6], "CLIP", "after")
    for number, line in enumerate([header, *lines]):
        for x, cell in zip(COLUMNS, line, strict=True):
            text = cell if font.getlength(cell) < 320 else cell[:44] + "..."
            pen.text((MARGIN + x, top + LINE * number), text, INK if number else FAINT, font)
