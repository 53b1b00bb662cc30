"""Concepts as a user names them: one a line, ``van gogh -> art``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .names import shown

ARROW = "->"
EMPTY_TARGET = " "  # the prompt of a concept that nothing in particular takes the place of
SHOWN = 20  # names that a sentence lists
COMMENT = re.compile(r"(^|\s)#(\s.*)?$")
LOOKALIKE_ARROWS = re.compile(r"=>|-->|->>|[–—]>|→|⇒|⟶|>>|\||(?<!-)>")


class ConceptError(ValueError):
    """A line of a concept list cannot be used; the message quotes it and says what would be right."""


@dataclass(frozen=True)
class Concept:
    """What to erase, and what its prompts should give ``instead`` ("" for nothing in particular)."""

    name: str
    instead: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.instead, str):
            raise ConceptError(f"a concept is text, not {self.name!r} -> {self.instead!r}")
        object.__setattr__(self, "name", self.name.strip())
        object.__setattr__(self, "instead", self.instead.strip())
        if not self.name:
            raise ConceptError("a concept needs a name, for example 'van gogh -> art' or just 'van gogh'")
        if self.name.casefold() == self.instead.casefold():
            raise ConceptError(f"'{self}' maps a concept to itself; name something else after '{ARROW}'")

    def __str__(self) -> str:
        return f"{self.name} {ARROW} {self.instead}" if self.instead else self.name


def parse_concepts(text: str, what: str = "concepts") -> list[Concept]:
    """Read one concept a line; blank lines, and comments that begin with ``#``, are passed over.

    ``what`` is how errors call the text. Raises ``ConceptError`` quoting the line for an empty name, an unknown
    separator, a concept that is mapped to itself or listed twice, and when no line holds a concept.
    """
    concepts: dict[str, Concept] = {}
    lines = list(_lines(text, what))
    for number, line in lines:
        where = f"line {number} of {what}, '{_short(line)}'," if len(lines) > 1 else None
        concept = _parse_line(line, where)
        earlier = concepts.setdefault(concept.name.casefold(), concept)
        if earlier is not concept:
            raise ConceptError(f"{where} lists '{concept.name}' a second time")
    if not concepts:
        raise ConceptError(f"no concept is named in {what}: write one, or one a line, for example 'van gogh -> art'")
    return list(concepts.values())


def parse_prompts(text: str, what: str = "prompts") -> list[str]:
    """Read one prompt a line, each once; blank lines and comments that begin with ``#`` are passed over.

    ``what`` is how errors call the text.
    """
    return list(dict.fromkeys(line for _, line in _lines(text, what)))


def as_prompts(prompts: Iterable[str] | str, what: str = "prompts") -> list[str]:
    """Prompts, or names, from what a caller passes: one text, or several.

    ``what`` is how errors call them. Raises ``ConceptError`` for what is not text, and for one text of several lines.
    """
    if isinstance(prompts, str):
        if len(prompts.splitlines()) > 1:
            raise ConceptError(f"{what} is one text of several lines; pass a list, as parse_prompts makes of lines")
        return [prompts]
    if isinstance(prompts, bytes) or not isinstance(prompts, Iterable):
        raise ConceptError(f"{what} is text or a list of texts, not {shown(prompts)}")
    found = list(prompts)
    for one in found:
        if not isinstance(one, str):
            raise ConceptError(f"{what} lists {shown(one)}, which is not text")
    return found


def as_concepts(concepts: Iterable[Concept | str] | Concept | str) -> list[Concept]:
    """Concepts from what a caller passes: text to parse, one concept, or several of either."""
    if isinstance(concepts, str):
        return parse_concepts(concepts)
    if isinstance(concepts, Concept):
        return [concepts]
    if not isinstance(concepts, Iterable):
        raise ConceptError(f"concepts is text or a list of concepts, not {concepts!r}")
    parsed = [_parse_line(_without_comment(one)) if isinstance(one, str) else one for one in concepts]
    if not parsed:
        raise ConceptError("concepts is empty: name at least one concept to erase")
    seen: set[str] = set()
    for concept in parsed:
        if concept.name.casefold() in seen:
            raise ConceptError(f"'{concept.name}' is listed twice")
        seen.add(concept.name.casefold())
    return parsed


def single_concept(concepts: Iterable[Concept | str] | Concept | str, method: str) -> Concept:
    """The only concept of what a caller passes to a ``method`` that erases one at a time."""
    found, *more = as_concepts(concepts)
    if more:
        raise ConceptError(f"{method} erases one concept at a time, got {1 + len(more)}; run it once for each")
    return found


def bare(name: str) -> str:
    """What tells names apart: without capitals and without an article before them."""
    return re.sub(r"^(an?|the)\s+(?=\S)", "", name.strip().casefold())


def quoted(names: Sequence[str]) -> str:
    return shortened([f"'{name}'" for name in names])


def shortened(names: Sequence[str]) -> str:
    """Names for a sentence, not more than a reader takes in."""
    return ", ".join(names if len(names) <= SHOWN else [*names[:SHOWN], f"{len(names) - SHOWN} more"])


def _lines(text: str | bytes, what: str) -> Iterable[tuple[int, str]]:
    if not isinstance(text, str | bytes):
        raise ConceptError(f"{what} is text, not {text!r}")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConceptError(f"{what} is not UTF-8 text: {error}; save it as UTF-8") from error
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # halves of characters become \ufffd
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        line = _without_comment(line) if not line.strip().startswith("#") else ""
        if "\x00" in line or "\ufffd" in line:
            raise ConceptError(f"line {number} of {what}, '{_short(line)}', is not UTF-8 text; save it as UTF-8")
        if line:
            yield number, line


def _without_comment(line: str) -> str:
    return COMMENT.sub("", line).strip()


def _parse_line(line: str, where: str | None = None) -> Concept:
    where = where or f"the concept '{_short(line)}'"
    name, *rest = line.split(ARROW)
    if len(rest) > 1:
        raise ConceptError(f"{where} has more than one '{ARROW}'; write 'concept {ARROW} what to draw instead'")
    stray = LOOKALIKE_ARROWS.search(line)
    if stray:
        raise ConceptError(f"{where} has the unknown separator '{stray[0]}'; write '{ARROW}'")
    if not line.strip():
        raise ConceptError("the concept is empty; name one, for example 'van gogh -> art' or just 'van gogh'")
    if rest and not rest[0].strip():
        raise ConceptError(f"{where} names nothing after '{ARROW}'; say what to draw instead, or leave it out")
    if not name.strip():
        raise ConceptError(f"{where} names no concept before '{ARROW}'")
    if rest and name.strip().casefold() == rest[0].strip().casefold():
        raise ConceptError(f"{where} maps a concept to itself; name something else after '{ARROW}'")
    concept = Concept(name, rest[0] if rest else "")
    if " #" in " ".join(str(concept).split()):
        raise ConceptError(f"{where} has '#' behind a space; a comment has a space behind its '#' too")
    return concept


def _short(line: str) -> str:
    return line if len(line) <= 80 else line[:77] + "..."
