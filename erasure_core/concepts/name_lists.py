"""Lists of artists, movements and mediums, whose styles an erasure can preserve."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from ..quoting import excerpt
from .common import sharing_no_word
from .names import key
from .parse import Concept

DATA = Path(__file__).with_name("data")
LISTS = ("artists", "movements", "mediums")
"""The names of the lists; the lists themselves come from clip-interrogator, see ``data/LICENCES.txt``."""


@functools.cache
def name_list(which: str) -> tuple[str, ...]:
    """Return one of ``LISTS``, sorted. Raises ``ValueError`` for any other name."""
    if which not in LISTS:
        raise ValueError(f"there is no list of '{excerpt(which)}'; there are {', '.join(LISTS)}")
    return tuple((DATA / f"{which}.txt").read_text(encoding="utf-8").splitlines())


def kind_of(name: str, styles: Sequence[str] = ()) -> str:
    """Return the kind of a concept, ``style`` or ``object``, from its name alone.

    A style is a name of one of ``LISTS`` or of ``styles``, the last words of an artist's name if they are two or more
    (``van gogh``), and a name with the word ``style`` in it; all else is an object.
    """
    words = key(name)
    if "style" in words or words in {key(style) for style in styles}:
        return "style"
    return "style" if words in _known_styles() else "object"


@functools.cache
def _known_styles() -> frozenset[tuple[str, ...]]:
    whole = {key(name) for which in LISTS for name in name_list(which)}
    artists = [key(name) for name in name_list("artists")]
    return frozenset(whole | {words[start:] for words in artists for start in range(1, len(words) - 1)})


def listed_beside(concepts: Sequence[Concept], which: str | None) -> list[str]:
    """Return the names of a list that share no word with an erased concept; none for no list."""
    return sharing_no_word(concepts, name_list(which)) if which else []
