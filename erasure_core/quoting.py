"""What a user gave, as sentences and errors quote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

SHOWN = 20  # names that a sentence lists
MOST_SHOWN = 80
UNREADABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffd]")


def quoted(names: Sequence[str]) -> str:
    return shortened([f"'{shown(name)}'" for name in names])


def shortened(names: Sequence[str]) -> str:
    """Names for a sentence, not more than a reader takes in."""
    return ", ".join(names if len(names) <= SHOWN else [*names[:SHOWN], f"{len(names) - SHOWN} more"])


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """What a user gave, for a sentence: on one line, shortened, with escapes for all that cannot be printed."""
    text = str(text) if isinstance(text, str | PurePath) else repr(text)
    if len(text) > most:
        text = text[: most - 3] + "..."
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def unreadable(text: str) -> str | None:
    """The first character that no prompt can have: a control character, half of one, or what stands for a lost one."""
    found = UNREADABLE.search(text)
    return found and found[0]
