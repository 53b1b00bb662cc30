"""Where near neighbours of a concept are looked for."""

from __future__ import annotations

from ..concepts.common import COMMON, STYLE


def known_concepts(toy: bool) -> tuple[str, ...]:
    """Where neighbours are looked for: the common concepts, or what the embedded model draws."""
    if not toy:
        return COMMON
    from .captions import OBJECTS, STYLES

    return (*OBJECTS, *(STYLE + style for style in STYLES))
