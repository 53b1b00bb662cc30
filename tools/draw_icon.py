"""Draw docs/icon.png (400 x 400) and docs/banner.png (21:9), which the registry shows: a cat, half of it erased."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).resolve().parent.parent / "docs"
FINE = 4  # drawn so many times larger, and scaled down for smooth edges
ICON, BANNER = (400, 400), (1260, 540)
NIGHT, TILE, PALE = "#22304f", "#31456f", "#f4f1e8"
CAT, ROSE, LEAF, STAR = "#f5b83d", "#e0505f", "#5aa867", "#6fb7e9"
COLOURS = 64  # of a palette, which keeps the files small

Point = tuple[float, float]


def cat(x: float, y: float, size: float) -> list[Point]:
    """Return the outline of a cat's head in the square of ``size`` around ``(x, y)``."""
    half = size / 2
    outline = []
    for degree in range(0, 360, 2):
        angle = math.radians(degree)
        side = abs((degree - 90 + 180) % 360 - 180)  # degrees from the top
        ear = max(0.0, 1 - abs(side - 40) / 20)
        radius = half * (0.72 + 0.42 * ear)
        outline.append((x + radius * math.cos(angle) * 1.08, y + half * 0.1 - radius * math.sin(angle)))
    return outline


def star(x: float, y: float, size: float) -> list[Point]:
    """Return the outline of a star with five points around ``(x, y)``."""
    turns = [math.radians(36 * corner - 90) for corner in range(10)]
    radii = [size * (0.5 if corner % 2 == 0 else 0.22) for corner in range(10)]
    return [
        (x + radius * math.cos(turn), y + radius * math.sin(turn)) for radius, turn in zip(radii, turns, strict=True)
    ]


def draw_cat(draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    draw.polygon(cat(x, y, size), fill=CAT)
    for side in (-1, 1):
        dot(draw, x + side * size * 0.15, y, size * 0.05, NIGHT)
    draw.polygon([(x - size * 0.04, y + size * 0.12), (x + size * 0.04, y + size * 0.12), (x, y + size * 0.17)], NIGHT)


def draw_erased_cat(draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    """Draw the outline as dashes."""
    outline = cat(x, y, size)
    for start in range(0, len(outline), 6):
        draw.line(outline[start : start + 4], fill=PALE, width=round(size * 0.025), joint="curve")


def draw_rose(draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    draw.line([(x, y), (x, y + size * 0.5)], fill=LEAF, width=round(size * 0.05))
    for turn in range(5):
        angle = math.radians(72 * turn - 90)
        dot(draw, x + size * 0.2 * math.cos(angle), y - size * 0.1 + size * 0.2 * math.sin(angle), size * 0.15, ROSE)
    dot(draw, x, y - size * 0.1, size * 0.1, PALE)


def draw_star(draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    draw.polygon(star(x, y, size), fill=STAR)


def dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def canvas(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", (size[0] * FINE, size[1] * FINE), NIGHT)


def finished(picture: Image.Image) -> Image.Image:
    small = picture.resize((picture.width // FINE, picture.height // FINE), Image.Resampling.LANCZOS)
    return small.quantize(COLOURS)


def icon() -> Image.Image:
    """Return a cat whose right half is erased."""
    picture, gone = canvas(ICON), canvas(ICON)
    middle, size = picture.width / 2, picture.width * 0.8
    draw_cat(ImageDraw.Draw(picture), middle, middle, size)
    draw_erased_cat(ImageDraw.Draw(gone), middle, middle, size)
    half = (picture.width // 2, 0, picture.width, picture.height)
    picture.paste(gone.crop(half), half)
    return finished(picture)


def banner() -> Image.Image:
    """Return a cat, a rose and a star before, and behind an arrow the same without the cat."""
    picture = canvas(BANNER)
    draw = ImageDraw.Draw(picture)
    unit = picture.height / 540
    draw.text((60 * unit, 50 * unit), "Concept Erasure", fill=PALE, font=ImageFont.load_default(84 * unit))
    line = "Your model forgets what you name, and keeps the rest"
    draw.text((64 * unit, 160 * unit), line, fill=STAR, font=ImageFont.load_default(38 * unit))
    for place, shape in enumerate((draw_cat, draw_rose, draw_star, draw_erased_cat, draw_rose, draw_star)):
        x, y = (140 + 180 * place + (80 if place > 2 else 0)) * unit, 370 * unit
        draw.rounded_rectangle([x - 80 * unit, y - 80 * unit, x + 80 * unit, y + 80 * unit], 16 * unit, fill=TILE)
        shape(draw, x, y, 130 * unit)
    arrow = [(604, 340), (604, 400), (652, 370)]
    draw.polygon([(x * unit, y * unit) for x, y in arrow], fill=PALE)
    return finished(picture)


def main() -> None:
    for name, draw in (("icon", icon), ("banner", banner)):
        draw().save(DOCS / f"{name}.png", optimize=True)
        print(DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
