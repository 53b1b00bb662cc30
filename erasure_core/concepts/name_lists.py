"""Lists of artists, movements and mediums, whose styles an erasure can preserve."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from ..quoting import excerpt
from .common import sharing_no_word
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


def listed_beside(concepts: Sequence[Concept], which: str | None) -> list[str]:
    """Return the names of a list that share no word with an erased concept; none for no list."""
    return sharing_no_word(concepts, name_list(which)) if which else []
