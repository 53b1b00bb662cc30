"""What a recogniser is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ...concepts.parse import as_prompts


class Recogniser(Protocol):
    """Says whether pictures show what they should, or what they should not."""

    name: str

    def knows(self, concept: str) -> bool:
        """Whether it can tell this concept."""

    def shows(self, images: Tensor, concepts: Sequence[str]) -> list[bool]:
        """Whether image i of ``[n, 3, h, w]`` in 0 to 1 shows ``concepts[i]``.

        Raises ``ValueError`` for a concept that it cannot know.
        """


def one_each(images: Tensor, texts: Sequence[str] | str) -> list[str]:
    """A text for each picture. Raises ``ValueError`` for more or fewer."""
    texts = as_prompts(texts)
    if len(texts) != len(images):
        raise ValueError(f"{len(images)} pictures need a text each, got {len(texts)}")
    return texts
