"""How names and prompts are spelled, shown and compared."""

from __future__ import annotations

MOST_SHOWN = 80


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """What a user gave, for a sentence: on one line, shortened, with escapes for all that cannot be printed."""
    text = text if isinstance(text, str) else repr(text)
    if len(text) > most:
        text = text[: most - 3] + "..."
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
