"""What the erasures that a model is known to carry have done to a concept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..concepts.names import key
from ..concepts.parse import EMPTY_TARGET, Concept
from ..concepts.readable import Read
from ..erasures.erasure import Erasure
from ..erasures.low_rank import LowRank
from ..model import TextReader, TextRows
from ..quoting import quoted
from .align import aligned_rows


class ErasedAlreadyError(ValueError):
    """A concept is past its target already; erasing it again would bring part of it back."""


def check_not_erased(model: TextReader, concepts: Iterable[Concept]) -> None:
    """Raise ``ErasedAlreadyError`` for a concept that ``model`` carries an erasure of; only such are encoded."""
    known = model.erasures
    named = {_keys(concept) for erasure in known for concept in erasure.concepts}
    for concept in concepts:
        if _keys(concept) in named:
            check_pair(known, concept, *model.text_rows([concept.name, concept.instead or EMPTY_TARGET]))


def check_pair(known: Sequence[Erasure], concept: Concept, read: Read, target: Read) -> None:
    """Raise ``ErasedAlreadyError`` when the erasures ``known`` have moved a concept past its target.

    Amplified they do. A closed form would take that for a way still to go, and pull the concept back, whatever the name
    is that it was erased by.
    """
    if left_to_go(known, read, target) < 0:
        names = quoted([str(one) for erasure in known if erasure.maps for one in erasure.concepts])
        raise ErasedAlreadyError(
            f"'{concept}' is erased from this model already, by an earlier erasure of {names}; erasing it again would "
            "bring part of it back. Leave it out, or take the model without that erasure"
        )


def left_to_go(known: Sequence[Erasure], read: Read, target: Read) -> float:
    """The share of the way from a concept to its target that is left: 1 of a concept that nothing has touched.

    0 is at the target and less is past it; the mean over text entries, of the rows of the last tokens.
    """
    shares = [
        _left([erasure.maps[name].change for erasure in known if name in erasure.maps], one, other)
        for name in read
        for one, other in zip(read[name], target[name], strict=True)
    ]
    return sum(shares) / len(shares)


def _left(changes: Sequence[LowRank], read: TextRows, target: TextRows) -> float:
    one, other = aligned_rows(read.rows, target.rows, read.last_content, target.last_content)
    way = (one[0] - other[0]).double().cpu()
    gone = way
    for change in reversed(changes):  # the last was computed on weights that had the others
        gone = gone + change.up.double() @ (change.down.double() @ gone)
    length = float(way @ way)
    return float(way @ gone) / length if length else 1.0


def _keys(concept: Concept) -> tuple[tuple[str, ...], ...]:
    return key(concept.name), key(concept.instead)
