"""How messages quote what a user typed: on one line, shortened, and with escapes for what cannot be printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

MOST_NAMES = 20  # names that a message lists before "and so many more"
MOST_CHARACTERS = 80  # characters of one text that a message quotes
UNREADABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffd]")


def quoted(names: Sequence[str]) -> str:
    """Return names in quotes, separated by commas; see ``shortened`` and ``excerpt``."""
    return shortened([f"'{excerpt(name)}'" for name in names])


def shortened(names: Sequence[str]) -> str:
    """Return names separated by commas; of more than 20 the first 20 and how many more there are."""
    return ", ".join(names if len(names) <= MOST_NAMES else [*names[:MOST_NAMES], f"{len(names) - MOST_NAMES} more"])


def excerpt(text: object, most: int = MOST_CHARACTERS) -> str:
    """Return an excerpt of what a user typed, so that a message can quote it.

    Text and paths are quoted as they are, any other object by its ``repr``. The result is one line of about ``most``
    characters at most (by default 80, about half a line of a terminal); whatever cannot be printed is an escape.
    """
    text = str(text) if isinstance(text, str | PurePath) else repr(text)
    if len(text) > most:
        text = text[: most - 3] + "..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def unreadable(text: str) -> str | None:
    """Return the first character of ``text`` that no prompt can have, or ``None``.

    Such are control characters, lone surrogates (half a character), and U+FFFD, which stands for a character that was
    lost when a file was decoded.
    """
    match = UNREADABLE.search(text)
    return match and match[0]
