"""What programs make of prompts before a text encoder reads them, and what lists look like: in a name neither is meant.

A name is text. What it holds besides is refused where nobody can mean it as text, and told of where somebody may.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

from .names import spelled

DASHES, SIGNS, POINTS = set("-~‐‑‒–—―−"), set("=<|＝＜｜"), set(">＞")
DRAWN = re.compile("[=<|>]")
WEIGHT = re.compile(r"(?<!\\)[(\[{]([^()\[\]{}:]*):\s*[+-]?(\d+\.?\d*|\.\d+)\s*[)\]}]")
LOADED = re.compile(r"<(lora|lyco|locon|hypernet)\s*:[^<>]*>", re.IGNORECASE)
BRACKETS = re.compile(r"(?<!\\)[(\[{][^()\[\]{}]*[)\]}]")
UNDERSCORE = re.compile(r"[^\W_]_|_[^\W_]")
SEPARATED = re.compile(r"[^\s,;、，；|｜](\s*[,;、，；]|[|｜](?=\S)|\t)\s*[^\s,;、，；|｜]")
EQUALS = re.compile(r"[^\W_][=＝][^\W_]")


def arrow_in(text: str) -> tuple[str, str, str] | None:
    """What stands before, in and behind the first thing in a text that looks like an arrow."""
    if text.isascii() and not DRAWN.search(text):
        return None
    several = len(text.split()) > 1
    for word in re.finditer(r"\S+", text):
        start = word.start()
        for drawn, run in ((drawn, "".join(run)) for drawn, run in groupby(word[0], key=_draws_arrows)):
            before, end = text[word.start() : start], start + len(run)
            if drawn and _is_arrow(before, run, text[end : word.end()], several):
                return text[:start], run, text[end:]
            start = end
    return None


def wrong(text: str) -> str | None:
    """What makes a text no name, and what would be right; ``None`` for a name."""
    found = WEIGHT.search(text)
    if found:
        name = spelled(text[: found.start()] + found[1] + text[found.end() :]).strip("()[]{} ")
        return f"sets a weight, '{found[0]}', and a name has none; write '{name or 'cat'}'"
    found = LOADED.search(text)
    if found:
        return f"loads a file, '{found[0]}', and is no name; load it into the model, and write the concept's name"
    return None


def doubts(text: str) -> Iterator[tuple[str, str]]:
    """What is read in a text otherwise than who wrote it may mean: the kind, and a sentence without its subject."""
    found = SEPARATED.search(text)
    if found:
        sign = f"'{found[1].strip()}'" if found[1].strip() else "a tab"
        yield "list", f"looks like a list with {sign} and is read as one name; write one name a line if it is one"
    if EQUALS.search(text):
        yield "=", "has '=' and is read as one name; write 'cat -> dog' for what to draw instead"
    if UNDERSCORE.search(text):
        yield "_", f"has '_', which text encoders read too; write '{spelled(text.replace('_', ' '))}' if prompts do"
    if BRACKETS.search(text):
        yield "(", "has brackets, which are text in a name; in a ComfyUI prompt they weigh, and only '\\(' is text"


def _draws_arrows(one: str) -> bool:
    return one in DASHES or one in SIGNS or one in POINTS or _is_whole_arrow(one)


def _is_whole_arrow(one: str) -> bool:
    return "\x7f" < one < "\U0001f000" and "ARROW" in unicodedata.name(one, "")


def _is_arrow(before: str, run: str, after: str, several: bool) -> bool:
    """Whether characters that arrows are typed with are one, by what touches them and whether there are other words."""
    if not before and not after:
        return several and not set(run) <= DASHES
    if "<" in before:  # ``<cat-toy>``, as textual inversions are named
        return False
    beside = before[-1:].isalnum(), after[:1].isalnum()
    pointed = bool(POINTS & set(run))
    strong = any(map(_is_whole_arrow, run)) or (pointed and len(run) > 1)
    return any(beside) if strong else pointed and all(beside)
