"""Other names of a concept, by the table in ``data/aliases.txt`` that ``tools/make_names.py`` distils.

Two words are aliases of each other if the text encoder of Stable Diffusion 1.4 reads them nearly alike: the cosine of
the two whole contexts, ``77 x 768`` numbers each, is at least ``MINIMUM``. The table holds single tokens of CLIP only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..arguments import checked
from .name_lists import name_list
from .names import ARTICLES, Named, folded, key, words
from .parse import Concept

TABLE = Path(__file__).with_name("data") / "aliases.txt"
MINIMUM = 0.87
"""The least similarity in the table, and the least by default that names suggest: below it are other things."""
LIMIT = 10
"""The most aliases of a word in the table, and the most by default that names suggest."""
Alias = tuple[str, float]
"""Another name and its similarity, at most 1."""


@checked
def aliases_of(name: str, minimum: float = MINIMUM, limit: int = LIMIT) -> list[Alias]:
    """Return the nearest other words for ``name`` with their similarities, the most similar first.

    The name is looked up as a whole: first without capitals, then also without article and punctuation and as one word
    (``donald trump`` as ``donaldtrump``), at last in the singular. For a name that the table lacks nothing is returned,
    rather than other names for its parts. ``minimum`` is the least similarity and ``limit`` the most names.
    """
    near = [(alias, similarity) for alias, similarity in _row(name) if similarity >= minimum]
    return [one for one in near if folded(one[0]) != folded(name)][:limit]


@checked
def candidates_of(name: str) -> list[str]:
    """Return names that may reach the same concept, for a text encoder to rank.

    They are the aliases of the table, the ``spellings_of`` the name, and the aliases of the aliases.
    """
    near = [alias for alias, _ in _row(name)]
    further = [alias for one in near for alias, _ in _row(one)]
    names = dict.fromkeys([*near, *spellings_of(name), *further])
    return [one for one in names if folded(one) != folded(name)]


def spellings_of(name: str) -> list[str]:
    """Return the name written as one word, if it has several, and an artist's name in full and shorter."""
    parts = _parts(name)
    artists = [artist for artist, known in _artists().items() if parts and set(parts) <= set(known)]
    shorter = any(_artists()[artist] == parts for artist in artists) and len(parts) > 1
    names = ["".join(parts), *artists, *([" ".join(parts[1:]), parts[-1]] if shorter else [])]
    return [one for one in dict.fromkeys(names) if one and folded(one) != folded(name)]


def with_aliases(
    concepts: Sequence[Concept], aliases: Callable[[str], Iterable[Alias]], spared: Iterable[str] = ()
) -> list[Concept]:
    """Return ``concepts`` and behind them their ``aliases``, each with the target of its concept.

    A name that a target or one of the ``spared`` prompts holds is left out, and so is one that is listed already.
    """
    texts = [*spared, *(concept.instead for concept in concepts if concept.instead)]
    listed = {folded(concept.name): concept for concept in concepts}
    for concept in concepts:
        for alias, _ in aliases(concept.name):
            named = Named([alias])
            if not any(named.within(text) for text in texts):
                listed.setdefault(folded(alias), Concept(alias, concept.instead))
    return list(listed.values())


def known_words() -> list[str]:
    """Return the words of the table, sorted."""
    return list(_table())


def _row(name: str) -> list[Alias]:
    """Return what the table holds of a name, in the first of its spellings that the table knows."""
    spellings = (folded(name), "".join(_parts(name)), "".join(key(name)))
    return next((_parsed(_table()[one]) for one in spellings if one in _table()), [])


def _parts(name: str) -> tuple[str, ...]:
    """Return the words of a name without a leading article."""
    parts = words(name)
    return parts[1:] if len(parts) > 1 and parts[0] in ARTICLES else parts


def _parsed(row: str) -> list[Alias]:
    fields = row.split()
    return [(alias, int(percent) / 100) for alias, percent in zip(fields[::2], fields[1::2], strict=True)]


@functools.cache
def _table() -> Mapping[str, str]:
    """Return the rest of each line of the table by the word that it begins with."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return {word: row for word, _, row in (line.partition(" ") for line in lines)}


@functools.cache
def _artists() -> Mapping[str, tuple[str, ...]]:
    """Return the words of each listed artist's name."""
    return {artist: words(artist) for artist in name_list("artists")}
