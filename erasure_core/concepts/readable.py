"""Whether a text encoder makes anything of a concept's name, and of what to draw instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..model import TextRows, TextToImageModel
from .parse import EMPTY_TARGET, Concept, ConceptError

ALIKE = 0.01
"""At most, the relative difference of a row between the same tokens in two batches and precisions."""
Read = Mapping[str, Sequence[TextRows]]
"""What the layers of each text entry read for a prompt."""


def check_readable(model: TextToImageModel, concept: Concept) -> None:
    """Raise what ``check_read`` does for a concept of which nothing was encoded yet."""
    prompts = [EMPTY_TARGET, concept.name, *([concept.instead] if concept.instead else [])]
    nothing, name, *target = model.text_rows(prompts)
    check_read(concept, name, target[0] if target else nothing, nothing)


def check_read(concept: Concept, name: Read, target: Read, nothing: Read) -> None:
    """Raise ``ConceptError`` when a concept's name reads like nothing or like its target, or its target like nothing.

    ``name``, ``target`` and ``nothing`` are what is read for the name, for what to draw instead and for the empty
    prompt; of a concept without a target, that is its ``target`` too.
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
    """Whether all layers read the same, row by row."""
    return all(
        _same(mine.rows, theirs.rows) for name in one for mine, theirs in zip(one[name], other[name], strict=True)
    )


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool(((one - other).norm(dim=-1) <= ALIKE * other.norm(dim=-1)).all())
