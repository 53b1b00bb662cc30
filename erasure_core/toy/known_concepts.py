"""The concepts among which a report looks for neighbours of an erased one."""

from __future__ import annotations

from ..concepts.common import COMMON, STYLE


def known_concepts(toy: bool) -> tuple[str, ...]:
    """Return what the embedded model draws if ``toy`` is true, else the built-in list of everyday concepts."""
    if not toy:
        return COMMON
    from .captions import OBJECTS, STYLES

    return (*OBJECTS, *(STYLE + style for style in STYLES))
