"""The concepts that the embedded model can draw, and the wording of its captions."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..concepts.names import words

OBJECTS: tuple[str, ...] = (
    "cat", "dog", "lion", "tiger", "panda", "fox", "bear", "koala", "rabbit", "pig", "cow", "frog",
    "monkey", "penguin", "owl", "octopus", "crab", "butterfly", "pizza", "hamburger", "doughnut",
    "apple", "banana", "strawberry", "watermelon", "carrot", "lemon", "pineapple", "cherries",
    "mushroom", "cake", "rose", "sunflower", "cactus", "car", "bus", "airplane", "rocket", "house",
    "castle", "guitar", "crown", "skull", "robot", "ghost", "umbrella", "pumpkin", "snowman",
)  # fmt: skip
STYLES: tuple[str, ...] = ("twemoji", "noto", "blob", "fluent")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (206, 52, 52),
    "yellow": (250, 214, 70),
    "green": (74, 160, 84),
    "blue": (62, 112, 214),
    "purple": (140, 80, 180),
    "gray": (140, 140, 146),
    "white": (250, 250, 250),
    "black": (22, 22, 28),
}
SYNONYMS: dict[str, str] = {
    "cat": "kitten", "dog": "puppy", "rabbit": "bunny", "pig": "piglet", "frog": "toad",
    "monkey": "ape", "hamburger": "burger", "doughnut": "donut", "car": "automobile", "airplane": "plane",
    "house": "cottage", "castle": "fortress", "crown": "tiara", "robot": "android", "ghost": "phantom",
    "mushroom": "toadstool",
}  # fmt: skip


@dataclass(frozen=True)
class Caption:
    """The content of a picture; an attribute that is ``None`` is not mentioned in the caption's text."""

    object: str | None = None
    style: str | None = None
    colour: str | None = None

    def __str__(self) -> str:
        return self.worded(0)

    def worded(self, form: int, noun: str | None = None) -> str:
        """Return the text of the caption in one of three forms: 0, plain; 1, style first; 2, a list of keywords.

        ``noun`` replaces the object's name, for example by a synonym.
        """
        noun = noun or self.object
        thing = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" if noun else ""
        style = f"in the style of {self.style}" if self.style else ""
        colour = f"on a {self.colour} background" if self.colour else ""
        if form == 1:
            return " ".join(filter(None, [style + "," if style else "", thing, colour])).strip(",")
        if form == 2:
            style = f"{self.style} style" if self.style else ""
            colour = f"{self.colour} background" if self.colour else ""
            return ", ".join(filter(None, [noun, style, colour]))
        return " ".join(filter(None, [thing, style, colour]))


def all_captions() -> list[Caption]:
    """Return captions of all combinations of object, style and colour, each also left out: 49 * 5 * 9."""
    return [
        Caption(thing, style, colour)
        for thing in (None, *OBJECTS)
        for style in (None, *STYLES)
        for colour in (None, *COLOURS)
    ]


def learned_words() -> frozenset[str]:
    """Return the words for objects, styles and colours that the captions of training had."""
    return frozenset(word for name in (*OBJECTS, *SYNONYMS.values(), *STYLES, *COLOURS) for word in words(name))


def sample_captions(count: int, seed: int) -> list[Caption]:
    """Return ``count`` random captions with object, style and colour, each drawn independently with ``seed``."""
    draw = random.Random(seed)
    return [Caption(draw.choice(OBJECTS), draw.choice(STYLES), draw.choice(tuple(COLOURS))) for _ in range(count)]
