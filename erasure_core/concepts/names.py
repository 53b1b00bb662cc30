"""Comparing names: one spelling for each, and when two of them mean the same concept.

With a model at hand, two names are the same if its text encoders read the same tokens (``TextReader.reads``): T5
distinguishes ``Van Gogh`` from ``van gogh``, CLIP does not. Without a model, and whenever prompts to preserve are
compared with concepts to erase, normalised words are compared: without capitals, punctuation, ``'s`` and a leading
article, and with the singular for the plural.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable

from ..model import TextReader

Reads = Callable[[str], Hashable]
"""Maps a text to a value that is equal for texts which are the same name."""
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]"
)
JOINS, SELECTS = "\u200c\u200d", "\u180b-\u180f\ufe00-\ufe0f\U000e0000-\U000e0fff"
IDLE = re.compile(
    rf"(?<![^\x00-\x7f\s]|[0-9#*])[{JOINS}{SELECTS}]+"
    rf"|(?<=[0-9#*])(?!\ufe0f\u20e3)[{JOINS}{SELECTS}]+"
    rf"|[{JOINS}]+(?![^\x00-\x7f\s])"
)
"""Joiners and variation selectors without a neighbour that they could join or change."""
BACKSLASHED = re.compile(r"\\+([()])")
APOSTROPHES = "'’‘ʼ＇`´′"
ARTICLES = ("a", "an", "the")
IRREGULAR = {
    "people": "person", "children": "child", "mice": "mous", "geese": "goos", "feet": "foot", "teeth": "tooth",
    "cacti": "cactus", "octopi": "octopus", "wolves": "wolf", "knives": "knife", "leaves": "leaf", "elves": "elf",
}  # fmt: skip
LINKING = frozenset((*ARTICLES, "in", "of", "style", "on", "background"))
"""Words in prompts that name nothing by themselves."""


def visible(text: str) -> str:
    """Return a text without invisible characters, such as byte order marks and spaces of no width.

    A text that had some is also composed (NFC); one without is returned as it is.
    """
    if text.isascii() or not (INVISIBLE.search(text) or IDLE.search(text)):
        return text
    return unicodedata.normalize("NFC", IDLE.sub("", unicodedata.normalize("NFC", INVISIBLE.sub("", text))))


def spelled(text: str) -> str:
    """Return a text in its one spelling: visible and composed characters, single spaces, and ``(`` for ``\\(``."""
    text = visible(unicodedata.normalize("NFC", text))
    return " ".join((BACKSLASHED.sub(r"\1", text) if "\\" in text else text).split())


def folded(text: str) -> str:
    """Return a text as an encoder reads it that ignores capitals and compatibility forms of characters (NFKC)."""
    return spelled(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def words(text: str) -> tuple[str, ...]:
    """Return the words and numbers of a text, without capitals, punctuation, ``'s`` and invisible characters."""
    bare = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _spaced(text)).casefold())
    bare = re.sub(r"'s(?!\w)", " ", _spaced(bare))
    return tuple(re.findall(r"\d+|[^\d\s']+", bare))


def singular(word: str) -> str:
    """Return a stem that an English word shares with its regular plural, as ``fox`` with ``foxes``.

    The stem need not be a word (``hors`` for ``horse``). Of irregular plurals those in ``IRREGULAR`` and words that end
    in ``men`` are known.
    """
    if word in IRREGULAR or word.endswith("men"):
        return IRREGULAR.get(word) or word[:-2] + "an"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if len(word) > 3 and word.endswith("ie"):
        return word[:-2] + "y"
    if len(word) > 3 and word.endswith(("se", "xe", "ze", "che", "she", "oe")):
        return word[:-1]
    return word


def key(text: str) -> tuple[str, ...]:
    """Return the normalised words of a text: equal for ``a Cat``, ``cats``, ``cat's`` and ``cat_``."""
    parts = words(text)
    parts = parts[1:] if len(parts) > 1 and parts[0] in ARTICLES else parts
    return tuple(map(singular, parts)) or (folded(text),)


def content(text: str) -> set[str]:
    """Return the words of ``key`` that name something; all of them if none does."""
    parts = set(key(text))
    return parts - LINKING or parts


class Named:
    """A set of names that prompts are searched for; ``reads`` decides which texts are the same name."""

    def __init__(self, names: Iterable[str], reads: Reads = folded):
        names = list(names)
        self.reads, self.read = reads, {reads(name) for name in names}
        self.keys = {key(name): name for name in names}
        self.lengths = {len(one) for one in self.keys}

    def alone_in(self, prompt: str) -> bool:
        """Return whether a prompt is one of the names and nothing else."""
        return key(prompt) in self.keys or self.reads(prompt) in self.read

    def within(self, prompt: str) -> str | None:
        """Return a name whose words occur in a prompt one after the other, or ``None``."""
        parts = tuple(map(singular, words(prompt)))
        runs = (parts[start : start + length] for length in self.lengths for start in range(len(parts)))
        return next((self.keys[run] for run in (key(prompt), *runs) if run in self.keys), None)


def reader(model: TextReader) -> Reads:
    """Return a cached function from a text to the tokens that the text encoders of ``model`` read."""
    return functools.cache(lambda text: model.reads(spelled(text)))


def distinct(texts: Iterable[str], reads: Reads = folded) -> list[str]:
    """Return the texts in their one spelling, and of several that are read alike only the first."""
    first: dict[Hashable, str] = {}
    for text in map(spelled, texts):
        first.setdefault(reads(text), text)
    return list(first.values())


def finder(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that finds those of ``names`` which a text means.

    Names of the same spelling come first; if there is none, names that are ``folded`` alike; else those of the same
    ``key``.
    """
    names = list(dict.fromkeys(names))
    kinds: list[tuple[Reads, dict[Hashable, list[str]]]] = [(spelled, {}), (folded, {}), (key, {})]
    for alike, places in kinds:
        for name in names:
            places.setdefault(alike(name), []).append(name)
    return lambda text: next((places[alike(text)] for alike, places in kinds if alike(text) in places), [])


def _spaced(text: str) -> str:
    """Return letters with their marks, digits and apostrophes; other visible characters become spaces."""
    if text.isascii():
        return re.sub("[^0-9A-Za-z']", " ", text.replace("`", "'"))
    spaced = " "
    for char in visible(text):
        kind = "'" if char in APOSTROPHES else unicodedata.category(char)
        if kind in ("Mn", "Mc", "Me") and (spaced[-1] in " '" or spaced[-1].isdecimal()):
            kind = " "
        if kind in ("Nl", "No"):
            spaced += f" {char} "
        elif kind != "Cf":
            spaced += char if kind[0] in "LMN" else "'" if kind == "'" else " "
    return spaced
