"""Checks that a text encoder reads something in a concept's name, and something else in its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..model import TextReader, TextRows
from .parse import EMPTY_TARGET, Concept, ConceptError

SAME_ROWS = 0.01
"""The largest relative difference between rows of the same tokens, computed in other batches and precisions."""
Read = Mapping[str, Sequence[TextRows]]
"""The rows that the layers of each text entry read for one prompt, by the entry's name."""


def check_readable(model: TextReader, concept: Concept) -> None:
    """Encode a concept and its target with ``model``, and raise ``ConceptError`` as ``check_read`` does."""
    prompts = [EMPTY_TARGET, concept.name, *([concept.instead] if concept.instead else [])]
    nothing, name, *target = model.text_rows(prompts)
    check_read(concept, name, target[0] if target else nothing, nothing)


def check_read(concept: Concept, name: Read, target: Read, nothing: Read) -> None:
    """Raise ``ConceptError`` when the name or the target reads like the empty prompt, or both read the same.

    ``name``, ``target`` and ``nothing`` are the rows for the concept's name, its target and the empty prompt. For a
    concept without a target, ``target`` is the same as ``nothing``.
    """
    for text, read in ((concept.name, name), (concept.instead, target)):
        if text and alike(read, nothing):
            raise ConceptError(
                f"the text encoder reads nothing in '{text}' (an embedding that is not there, or no word); name it in "
                "words, or put the embedding where the text encoder finds it"
            )
    if alike(name, target):
        raise ConceptError(
            f"the text encoder reads '{concept.name}' and '{concept.instead}' alike, so there is nothing to change; "
            "name something else to draw instead"
        )


def alike(one: Read, other: Read) -> bool:
    """Return whether all layers read the same rows, within ``SAME_ROWS``."""
    return all(
        _same(mine.rows, theirs.rows) for name in one for mine, theirs in zip(one[name], other[name], strict=True)
    )


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool(((one - other).norm(dim=-1) <= SAME_ROWS * other.norm(dim=-1)).all())
