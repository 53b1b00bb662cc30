"""Syntax that does not belong into a name: weights and choices of prompt programs, marks of lists, other arrows.

A name is plain text. Syntax that nobody can mean as text is refused; syntax that somebody may mean so causes a warning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

from ..quoting import excerpt
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
    """Return what is before, in and after the first thing that looks like an arrow, or ``None``."""
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
    """Return whether an arrow points to the left, or to both sides."""
    return arrow[:1] in "<＜" or any(_is_whole_arrow(char) and "LEFT" in unicodedata.name(char) for char in arrow)


def wrong(text: str) -> str | None:
    """Return what makes a text no name and how to write it, as a sentence without subject; ``None`` for a name."""
    match = EDITED.search(text)
    if match:
        before, after = spelled(match[1]), spelled(match[2])
        right = f"{_quoted(f'{before} -> {after}')} for what to draw instead" if before and after else "one name a line"
        return f"edits a prompt, {_quoted(match[0])}, and is no name; write {right}"
    match = WEIGHT.search(text)
    if match:
        name = spelled(text[: match.start()] + (match[1] or match[2] or "") + text[match.end() :]).strip("()[]{} ")
        return f"sets a weight, {_quoted(match[0])}, and a name has none; write {_quoted(name or 'cat')}"
    match = LOADED.search(text)
    if match:
        return f"loads a file, {_quoted(match[0])}, and is no name; load it into the model, and name the concept"
    match = CHOICE.search(text)
    if match:
        return f"chooses, {_quoted(match[0])}, and is no name; write one name a line"
    match = JOINED.search(text)
    if match and not (text[: match.start()] + text[match.end() :]).isupper():
        one = JOINED.sub(lambda sign: f" {sign[1].lower()} ", text)
        right = f"one name a line, or {_quoted(one)} if it is one"
        return f"joins prompts with '{match[1]}', and a name is one text; write {right}"
    return _marked(text)


def beside(text: str) -> str | None:
    """Return how to write a name that has a separator of a list before or after it; ``None`` for one without."""
    text = text.strip()
    right, match = bare(text), BESIDE.match(text)
    if not match or not _says_something(right):
        return None
    sign = (match[1] or text[0]).strip()
    right = "one name a line" if SEPARATED.search(right) else _quoted(right)
    return f"has '{sign}' beside it, as in a list; write {right}"


def bare(text: str) -> str:
    """Return a text without the bullets, quotes and separators that lists put around their entries."""
    while True:
        match = BULLET.match(text) or BESIDE.match(text)
        if match and match.lastindex and match.re is BESIDE:
            shorter = text[: match.start(1)]
        else:
            shorter = text[match.end() :] if match else _unquoted(text)
        shorter = shorter.strip()
        if shorter == text or not shorter:
            return text
        text = shorter


def doubts(text: str) -> Iterator[tuple[str, str]]:
    """Yield what the writer of a text may have meant differently: the kind, and a sentence without its subject."""
    match = SEPARATED.search(text)
    if match:
        sign = f"'{match[1].strip()}'" if match[1].strip() else "a tab"
        yield "list", f"looks like a list with {sign} and is read as one name; write one name a line if it is one"
    match = NUMBERED.fullmatch(text)
    if match:
        right = _quoted(match[2])
        yield "1.", f"begins with {_quoted(match[1])}, as in a list, and is read so; write {right} if it is one"
    match = SCALED.fullmatch(text)
    if match:
        yield ":", f"ends in {_quoted(match[2])}, which is text in a name; write {_quoted(match[1])} if it is a weight"
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
    match = BULLET.match(text)
    if match:
        return f"begins with {_quoted(match[0])}, as in a list; write {_quoted(right)}"
    if QUOTED.fullmatch(text):
        return f"has quotes around it, which text encoders read too; write {_quoted(right)}"
    if HALF_QUOTED.fullmatch(text):
        return f"begins with '{text[0]}', which nothing closes; write {_quoted(right)}"
    return None


def _quoted(text: str) -> str:
    return f"'{excerpt(spelled(text))}'"


def _unquoted(text: str) -> str:
    match = QUOTED.fullmatch(text)
    if match:
        return match[2] or match[3]
    match = HALF_QUOTED.fullmatch(text)
    return match[1] if match else text


def _says_something(text: str) -> bool:
    return any(map(str.isalnum, text))


def _with_neighbours(words: list[re.Match[str]], place: int, start: int, end: int) -> tuple[int, int]:
    """Return where an arrow begins and ends that has spaces inside, as ``- >`` has."""
    first, last = place, place
    while start == words[first].start() and first and all(map(_draws_arrows, words[first - 1][0])):
        first -= 1
        start = words[first].start()
    while end == words[last].end() and last + 1 < len(words) and all(map(_draws_arrows, words[last + 1][0])):
        last += 1
        end = words[last].end()
    return start, end


def _draws_arrows(char: str) -> bool:
    return char in DASHES or char in SIGNS or char in POINTS or _is_whole_arrow(char)


def _is_whole_arrow(char: str) -> bool:
    return "\x7f" < char < "\U0001f000" and "ARROW" in unicodedata.name(char, "")


def _is_arrow(before: str, run: str, after: str, several: bool) -> bool:
    """Return whether ``run``, characters that arrows are typed with, is one.

    ``before`` and ``after`` are the rest of its word; ``several`` says whether the text has other words.
    """
    if not before and not after:
        return several and not set(run) <= DASHES
    if "<" in before:  # ``<cat-toy>``, as textual inversions are named
        return False
    touched = before[-1:].isalnum(), after[:1].isalnum()
    pointed = bool(POINTS & set(run))
    back = run[0] in "<＜" and len(run) > 1 and set(run[1:]) <= DASHES | {"=", "＝"}
    strong = any(map(_is_whole_arrow, run)) or (pointed and len(run) > 1) or back
    return any(touched) if strong else pointed and all(touched)
