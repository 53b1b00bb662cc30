"""How names and prompts are spelled, shown and compared.

Where a model is at hand, what its text encoders read tells names apart (``TextToImageModel.reads``): T5 tells ``Van
Gogh`` from ``van gogh``, CLIP does not. Where none is, and wherever what is to be preserved is held against what is to
be erased, normalised words do: without capitals, punctuation, ``'s`` and a leading article, plurals as the singular.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable

Reads = Callable[[str], Hashable]
"""What is read of a text: equal for texts that are the same name."""
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]"
)
JOINS, SELECTS = "\u200c\u200d", "\u180b-\u180f\ufe00-\ufe0f\U000e0000-\U000e0fff"
IDLE = re.compile(
    rf"(?<![^\x00-\x7f\s]|[0-9#*])[{JOINS}{SELECTS}]+"
    rf"|(?<=[0-9#*])(?!\ufe0f\u20e3)[{JOINS}{SELECTS}]+"
    rf"|[{JOINS}]+(?![^\x00-\x7f\s])"
)
"""What joins letters and pictures or selects their form, where there are none beside it that it could."""
BACKSLASHED = re.compile(r"\\+([()])")
APOSTROPHES = "'’‘ʼ＇`´′"
ARTICLES = ("a", "an", "the")
IRREGULAR = {
    "people": "person", "children": "child", "mice": "mous", "geese": "goos", "feet": "foot", "teeth": "tooth",
    "cacti": "cactus", "octopi": "octopus", "wolves": "wolf", "knives": "knife", "leaves": "leaf", "elves": "elf",
}  # fmt: skip
LINKING = frozenset((*ARTICLES, "in", "of", "style", "on", "background"))
"""Words of prompts that name nothing by themselves."""


def visible(text: str) -> str:
    """A text without byte order marks, spaces of no width and others that nobody sees; composed, where it had any."""
    if text.isascii() or not (INVISIBLE.search(text) or IDLE.search(text)):
        return text
    return unicodedata.normalize("NFC", IDLE.sub("", unicodedata.normalize("NFC", INVISIBLE.sub("", text))))


def spelled(text: str) -> str:
    """A text in one spelling: visible and composed characters, single spaces, ``\\(`` as the bracket that it means."""
    text = visible(unicodedata.normalize("NFC", text))
    return " ".join((BACKSLASHED.sub(r"\1", text) if "\\" in text else text).split())


def folded(text: str) -> str:
    """A text as an encoder reads it that knows neither capitals nor forms of a character."""
    return spelled(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def words(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, without capitals, punctuation and ``'s``; what is invisible is passed over."""
    bare = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _spaced(text)).casefold())
    bare = re.sub(r"'s(?!\w)", " ", _spaced(bare))
    return tuple(re.findall(r"\d+|[^\d\s']+", bare))


def singular(word: str) -> str:
    """What an English word and its regular plural have in common: ``fox`` and ``foxes``, ``cherry`` and ``cherries``.

    It need not be a word itself (``hors`` of ``horse``). Of other plurals only those of ``IRREGULAR`` and those in
    ``men`` are known.
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
    """What is the same of texts that name one thing, as far as words tell: ``a Cat``, ``cats``, ``cat's``, ``cat_``."""
    found = words(text)
    found = found[1:] if len(found) > 1 and found[0] in ARTICLES else found
    return tuple(map(singular, found)) or (folded(text),)


def content(text: str) -> set[str]:
    """The words of ``key`` that name something; all of them where none does."""
    found = set(key(text))
    return found - LINKING or found


class Named:
    """Names, to hold prompts against."""

    def __init__(self, names: Iterable[str], reads: Reads = folded):
        names = list(names)
        self.reads, self.read = reads, {reads(name) for name in names}
        self.keys = {key(name): name for name in names}
        self.lengths = {len(one) for one in self.keys}

    def alone_in(self, prompt: str) -> bool:
        """Whether a prompt is one of the names and nothing else."""
        return key(prompt) in self.keys or self.reads(prompt) in self.read

    def within(self, prompt: str) -> str | None:
        """A name whose words stand one behind the other in a prompt."""
        among = tuple(map(singular, words(prompt)))
        runs = (among[start : start + length] for length in self.lengths for start in range(len(among)))
        return next((self.keys[run] for run in (key(prompt), *runs) if run in self.keys), None)


def reader(model) -> Reads:
    """What tells names apart where a ``TextToImageModel`` is at hand: all that its text encoders read of one."""
    return functools.cache(lambda text: model.reads(spelled(text)))


def distinct(texts: Iterable[str], reads: Reads = folded) -> list[str]:
    """The texts as ``spelled``, the first of those that are read alike."""
    found: dict[Hashable, str] = {}
    for text in map(spelled, texts):
        found.setdefault(reads(text), text)
    return list(found.values())


def finder(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Finds those of ``names`` that a text stands for: spelled like it, or else ``folded``, or else of its ``key``."""
    names = list(dict.fromkeys(names))
    kinds: list[tuple[Reads, dict[Hashable, list[str]]]] = [(spelled, {}), (folded, {}), (key, {})]
    for alike, places in kinds:
        for name in names:
            places.setdefault(alike(name), []).append(name)
    return lambda text: next((places[alike(text)] for alike, places in kinds if alike(text) in places), [])


def _spaced(text: str) -> str:
    """Letters with their marks, numbers without any, and apostrophes; what is invisible goes, all else is a space."""
    if text.isascii():
        return re.sub("[^0-9A-Za-z']", " ", text.replace("`", "'"))
    found = " "
    for one in visible(text):
        kind = "'" if one in APOSTROPHES else unicodedata.category(one)
        if kind in ("Mn", "Mc", "Me") and (found[-1] in " '" or found[-1].isdecimal()):
            kind = " "
        if kind in ("Nl", "No"):
            found += f" {one} "
        elif kind != "Cf":
            found += one if kind[0] in "LMN" else "'" if kind == "'" else " "
    return found
