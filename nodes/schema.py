"""Schemas of nodes: what only newer hosts know is left out on older ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import signature

from comfy_api.latest import io

ALIASES = ("forget", "unlearn", "remove", "erase", "negative", "concept", "censor", "nsfw", "style", "artist")
"""What people who want something gone look for; search boxes find the nodes that erase by these words too."""

BY_TRAINING = tuple(f"{alias} by training" for alias in ALIASES)
"""The same for the methods that train, so that hosts list the one that needs no training first."""

PHRASES = tuple(
    f"{verb} {what}" for verb in ("remove", "delete", "forget", "unlearn")
    for what in ("concept", "object", "character", "style", "artist")
)  # fmt: skip
"""Hosts look for all words of a search in one alias."""

PACK = "concept erasure"


def schema(*, search_aliases: Sequence[str] = (), **more):
    """Return the schema of a node; ``more`` is what ``io.Schema`` takes. The pack's name finds all of its nodes.

    Hosts before 0.33 know no ``search_aliases``: there the node is found by its name alone.
    """
    if "search_aliases" in signature(io.Schema).parameters:
        more["search_aliases"] = [*search_aliases, PACK]
    return io.Schema(**more)


def advanced(one):
    """Return an input, hidden until the user asks for advanced inputs where the host has a button for that."""
    return with_extra(one, advanced=True)


def completed(one, *, listing: bool = False, erases: bool = False):
    """Return a text input in which the page offers names while one types, see ``web/completion.js``.

    With ``listing`` it is a list of concepts, one a line. With ``erases`` it is what its node erases, which the node
    announces before it runs, see ``web/announcement.js``.
    """
    return with_extra(one, completed={"listing": listing}, erases=erases)


def with_extra(one, **extra):
    """Return an input that tells the frontend more of itself than the host's class takes."""
    one.extra_dict = {**(getattr(one, "extra_dict", None) or {}), **extra}
    return one


class Choices(list):
    """The choices of a ``Combo``, which also takes those of earlier versions that it no longer shows."""

    def __init__(self, choices: Iterable[str], earlier: Iterable[str] = ()):
        super().__init__(choices)
        self.earlier = list(earlier)  # no set: a request may name what has no hash

    def __contains__(self, choice: object) -> bool:
        return super().__contains__(choice) or choice in self.earlier
