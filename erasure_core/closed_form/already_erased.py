"""Noticing concepts that an earlier erasure has already moved past their target: they are not erased again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from ..concepts.names import key
from ..concepts.parse import EMPTY_TARGET, Concept
from ..concepts.readable import Read
from ..erasures.erasure import Erasure
from ..erasures.low_rank import LowRank
from ..model import TextReader, TextRows
from ..quoting import quoted
from .align import aligned_rows

log = logging.getLogger(__name__)


class ErasedAlreadyError(ValueError):
    """A concept is already past its target; erasing it again would bring part of it back."""


def check_not_erased(model: TextReader, concepts: Iterable[Concept]) -> None:
    """Raise ``ErasedAlreadyError`` for a concept that an erasure on ``model`` has moved past its target.

    Only concepts that such an erasure names are encoded.
    """
    erased = {_keys(concept) for erasure in model.erasures for concept in erasure.concepts}
    unmeasured = {key(concept.name) for erasure in model.erasures for concept in _unmeasured(erasure)}
    for concept in concepts:
        if _keys(concept) in erased or key(concept.name) in unmeasured:
            check_pair(model.erasures, concept, *model.text_rows([concept.name, concept.instead or EMPTY_TARGET]))


def not_erased(model: TextReader, concepts: Sequence[Concept]) -> list[Concept]:
    """Return those of ``concepts`` that no erasure on ``model`` has moved past their target.

    The others are erased already, and stay as they are; a warning names them. Only concepts that such an erasure names
    are encoded. Raises ``ErasedAlreadyError`` when none is left.
    """
    refusals: dict[Concept, ErasedAlreadyError] = {}
    for concept in concepts:
        try:
            check_not_erased(model, [concept])
        except ErasedAlreadyError as refusal:
            refusals[concept] = refusal
    remaining = [concept for concept in concepts if concept not in refusals]
    if refusals and not remaining:
        raise next(iter(refusals.values()))
    if refusals:
        log.warning("%s: erased from this model already, so left as it is.", quoted([str(one) for one in refusals]))
    return remaining


def check_pair(erasures: Sequence[Erasure], concept: Concept, name: Read, target: Read) -> None:
    """Raise ``ErasedAlreadyError`` when ``erasures`` have moved a concept past its target, as amplified ones do.

    ``name`` and ``target`` are the rows for the concept's name and its target. A closed form would solve for the
    distance that remains, which now points back, and so return part of the concept, by whatever name it was erased.
    Erasures by a closed form that keep no context map, in baked checkpoints and in sums of erasures one on top of the
    other, count as such for the concepts that they name: how far they have moved them cannot be computed.
    """
    unmeasured = [other for erasure in erasures for other in _unmeasured(erasure)]
    if key(concept.name) in {key(other.name) for other in unmeasured} or remaining_share(erasures, name, target) < 0:
        names = quoted([str(other) for erasure in erasures if erasure.maps for other in erasure.concepts])
        names = names or quoted([str(other) for other in unmeasured])
        raise ErasedAlreadyError(
            f"'{concept}' is erased from this model already, by an earlier erasure of {names}; erasing it again would "
            "bring part of it back. Leave it out, or take the model without that erasure"
        )


def _unmeasured(erasure: Erasure) -> Iterator[Concept]:
    """Yield the concepts that a closed form has erased without leaving a context map."""
    for origin in erasure.origins if not erasure.maps else ():
        if not origin.losses:
            yield from origin.concepts


def remaining_share(erasures: Sequence[Erasure], name: Read, target: Read) -> float:
    """Return the share of the way from a concept to its target that ``erasures`` have left.

    It is 1 for an untouched concept, 0 for one that is at its target, and negative for one past it: with ``k`` and
    ``t`` the rows of the last tokens of name and target and ``A`` the map of the erasures,
    ``<k - t, A (k - t)> / |k - t|^2``, as the mean over text entries.
    """
    shares = [
        _remaining([erasure.maps[entry].change for erasure in erasures if entry in erasure.maps], one, other)
        for entry in name
        for one, other in zip(name[entry], target[entry], strict=True)
    ]
    return sum(shares) / len(shares)


def _remaining(changes: Sequence[LowRank], name: TextRows, target: TextRows) -> float:
    """Return the share that is left for one encoder's rows; ``changes`` are ``A - I`` of one erasure each."""
    one, other = aligned_rows(name.rows, target.rows, name.last_content, target.last_content)
    before = (one[0] - other[0]).double().cpu()
    after = before
    for change in reversed(changes):  # the last was computed on weights that had the others
        after = after + change.up.double() @ (change.down.double() @ after)
    length = float(before @ before)
    return float(before @ after) / length if length else 1.0


def _keys(concept: Concept) -> tuple[tuple[str, ...], ...]:
    return key(concept.name), key(concept.instead)
