"""Names to choose from while one types a list of concepts or prompts."""

from __future__ import annotations

import functools
from bisect import bisect_left
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice, takewhile

from ..arguments import checked
from .aliases import aliases_of, known_words, with_aliases
from .common import COMMON, without_style
from .name_lists import LISTS, name_list
from .names import folded
from .parse import COMMENT, PARTED, ConceptError, concepts_and_warnings

LEAST, MOST, WORDS = 2, 6, 10
"""The letters that are typed before names are offered, the most names, and the most words of a name."""


@dataclass(frozen=True)
class Completion:
    """A name to choose, what it is, and the line, before and behind the caret, that choosing it makes."""

    name: str
    note: str
    before: str
    after: str


@checked
def completions(before: str, after: str, *, listing: bool = False, limit: int = MOST) -> list[Completion]:
    """Return names that begin with what is typed, everyday ones first, behind the other names of a whole one.

    ``before`` and ``after`` are the text on both sides of the caret; only its own line is completed. What is typed may
    be the end of a prompt: behind ``in the style of van`` come the names that begin with ``van``. Capitals make no
    difference. With ``listing`` the text is a list of concepts, one a line: behind a name that is whole, other names
    that reach the concept of the line are offered too, each as a line of its own with the same target. ``limit`` is the
    most of either. Raises ``ValueError`` for arguments of another type.
    """
    start, end = before.rpartition("\n")[2], after.partition("\n")[0]
    if COMMENT.search(start) or end[:1].isalnum():
        return []
    ends = _ends(PARTED.split(start)[-1])
    names = [Completion(name, note, start.removesuffix(typed) + name, end) for typed, name, note in _names(ends, limit)]
    whole = any(folded(typed) in _known() for typed in ends)
    return (_other_names(before, after, limit) if listing and whole else []) + names


def _ends(text: str) -> list[str]:
    """Return the ends of a text that begin with one of its last ``WORDS`` words, from the longest on."""
    starts = [at for at in range(len(text)) if not text[at].isspace() and (not at or text[at - 1].isspace())]
    return [text[at:] for at in starts[-WORDS:] if len(text) - at >= LEAST]


def _names(ends: list[str], limit: int) -> list[tuple[str, str, str]]:
    """Return names that the first of ``ends`` begins that any name has: that end, the name, and what the name is."""
    for typed in ends:
        names = nsmallest(limit, _beginning(folded(typed)))
        if names:
            return [(typed, name, note) for *_, name, note in names]
    return []


def _beginning(typed: str) -> list[tuple[int, int, str, str]]:
    """Return names in which a word begins with ``typed``, except for itself: rank, length, name, and what it is."""
    index = _index()
    start = bisect_left(index, (typed,))
    hits = takewhile(lambda row: row[0].startswith(typed), islice(index, start, None))
    names = {name: (rank, len(name), name, note) for _, rank, name, note in hits if folded(name) != typed}
    return list(names.values())


@functools.cache
def _known() -> dict[str, tuple[int, str, str]]:
    """Return all names without capitals, each with its rank, the name as it is written, and what it is."""
    lists = [(1, which.removesuffix("s"), name_list(which)) for which in LISTS]
    everyday, other = (0, "everyday name", map(without_style, COMMON)), (2, "word", known_words())
    known: dict[str, tuple[int, str, str]] = {}
    for rank, note, names in (*lists, everyday, other):
        for name in names:
            known.setdefault(folded(name), (rank, name, note))
    return known


@functools.cache
def _index() -> list[tuple[str, int, str, str]]:
    """Return all names by each of their ends that begin with a word, sorted: the end, rank, name, and what it is."""
    return sorted(
        (end, 2 * rank + (end != whole), name, note)
        for whole, (rank, name, note) in _known().items()
        for end in _ends(whole)
    )


def _other_names(before: str, after: str, limit: int) -> list[Completion]:
    """Return the other names of the concept in the caret's line that no line lists."""
    start, end = before.rpartition("\n")[2], after.partition("\n")[0]
    try:
        (concept,), _ = concepts_and_warnings(start + end)
    except ConceptError:
        return []
    listed = {folded(PARTED.split(line)[0]) for line in (before + after).splitlines()}
    others = with_aliases([concept], functools.partial(aliases_of, limit=limit))[1:]
    return [
        Completion(str(one), f"another name for {concept.name}", f"{start.rstrip()}{end.rstrip()}\n{one}", "")
        for one in others
        if folded(one.name) not in listed
    ]
