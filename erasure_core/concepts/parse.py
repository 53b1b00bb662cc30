"""Concepts as a user names them: one a line, ``van gogh -> art``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..quoting import shown, unreadable
from .names import Named, Reads, folded, key, spelled, visible
from .prompt_syntax import arrow_in, beside, doubts, points_back, wrong

log = logging.getLogger(__name__)
ARROW = "->"
EMPTY_TARGET = " "  # the prompt of a concept that nothing in particular takes the place of
COMMENT = re.compile(r"(^|\s)#(\s.*)?$")
OTHER_FORMATS = {
    b"PK\x03\x04": "a spreadsheet or an archive", b"\xd0\xcf\x11\xe0": "a spreadsheet or a document",
    b"%PDF": "a PDF", b"{\\rtf": "a document",
}  # fmt: skip
PARTED = re.compile(rf"(?<!\S){ARROW}(?!\S)")


class ConceptError(ValueError):
    """A line of a concept list cannot be used; the message quotes it and says what would be right."""


@dataclass(frozen=True)
class Concept:
    """What to erase, and what its prompts should give ``instead`` ("" for nothing in particular)."""

    name: str
    instead: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.instead, str):
            raise ConceptError(f"a concept is text, not {shown(repr(self.name))} -> {shown(repr(self.instead))}")
        for text in (self.name, self.instead):
            check_text(text, f"the concept '{shown(text)}'")
        object.__setattr__(self, "name", spelled(self.name))
        object.__setattr__(self, "instead", spelled(self.instead))
        if not self.name:
            raise ConceptError("a concept needs a name, for example 'van gogh -> art' or just 'van gogh'")
        if folded(self.name) == folded(self.instead):
            raise ConceptError(f"'{shown(str(self))}' maps a concept to itself; name something else after '{ARROW}'")

    def __str__(self) -> str:
        return f"{self.name} {ARROW} {self.instead}" if self.instead else self.name


def parse_concepts(text: str | bytes, what: str = "concepts", *, separator: str | None = None) -> list[Concept]:
    """Read one concept a line; blank lines, and comments that begin with ``#``, are passed over.

    ``what`` is how errors call the text; at a ``separator``, as a comma, lines are split too. Raises ``ConceptError``
    quoting the line for an empty name, for what looks like an arrow, an entry of another list or syntax of prompts, for
    a concept that is mapped to itself or listed twice, and when no line holds a concept; warns of a name that looks
    like a list, or that text encoders read otherwise than its writer may mean.
    """
    concepts: dict[str, Concept] = {}
    lines, told = list(_lines(text, what)), _Doubts()
    for number, line in lines:
        for part in split(line, separator):
            where = f"line {number} of {what}, '{shown(part)}'," if len(lines) + number > 2 else None
            concept = _parse_line(part, where, told)
            earlier = concepts.setdefault(concept.name, concept)
            if earlier is not concept:
                raise ConceptError(f"{where or what} lists '{shown(concept.name)}' a second time")
    if not concepts:
        raise ConceptError(f"no concept is named in {what}: write one, or one a line, for example 'van gogh -> art'")
    check_targets(concepts.values(), concepts)
    told.of_targets(concepts.values())
    told.log()
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
        prompts = [prompts]
    if isinstance(prompts, bytes) or not isinstance(prompts, Iterable):
        raise ConceptError(f"{what} is text or a list of texts, not {shown(prompts)}")
    found = list(prompts)
    for one in found:
        if not isinstance(one, str):
            raise ConceptError(f"{what} lists {shown(one)}, which is not text")
        check_text(one, f"{what} lists '{shown(one)}', which")
    return found


def kept_prompts(prompts: Iterable[str] | str, what: str) -> list[str]:
    """``as_prompts`` that are to be left alone. Raises ``ConceptError`` for what no text encoder is meant to read."""
    found = as_prompts(prompts, what)
    for prompt in found:
        problem = wrong(prompt)
        if PARTED.search(prompt.strip()) or _has_an_arrow(prompt):
            problem = "says what to draw instead; write only what to leave alone"
        if problem:
            raise ConceptError(f"{what} lists '{shown(prompt)}', which {problem}")
    return found


def as_concepts(concepts: Iterable[Concept | str] | Concept | str) -> list[Concept]:
    """Concepts from what a caller passes: text to parse, one concept, or several of either."""
    if isinstance(concepts, str):
        return parse_concepts(concepts)
    if isinstance(concepts, Concept):
        concepts = [concepts]
    if isinstance(concepts, Mapping) or not isinstance(concepts, Iterable):
        raise ConceptError(f"concepts is text or a list of concepts, not {shown(repr(concepts))}")
    concepts = list(concepts)
    for one in concepts:
        if isinstance(one, str) and len(one.splitlines()) > 1:
            raise ConceptError(f"the concept '{shown(one)}' has several lines; list each concept by itself")
    told = _Doubts()
    parsed = [_parse_line(_without_comment(one), None, told) if isinstance(one, str) else one for one in concepts]
    if not parsed:
        raise ConceptError("concepts is empty: name at least one concept to erase")
    seen: set[str] = set()
    for concept in parsed:
        if not isinstance(concept, Concept):
            raise ConceptError(f"a concept is text, not {shown(repr(concept))}")
        if concept.name in seen:
            raise ConceptError(f"'{shown(concept.name)}' is listed twice")
        _check_target(concept, f"the concept '{shown(str(concept))}'")
        seen.add(concept.name)
    check_targets(parsed, seen)
    if any(isinstance(one, str) for one in concepts):
        told.of_targets(parsed)
    told.log()
    return parsed


def check_targets(concepts: Iterable[Concept], erased: Iterable[str], reads: Reads = folded) -> None:
    """Raise ``ConceptError`` for a concept whose prompts would draw what is to be erased too."""
    names = Named(erased, reads)
    for concept in concepts:
        if concept.instead and names.alone_in(concept.instead):
            raise ConceptError(
                f"'{shown(str(concept))}' draws '{shown(concept.instead)}', which is to be erased too; name something "
                f"else after '{ARROW}', or leave '{shown(concept.instead)}' out of what is erased"
            )


def name_of(concept: str, what: str = "concept") -> str:
    """The name of one concept, without what comes instead of it; ``what`` is how errors call the text."""
    found, *more = parse_concepts(concept, what)
    if more:
        raise ConceptError(f"{what} has {1 + len(more)} lines; name one of them")
    return found.name


def single_concept(concepts: Iterable[Concept | str] | Concept | str, method: str) -> Concept:
    """The only concept of what a caller passes to a ``method`` that erases one at a time."""
    found, *more = as_concepts(concepts)
    if more:
        raise ConceptError(f"{method} erases one concept at a time, got {1 + len(more)}; run it once for each")
    return found


def split(line: str, separator: str | None) -> list[str]:
    """What stands between separators, without what is blank; without a separator the line."""
    return [part.strip() for part in line.split(separator) if part.strip()] if separator else [line]


def check_text(text: str, where: str) -> None:
    """Raise ``ConceptError`` for a character that no prompt can have."""
    found = unreadable(text)
    if found:
        raise ConceptError(f"{where} has '{shown(found)}', which is not text; take it out, and save files as UTF-8")


def decoded(text: str | bytes, what: str) -> str:
    """Text as it was typed, or as the bytes of a file hold it; ``what`` is how errors call it."""
    if not isinstance(text, str | bytes):
        raise ConceptError(f"{what} is text, not {shown(repr(text))}")
    if isinstance(text, bytes):
        kind = next((kind for start, kind in OTHER_FORMATS.items() if text.startswith(start)), None)
        if kind:
            raise ConceptError(f"{what} is {kind}, not text; save it as CSV in UTF-8, or as text with one name a line")
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConceptError(f"{what} is not UTF-8 text: {error}; save it as UTF-8") from error
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass").lstrip("\ufeff")  # joins halves


def _lines(text: str | bytes, what: str) -> Iterable[tuple[int, str]]:
    for number, line in enumerate(visible(decoded(text, what)).splitlines(), start=1):
        line = _without_comment(line) if not line.strip().startswith("#") else ""
        check_text(line, f"line {number} of {what}, '{shown(line)}',")
        if line:
            yield number, line


def _without_comment(line: str) -> str:
    return COMMENT.sub("", visible(line)).strip()


def _parse_line(line: str, where: str | None, told: _Doubts) -> Concept:
    where = where or f"the concept '{shown(line)}'"
    check_text(line, where)
    name, *rest = PARTED.split(line)
    if len(rest) > 1:
        raise ConceptError(f"{where} has more than one '{ARROW}'; write 'concept {ARROW} what to draw instead'")
    if not line.strip():
        raise ConceptError("the concept is empty; name one, for example 'van gogh -> art' or just 'van gogh'")
    if rest and not rest[0].strip():
        raise ConceptError(f"{where} names nothing after '{ARROW}'; say what to draw instead, or leave it out")
    if not name.strip():
        raise ConceptError(f"{where} names no concept before '{ARROW}'")
    for part in (name, *rest):
        _check_arrows(part, where)
    for part in (line, name, *rest):
        problem = wrong(part) or beside(part)
        if problem:
            raise ConceptError(f"{where} {problem}")
    if rest and folded(name) == folded(rest[0]):
        raise ConceptError(f"{where} maps a concept to itself; name something else after '{ARROW}'")
    concept = Concept(name, rest[0] if rest else "")
    _check_target(concept, where)
    told.of(where, name, *rest)
    return concept


def _check_target(concept: Concept, where: str) -> None:
    if key(concept.name) == key(concept.instead):
        raise ConceptError(f"{where} maps a concept to itself; name something else after '{ARROW}'")


def _check_arrows(text: str, where: str) -> None:
    found = arrow_in(text)
    if found:
        before, sign, after = (shown(" ".join(part.split())) for part in found)
        right = f"'{before} {ARROW} {after}'" if before and after else f"'{ARROW}' with a space on both sides"
        if sign == ARROW:
            raise ConceptError(f"{where} needs a space on both sides of '{ARROW}'; write {right}")
        if points_back(sign) and before and after:
            either = f"{right} or '{after} {ARROW} {before}'"
            raise ConceptError(f"{where} has '{sign}', which points back; write what to erase first, {either}")
        if sign == "|" and before and after:
            right += " for what to draw instead, or one name a line"
        raise ConceptError(f"{where} has the unknown separator '{sign}'; write {right}")


def _has_an_arrow(prompt: str) -> bool:
    """Of more than one sign: a prompt may compare and part."""
    found = arrow_in(prompt)
    return bool(found) and (len(found[1]) > 1 or not found[1].isascii())


class _Doubts:
    """What to warn of in a list: each kind once, with the first line that has it."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def of(self, where: str, *texts: str) -> None:
        for text in texts:
            for kind, doubt in doubts(text):
                self.found.setdefault(kind, []).append(f"{where.rstrip(',')} {doubt}")

    def of_targets(self, concepts: Iterable[Concept]) -> None:
        """What is drawn instead of one concept and names another among other things."""
        concepts = list(concepts)
        erased = Named([concept.name for concept in concepts])
        for concept in concepts:
            name = erased.within(concept.instead) if concept.instead else None
            if name and name != concept.name:
                doubt = f"'{shown(str(concept))}' draws what names '{shown(name)}', which is to be erased too"
                self.found.setdefault("target", []).append(doubt)

    def log(self) -> None:
        for first, *others in self.found.values():
            log.warning("%s%s.", first, f" (so do {len(others)} more)" if others else "")
