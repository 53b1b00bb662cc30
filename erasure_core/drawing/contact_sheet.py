"""Labelled contact sheets: pictures of the same prompts and seeds in rows below one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..files.images import scaled_pixels, to_image

MARGIN, GAP = 16, 6
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
TITLE_SIZE, FONT_SIZE = 20, 14  # pixels
LINE = FONT_SIZE + 4  # pixels from one line of text to the next
LABEL = 240  # pixels; longer labels of rows are wrapped


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Section:
    """A block of a contact sheet, with a title above it.

    Each of ``rows`` is a label and images ``[n, 3, h, w]`` with values from 0 to 1. ``captions`` are the n texts above
    the columns. ``groups`` are headings above several columns: a text, and how many columns it spans; by default none.
    """

    title: str
    captions: Sequence[str]
    rows: Sequence[tuple[str, Tensor]]
    groups: Sequence[tuple[str, int]] = ()


def contact_sheet(sections: Sequence[Section], *, scale: float = 2) -> Image.Image:
    """Return a picture of all sections below one another.

    Images are enlarged ``scale`` times, by default twice, so that those of the embedded model are easy to see.
    Raises ``ValueError`` for a row with more or fewer images than its section has captions.
    """
    pages = [_page(section, scale) for section in sections]
    width = max(page.width for page in pages) + 2 * MARGIN
    height = sum(page.height + MARGIN for page in pages) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN
    for page in pages:
        sheet.paste(page, (MARGIN, top))
        top += page.height + MARGIN
    return sheet


def _page(section: Section, scale: float) -> Image.Image:
    columns = len(section.captions)
    for label, images in section.rows:
        if len(images) != columns:
            raise ValueError(f"row '{label}' has {len(images)} pictures for {columns} captions")
    cell_height, cell_width = (scaled_pixels(size, scale) for size in section.rows[0][1].shape[-2:])
    font, large = ImageFont.load_default(size=FONT_SIZE), ImageFont.load_default(size=TITLE_SIZE)
    labels = [wrapped(label, font, LABEL) for label, _ in section.rows]
    left = max(round(font.getlength(line)) for lines in labels for line in lines) + 2 * GAP
    headings = [wrapped(caption, font, cell_width) for caption in section.captions]
    heading = LINE if section.groups else 0
    top = TITLE_SIZE + 2 * GAP + heading + LINE * max(map(len, headings)) + GAP
    places = _places(left, cell_width, columns, section.groups)
    height = top + len(section.rows) * (cell_height + GAP)
    width = max(places[-1] + cell_width, round(large.getlength(section.title)) + GAP)
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((0, 0), section.title, INK, large)
    at = 0
    for text, span in section.groups:
        pen.text((places[at], TITLE_SIZE + 2 * GAP), text, FAINT, font)
        at += span
    for x, lines in zip(places, headings, strict=True):
        for number, line in enumerate(lines):
            pen.text((x, TITLE_SIZE + 2 * GAP + heading + LINE * number), line, INK, font)
    for number, (lines, (_, images)) in enumerate(zip(labels, section.rows, strict=True)):
        y = top + number * (cell_height + GAP)
        for place, line in enumerate(lines[: max(1, cell_height // LINE)]):
            pen.text((0, y + max(0, cell_height - LINE * len(lines)) // 2 + LINE * place), line, INK, font)
        for x, image in zip(places, images, strict=True):
            page.paste(to_image(image, scale), (x, y))
    return page


def _places(left: int, width: int, columns: int, groups: Sequence[tuple[str, int]]) -> list[int]:
    """Return the left edge of each column in pixels, with a margin between groups."""
    starts, at = set(), 0
    for _, span in groups[:-1]:
        at += span
        starts.add(at)
    places, x = [], left
    for column in range(columns):
        x += MARGIN if column in starts else 0
        places.append(x)
        x += width + GAP
    return places


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` pixels in a Pillow font; a longer word has its own line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
