"""What programs make of prompts before a text encoder reads them, and what lists look like: in a name neither is meant.

A name is text. What it holds besides is refused where nobody can mean it as text, and told of where somebody may.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

from ..quoting import shown
from .names import spelled

DASHES, SIGNS, POINTS = set("-~‐‑‒–—―−"), set("=<|＝＜｜"), set(">＞")
DRAWN = re.compile("[=<|>]")
NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*"
WEIGHT = re.compile(rf"(?<!\\)[(\[{{]([^()\[\]{{}}:]*):{NUMBER}(?:[)\]}}]|\Z)|^([^()\[\]{{}}:]+):{NUMBER}[)\]}}]")
EDITED = re.compile(rf"(?<!\\)\[([^\[\]:]*):([^\[\]:]*):{NUMBER}(?:\]|\Z)")
CHOICE = re.compile(r"(?<!\\)[\[{][^\[\]{}|]*\w\s*\|[^\[\]{}]*[\]}]")
JOINED = re.compile(r"(?<=\S)\s+(AND|BREAK)\s+(?=\S)")
LOADED = re.compile(r"<(lora|lyco|locon|hypernet)\s*:[^<>]*>", re.IGNORECASE)
BRACKETS = re.compile(r"(?<!\\)[(\[{][^()\[\]{}]*[)\]}]")
HALF_BRACKETS = re.compile(r"^[(\[{]+\w[^)\]}]*\Z|^[^(\[{]*\w[)\]}]+\Z")
NUMBERED = re.compile(r"(\d+\.\s+)(.+)")
SCALED = re.compile(r"(.*\w)(::?\s*-?\d*\.\d+|::\s*-?\d+)")
BULLET = re.compile(r"([-*+•‣▪◦·–—]\s+|[•‣▪◦]|\d+\)\s+)(?=\S)(?!->\s)")
BESIDE = re.compile(r"\s*[,;、，；]\s*(?=\S)(?!->\s)|.*?(?<=\S)(\s*[,;、，；]|(?<=[^\s>])\s+[-–—]+)\s*\Z")
QUOTED = re.compile(r"""(["'`])((?:(?!\1).)+)\1|[“”„«‘‚]([^“”„«»]+)[“”»’‘]""")
HALF_QUOTED = re.compile(r"""["“„«]([^"“”»]+)""")
UNDERSCORE = re.compile(r"[^\W_]_|_[^\W_]")
SEPARATED = re.compile(r"[^\s,;、，；|｜](\s*[,;、，；]|[|｜](?=\S)|\t)\s*[^\s,;、，；|｜]")
EQUALS = re.compile(r"[^\W_][=＝][^\W_]")


def arrow_in(text: str) -> tuple[str, str, str] | None:
    """What stands before, in and behind the first thing in a text that looks like an arrow."""
    if text.isascii() and not DRAWN.search(text):
        return None
    words = list(re.finditer(r"\S+", text))
    several = len(words) > 1
    for place, word in enumerate(words):
        start = word.start()
        for drawn, run in ((drawn, "".join(run)) for drawn, run in groupby(word[0], key=_draws_arrows)):
            before, end = text[word.start() : start], start + len(run)
            if drawn and _is_arrow(before, run, text[end : word.end()], several):
                first, last = _with_neighbours(words, place, start, end)
                return text[:first], text[first:last], text[last:]
            start = end
    return None


def points_back(arrow: str) -> bool:
    """Whether an arrow points to the left, alone or as well."""
    return arrow[:1] in "<＜" or any(_is_whole_arrow(one) and "LEFT" in unicodedata.name(one) for one in arrow)


def wrong(text: str) -> str | None:
    """What makes a text no name, and what would be right; ``None`` for a name."""
    found = EDITED.search(text)
    if found:
        before, after = spelled(found[1]), spelled(found[2])
        right = f"{_quoted(f'{before} -> {after}')} for what to draw instead" if before and after else "one name a line"
        return f"edits a prompt, {_quoted(found[0])}, and is no name; write {right}"
    found = WEIGHT.search(text)
    if found:
        name = spelled(text[: found.start()] + (found[1] or found[2] or "") + text[found.end() :]).strip("()[]{} ")
        return f"sets a weight, {_quoted(found[0])}, and a name has none; write {_quoted(name or 'cat')}"
    found = LOADED.search(text)
    if found:
        return f"loads a file, {_quoted(found[0])}, and is no name; load it into the model, and name the concept"
    found = CHOICE.search(text)
    if found:
        return f"chooses, {_quoted(found[0])}, and is no name; write one name a line"
    found = JOINED.search(text)
    if found and not (text[: found.start()] + text[found.end() :]).isupper():
        one = JOINED.sub(lambda sign: f" {sign[1].lower()} ", text)
        right = f"one name a line, or {_quoted(one)} if it is one"
        return f"joins prompts with '{found[1]}', and a name is one text; write {right}"
    return _marked(text)


def beside(text: str) -> str | None:
    """What makes a name an entry of a list with a sign that parts it from the next, and what would be right."""
    text = text.strip()
    right, found = bare(text), BESIDE.match(text)
    if not found or not _says_something(right):
        return None
    sign = (found[1] or text[0]).strip()
    right = "one name a line" if SEPARATED.search(right) else _quoted(right)
    return f"has '{sign}' beside it, as in a list; write {right}"


def bare(text: str) -> str:
    """A text without what lists put before, around and behind their entries."""
    while True:
        found = BULLET.match(text) or BESIDE.match(text)
        if found and found.lastindex and found.re is BESIDE:
            shorter = text[: found.start(1)]
        else:
            shorter = text[found.end() :] if found else _unquoted(text)
        shorter = shorter.strip()
        if shorter == text or not shorter:
            return text
        text = shorter


def doubts(text: str) -> Iterator[tuple[str, str]]:
    """What is read in a text otherwise than who wrote it may mean: the kind, and a sentence without its subject."""
    found = SEPARATED.search(text)
    if found:
        sign = f"'{found[1].strip()}'" if found[1].strip() else "a tab"
        yield "list", f"looks like a list with {sign} and is read as one name; write one name a line if it is one"
    found = NUMBERED.fullmatch(text)
    if found:
        right = _quoted(found[2])
        yield "1.", f"begins with {_quoted(found[1])}, as in a list, and is read so; write {right} if it is one"
    found = SCALED.fullmatch(text)
    if found:
        yield ":", f"ends in {_quoted(found[2])}, which is text in a name; write {_quoted(found[1])} if it is a weight"
    if EQUALS.search(text):
        yield "=", "has '=' and is read as one name; write 'cat -> dog' for what to draw instead"
    if UNDERSCORE.search(text):
        yield "_", f"has '_', which text encoders read too; write {_quoted(text.replace('_', ' '))} if prompts do"
    if BRACKETS.search(text) or HALF_BRACKETS.search(text):
        yield "(", "has brackets, which are text in a name; in a ComfyUI prompt they weigh, and only '\\(' is text"


def _marked(text: str) -> str | None:
    text = text.strip()
    right = bare(text)
    if right == text or not _says_something(right):
        return None
    found = BULLET.match(text)
    if found:
        return f"begins with {_quoted(found[0])}, as in a list; write {_quoted(right)}"
    if QUOTED.fullmatch(text):
        return f"has quotes around it, which text encoders read too; write {_quoted(right)}"
    if HALF_QUOTED.fullmatch(text):
        return f"begins with '{text[0]}', which nothing closes; write {_quoted(right)}"
    return None


def _quoted(text: str) -> str:
    return f"'{shown(spelled(text))}'"


def _unquoted(text: str) -> str:
    found = QUOTED.fullmatch(text)
    if found:
        return found[2] or found[3]
    found = HALF_QUOTED.fullmatch(text)
    return found[1] if found else text


def _says_something(text: str) -> bool:
    return any(map(str.isalnum, text))


def _with_neighbours(words: list[re.Match[str]], place: int, start: int, end: int) -> tuple[int, int]:
    """From where to where an arrow reaches that has spaces within, as ``- >`` has."""
    first, last = place, place
    while start == words[first].start() and first and all(map(_draws_arrows, words[first - 1][0])):
        first -= 1
        start = words[first].start()
    while end == words[last].end() and last + 1 < len(words) and all(map(_draws_arrows, words[last + 1][0])):
        last += 1
        end = words[last].end()
    return start, end


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
    touched = before[-1:].isalnum(), after[:1].isalnum()
    pointed = bool(POINTS & set(run))
    back = run[0] in "<＜" and len(run) > 1 and set(run[1:]) <= DASHES | {"=", "＝"}
    strong = any(map(_is_whole_arrow, run)) or (pointed and len(run) > 1) or back
    return any(touched) if strong else pointed and all(touched)
