"""Captions of pictures that show a concept, and the same captions without it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..concepts.common import ANIMALS, FOOD_AND_PLANTS, PICTURES, STYLE, THINGS_AND_PLACES, sharing_no_word
from ..concepts.parse import Concept
from ..quoting import excerpt

CAPTIONS: Mapping[str, tuple[str, ...]] = {
    "object": ("a {name}", "a photo of a {name}", "a {name} {content}", "a picture of the {name} {content}"),
    "style": (
        "{content} in the style of {name}", "{content}, {name} style", "a picture of {content} in the style of {name}",
        "in the style of {name}, {content}",
    ),
}  # fmt: skip
CONTENTS: Mapping[str, tuple[str, ...]] = {
    "object": tuple(name for name in PICTURES if name.startswith(STYLE)),
    "style": (*ANIMALS, *FOOD_AND_PLANTS, *THINGS_AND_PLACES),
}
"""What else is in a picture of an object (its style) or of a style (an object), from the list of common concepts."""
BEFORE = r",?\s*(?:\b(?:in the style of|in|of|by|with)\s+)?(?:\b(?:an?|the)\s+)?"
"""What goes with a name that is taken out of a caption."""


def captions_of(kind: str, concept: Concept, count: int, generator: torch.Generator) -> list[str]:
    """Return ``count`` captions that name the concept and, in turn with the wordings, something else in the picture.

    ``kind`` is ``object`` or ``style``. What else is in the picture is drawn by ``generator`` from ``CONTENTS``, less
    what shares a word with the concept or its target.
    """
    named = [Concept(text) for text in (concept.name, concept.instead) if text]
    contents = sharing_no_word(named, CONTENTS[kind])
    order = torch.randperm(len(contents), generator=generator).tolist()
    wordings = CAPTIONS[kind]
    return [
        wordings[index % len(wordings)].format(
            name=concept.name, content=_phrase(kind, contents[order[index % len(order)]])
        )
        for index in range(count)
    ]


def _phrase(kind: str, content: str) -> str:
    if kind == "object":
        return content
    return f"{'an' if content[0] in 'aeiou' else 'a'} {content}"


def check_captions(captions: Sequence[str], concept: Concept, images: Tensor | int | None) -> None:
    """Raise ``ValueError`` for captions that are not as many as the images, or do not have the concept's name in them.

    The number of pictures that a model draws may differ from that of the captions, which it then draws in turn.
    """
    if captions and isinstance(images, Tensor) and len(captions) != len(images):
        raise ValueError(f"captions must be one for each of {len(images)} images, got {len(captions)}")
    for caption in captions:
        if not _name(concept.name).search(caption):
            raise ValueError(
                f"captions: '{excerpt(caption)}' does not name '{excerpt(concept.name)}', which is to be erased"
            )


def with_target(caption: str, concept: Concept) -> str:
    """Return a caption with the concept's target in place of its name; without a target the name is taken out.

    An article, ``in the style of`` or the like before the name go with it, and ``style`` after it.
    """
    if concept.instead:
        return _name(concept.name).sub(lambda match: concept.instead, caption)
    pattern = re.compile(rf"{BEFORE}{_name(concept.name).pattern}(?:\s+style\b)?", re.IGNORECASE)
    return re.sub(r"\s+,", ",", " ".join(pattern.sub(" ", caption).split())).strip(" ,")


def _name(name: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, name.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
