"""The built-in list of everyday concepts that an erasure preserves by default."""

from __future__ import annotations

from collections.abc import Sequence

from ..quoting import excerpt, shortened
from .names import content, singular, spelled, words
from .parse import Concept, as_concepts

STYLE = "in the style of "
PEOPLE = ("person", "man", "woman", "child", "face", "hand", "dress", "hat", "glasses", "shoes")
ANIMALS = (
    "cat", "dog", "lion", "tiger", "panda", "fox", "bear", "koala", "rabbit", "pig", "cow", "horse", "sheep",
    "elephant", "frog", "monkey", "penguin", "owl", "bird", "fish", "octopus", "crab", "butterfly",
)  # fmt: skip
FOOD_AND_PLANTS = (
    "pizza", "hamburger", "doughnut", "apple", "banana", "strawberry", "watermelon", "carrot", "lemon",
    "pineapple", "cherries", "mushroom", "cake", "bread", "rose", "sunflower", "cactus", "tree", "flower",
)  # fmt: skip
THINGS_AND_PLACES = (
    "car", "bus", "train", "bicycle", "airplane", "boat", "rocket", "house", "castle", "church", "street",
    "city", "mountain", "beach", "forest", "sky", "chair", "table", "lamp", "book", "clock", "bottle",
    "cup", "guitar", "crown", "skull", "robot", "ghost", "umbrella", "pumpkin", "snowman", "parachute",
)  # fmt: skip
PICTURES = (
    "photo", "painting", "drawing", "sketch", "cartoon", "sculpture", "watercolor", "oil painting",
    "portrait", "landscape", "in the style of van gogh", "in the style of monet", "in the style of picasso",
    "in the style of rembrandt", "in the style of hokusai", "in the style of twemoji",
    "in the style of noto", "in the style of blob", "in the style of fluent",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "white", "black")
COMMON: tuple[str, ...] = (*PEOPLE, *ANIMALS, *FOOD_AND_PLANTS, *THINGS_AND_PLACES, *PICTURES, *COLOURS)

EVERYDAY_CAPTIONS: tuple[str, ...] = (
    "a dog on a red background", "a rabbit on a yellow background", "a bear on a green background",
    "a frog on a blue background", "a penguin on a purple background", "a butterfly on a gray background",
    "a pizza on a white background", "a cake on a black background", "an apple on a red background",
    "a rose on a yellow background", "a house on a green background", "a castle on a blue background",
    "a car on a purple background", "an airplane on a gray background", "a guitar on a white background",
    "a robot on a black background",
    "a white background", "a blue background", "a photo", "a painting", "a drawing, green background",
    "a watercolor on a gray background", "in the style of monet", "in the style of picasso",
)  # fmt: skip
"""Captions of everyday pictures, some without a style and some without an object: what these draw should stay."""


def without_style(name: str) -> str:
    """Return the name of a style without a leading "in the style of "."""
    name = spelled(name)
    return name[len(STYLE) :] if name.casefold().startswith(STYLE) else name


def common_concepts(concepts: Sequence[Concept | str] | Concept | str) -> list[str]:
    """Return what to preserve by default while ``concepts`` are erased.

    That is the empty prompt and then every concept of ``COMMON`` that shares no word with an erased one.
    """
    several = [concepts] if isinstance(concepts, str | Concept) else concepts
    return built_in_prompts([one for item in several for one in as_concepts(item)], common=True, captions=False)


def built_in_prompts(concepts: Sequence[Concept], *, common: bool, captions: bool) -> list[str]:
    """Return the built-in prompts to preserve while ``concepts`` are erased: none, or the empty prompt and others.

    ``common`` asks for ``COMMON`` and ``captions`` for ``EVERYDAY_CAPTIONS``, less what shares a word with an erased
    concept.
    """
    names = [*(COMMON if common else ()), *(EVERYDAY_CAPTIONS if captions else ())]
    return ["", *sharing_no_word(concepts, names)] if names else []


def sharing_no_word(concepts: Sequence[Concept], among: Sequence[str]) -> list[str]:
    """Return those of the names ``among`` that share no word with ``concepts``.

    Capitals, plural and punctuation make no difference. Articles and prepositions are not counted as words, unless a
    name has no other.
    """
    erased = {word for concept in concepts for word in content(concept.name)}
    return [name for name in among if not erased & set(map(singular, words(name)))]


def not_among(concept: str, concepts: Sequence[Concept]) -> str | None:
    """Return a message if ``concept`` is none of the erased ``concepts``, else ``None``.

    Articles, plural and the word "style" make no difference. Without erased concepts nothing is known: ``None``.
    """
    if not concepts or any(content(concept) == content(erased.name) for erased in concepts):
        return None
    names = shortened([excerpt(erased.name) for erased in concepts])
    return f"'{excerpt(concept)}' is not what was erased, that is {names}; name one of these"
