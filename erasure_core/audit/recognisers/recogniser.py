"""The contract of a recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ...concepts.parse import as_prompts


class Recogniser(Protocol):
    """A judge that says whether pictures show a concept; ``name`` is what reports call it."""

    name: str

    def knows(self, concept: str) -> bool:
        """Return whether this recogniser can judge pictures of ``concept``."""

    def shows(self, images: Tensor, concepts: Sequence[str]) -> list[bool]:
        """Return whether each image shows its concept: image i of ``[n, 3, h, w]``, from 0 to 1, ``concepts[i]``.

        Raises ``ValueError`` for a concept that this recogniser does not know.
        """


def one_each(images: Tensor, texts: Sequence[str] | str) -> list[str]:
    """Return ``texts`` as a list with one text for each picture. Raises ``ValueError`` for more or fewer."""
    texts = as_prompts(texts)
    if len(texts) != len(images):
        raise ValueError(f"{len(images)} pictures need a text each, got {len(texts)}")
    return texts
