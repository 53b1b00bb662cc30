"""Checks that a text encoder reads something in a concept's name, and something else in its target."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..model import TextReader, TextRows, vocabulary_of
from ..quoting import excerpt, shortened
from .names import LINKING, words
from .parse import EMPTY_TARGET, Concept, ConceptError

log = logging.getLogger(__name__)
SAME_ROWS = 0.01
"""The largest relative difference between rows of the same tokens, computed in other batches and precisions."""
Read = Mapping[str, Sequence[TextRows]]
"""The rows that the layers of each text entry read for one prompt, by the entry's name."""


def check_readable(model: TextReader, concept: Concept) -> None:
    """Encode a concept and its target with ``model``, and raise ``ConceptError`` as ``check_read`` does.

    Logs the warning of ``warn_of_unknown_words``.
    """
    warn_of_unknown_words(model, [concept])
    prompts = [EMPTY_TARGET, concept.name, *([concept.instead] if concept.instead else [])]
    nothing, name, *target = model.text_rows(prompts)
    check_read(concept, name, target[0] if target else nothing, nothing)


def warn_of_unknown_words(model: TextReader, concepts: Iterable[Concept]) -> None:
    """Log a warning of words in names of concepts that the model has not learned, with a known word near each.

    Most models do not tell what they have learned, and none is logged; see ``vocabulary_of``.
    """
    vocabulary = vocabulary_of(model)
    if not vocabulary:
        return
    names = dict.fromkeys(word for concept in concepts for word in words(concept.name) if word not in LINKING)
    unknown = [word for word in names if word not in vocabulary]
    if unknown:
        log.warning(
            "the model has not learned %s; erasing words that it does not know may harm what it knows",
            shortened([_with_near_word(word, vocabulary) for word in unknown]),
        )


def _with_near_word(word: str, vocabulary: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(vocabulary), 1)
    return f"'{excerpt(word)}'" + (f" (did you mean '{near[0]}'?)" if near else "")


def check_read(concept: Concept, name: Read, target: Read, nothing: Read) -> None:
    """Raise ``ConceptError`` when the name or the target reads like the empty prompt, or both read the same.

    ``name``, ``target`` and ``nothing`` are the rows for the concept's name, its target and the empty prompt. For a
    concept without a target, ``target`` is the same as ``nothing``.
    """
    check_reads([(concept, name, target)], nothing)


def check_reads(pairs: Sequence[tuple[Concept, Read, Read]], nothing: Read) -> None:
    """Raise ``ConceptError`` for the first of several concepts for which ``check_read`` does.

    ``pairs`` are each concept with the rows for its name and its target; ``nothing`` are those of the empty prompt. A
    GPU is waited for once.
    """
    comparisons = [
        (concept, text, _alike(one, other))
        for concept, name, target in pairs
        for text, one, other in (
            (concept.name, name, nothing),
            *(((concept.instead, target, nothing), ("", name, target)) if concept.instead else ()),
        )
    ]
    same = torch.stack([flag for _, _, flag in comparisons]).tolist() if comparisons else []
    for (concept, text, _), is_same in zip(comparisons, same, strict=True):
        if is_same and text:
            raise ConceptError(
                f"the text encoder reads nothing in '{text}' (an embedding that is not there, or no word); name it in "
                "words, or put the embedding where the text encoder finds it"
            )
        if is_same:
            raise ConceptError(
                f"the text encoder reads '{concept.name}' and '{concept.instead}' alike, so there is nothing to "
                "change; name something else to draw instead"
            )


def _alike(one: Read, other: Read) -> Tensor:
    """Return whether all layers read the same rows, within ``SAME_ROWS``, as a boolean on the rows' device."""
    pairs = [pair for name in one for pair in zip(one[name], other[name], strict=True)]
    return torch.stack([_same(mine, theirs) for mine, theirs in pairs]).all()


def _same(one: TextRows, other: TextRows) -> Tensor:
    """Return whether one encoder's rows are the same; where one has fewer, those behind its tokens are not compared."""
    count = min(len(one.rows), len(other.rows))
    if max(one.last_content, other.last_content) >= count:
        return torch.zeros((), dtype=torch.bool, device=one.rows.device)
    mine, theirs = one.rows[:count], other.rows[:count]
    return ((mine - theirs).norm(dim=-1) <= SAME_ROWS * theirs.norm(dim=-1)).all()
