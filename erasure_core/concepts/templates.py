"""Templates of prompts that name a concept, for the methods that train."""

from __future__ import annotations

from collections.abc import Mapping

WORDINGS: Mapping[str, tuple[str, ...]] = {
    "object": ("{}", "a {}", "a photo of a {}", "a picture of the {}"),
    "style": ("{}", "in the style of {}", "a picture in the style of {}", "{} style"),
}


def wordings(kind: str, name: str) -> list[str]:
    """Return prompts with ``name`` in each; ``kind`` is ``object`` or ``style``, else ``ValueError`` is raised."""
    if kind not in WORDINGS:
        raise ValueError(f"kind must be one of {', '.join(WORDINGS)}, got '{kind}'")
    return [wording.format(name) for wording in WORDINGS[kind]]
