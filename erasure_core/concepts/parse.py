"""Parsing of concepts and prompts: one a line, as ``van gogh -> art``, or what a caller passes in Python."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..quoting import excerpt, unreadable
from .names import Named, Reads, folded, key, spelled, visible
from .prompt_syntax import arrow_in, beside, doubts, points_back, wrong

log = logging.getLogger(__name__)
ARROW = "->"
EMPTY_TARGET = " "  # the target prompt of a concept that names none
COMMENT = re.compile(r"(^|\s)#(\s.*)?$")
OTHER_FORMATS = {
    b"PK\x03\x04": "a spreadsheet or an archive", b"\xd0\xcf\x11\xe0": "a spreadsheet or a document",
    b"%PDF": "a PDF", b"{\\rtf": "a document",
}  # fmt: skip
PARTED = re.compile(rf"(?<!\S){ARROW}(?!\S)")


class ConceptError(ValueError):
    """A line of a list of concepts cannot be used; the message quotes it and says what would be right."""


@dataclass(frozen=True)
class Concept:
    """A concept to erase, and its target.

    ``name`` is the concept in words. ``instead`` is the target: what prompts that name the concept should draw; by
    default "", nothing in particular. Both are stored in one spelling (``names.spelled``). Raises ``ConceptError`` for
    an empty name, for text that no prompt can have, and for a concept that is its own target.
    """

    name: str
    instead: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.instead, str):
            raise ConceptError(f"a concept is text, not {excerpt(repr(self.name))} -> {excerpt(repr(self.instead))}")
        for text in (self.name, self.instead):
            check_text(text, f"the concept '{excerpt(text)}'")
        object.__setattr__(self, "name", spelled(self.name))
        object.__setattr__(self, "instead", spelled(self.instead))
        if not self.name:
            raise ConceptError("a concept needs a name, for example 'van gogh -> art' or just 'van gogh'")
        if folded(self.name) == folded(self.instead):
            raise ConceptError(f"'{excerpt(str(self))}' maps a concept to itself; name something else after '{ARROW}'")

    def __str__(self) -> str:
        return f"{self.name} {ARROW} {self.instead}" if self.instead else self.name


def parse_concepts(text: str | bytes, what: str = "concepts", *, separator: str | None = None) -> list[Concept]:
    """Parse one concept a line; blank lines, and comments that begin with ``#``, are skipped.

    ``what`` is what error messages call the text. Lines are also split at ``separator``, for example ","; by default
    they are not. Raises ``ConceptError`` that quotes the line for an empty name, for what looks like another kind of
    arrow, like an entry of another kind of list or like prompt syntax, for a concept that is its own target or listed
    twice, and when there is no concept at all. Warns of a name that looks like a list, or that text encoders may read
    differently from what the writer means.
    """
    concepts, warnings = concepts_and_warnings(text, what, separator=separator)
    for warning in warnings:
        log.warning(warning)
    return concepts


def concepts_and_warnings(
    text: str | bytes, what: str = "concepts", *, separator: str | None = None
) -> tuple[list[Concept], list[str]]:
    """Return what ``parse_concepts`` returns, and the sentences that it logs as warnings."""
    concepts: dict[str, Concept] = {}
    lines, warnings = list(_lines(text, what)), _Doubts()
    for number, line in lines:
        for part in split(line, separator):
            where = f"line {number} of {what}, '{excerpt(part)}'," if len(lines) + number > 2 else None
            concept = _parse_line(part, where, warnings)
            earlier = concepts.setdefault(concept.name, concept)
            if earlier is not concept:
                raise ConceptError(f"{where or what} lists '{excerpt(concept.name)}' a second time")
    if not concepts:
        raise ConceptError(f"no concept is named in {what}: write one, or one a line, for example 'van gogh -> art'")
    check_targets(concepts.values(), concepts)
    warnings.add_targets(concepts.values())
    return list(concepts.values()), warnings.sentences()


def parse_prompts(text: str | bytes, what: str = "prompts") -> list[str]:
    """Parse one prompt a line, each once; blank lines and comments that begin with ``#`` are skipped.

    ``what`` is what error messages call the text.
    """
    return list(dict.fromkeys(line for _, line in _lines(text, what)))


def as_prompts(prompts: Iterable[str] | str, what: str = "prompts") -> list[str]:
    """Return a list of prompts or names from what a caller passes: one text, or several.

    ``what`` is what error messages call them. Raises ``ConceptError`` for what is not text, and for a single text of
    several lines.
    """
    if isinstance(prompts, str):
        if len(prompts.splitlines()) > 1:
            raise ConceptError(f"{what} is one text of several lines; pass a list, as parse_prompts makes of lines")
        prompts = [prompts]
    if isinstance(prompts, bytes) or not isinstance(prompts, Iterable):
        raise ConceptError(f"{what} is text or a list of texts, not {excerpt(prompts)}")
    texts = list(prompts)
    for text in texts:
        if not isinstance(text, str):
            raise ConceptError(f"{what} lists {excerpt(text)}, which is not text")
        check_text(text, f"{what} lists '{excerpt(text)}', which")
    return texts


def kept_prompts(prompts: Iterable[str] | str, what: str) -> list[str]:
    """Return the prompts to preserve from what a caller passes; see ``as_prompts``.

    Raises ``ConceptError`` also for prompt syntax and for a target (``cat -> dog``), which mean nothing here.
    """
    texts = as_prompts(prompts, what)
    for prompt in texts:
        problem = wrong(prompt)
        if PARTED.search(prompt.strip()) or _has_an_arrow(prompt):
            problem = "says what to draw instead; write only what to leave alone"
        if problem:
            raise ConceptError(f"{what} lists '{excerpt(prompt)}', which {problem}")
    return texts


def as_concepts(concepts: Iterable[Concept | str] | Concept | str) -> list[Concept]:
    """Return a list of concepts from what a caller passes: text to parse, one concept, or several of either.

    Raises ``ConceptError`` as ``parse_concepts`` does, and for an empty list.
    """
    if isinstance(concepts, str):
        return parse_concepts(concepts)
    if isinstance(concepts, Concept):
        concepts = [concepts]
    if isinstance(concepts, Mapping) or not isinstance(concepts, Iterable):
        raise ConceptError(f"concepts is text or a list of concepts, not {excerpt(repr(concepts))}")
    concepts = list(concepts)
    for item in concepts:
        if isinstance(item, str) and len(item.splitlines()) > 1:
            raise ConceptError(f"the concept '{excerpt(item)}' has several lines; list each concept by itself")
    warnings = _Doubts()
    parsed = [
        _parse_line(_without_comment(item), None, warnings) if isinstance(item, str) else item for item in concepts
    ]
    if not parsed:
        raise ConceptError("concepts is empty: name at least one concept to erase")
    names: set[str] = set()
    for concept in parsed:
        if not isinstance(concept, Concept):
            raise ConceptError(f"a concept is text, not {excerpt(repr(concept))}")
        if concept.name in names:
            raise ConceptError(f"'{excerpt(concept.name)}' is listed twice")
        _check_target(concept, f"the concept '{excerpt(str(concept))}'")
        names.add(concept.name)
    check_targets(parsed, names)
    if any(isinstance(item, str) for item in concepts):
        warnings.add_targets(parsed)
    for warning in warnings.sentences():
        log.warning(warning)
    return parsed


def check_targets(concepts: Iterable[Concept], erased: Iterable[str], reads: Reads = folded) -> None:
    """Raise ``ConceptError`` for a concept whose target is one of the names ``erased``.

    ``reads`` decides which texts are the same name; by default capitals make no difference, as for CLIP.
    """
    names = Named(erased, reads)
    for concept in concepts:
        if concept.instead and names.alone_in(concept.instead):
            raise ConceptError(
                f"'{excerpt(str(concept))}' draws '{excerpt(concept.instead)}', which is to be erased too; name "
                f"something else after '{ARROW}', or leave '{excerpt(concept.instead)}' out of what is erased"
            )


def name_of(concept: str, what: str = "concept") -> str:
    """Return the name of the one concept in a text, without its target; ``what`` is what errors call the text."""
    first, *others = parse_concepts(concept, what)
    if others:
        raise ConceptError(f"{what} has {1 + len(others)} lines; name one of them")
    return first.name


def single_concept(concepts: Iterable[Concept | str] | Concept | str, method: str) -> Concept:
    """Return the only concept of what a caller passes to a method that erases one at a time.

    ``method`` is the method's name, for the message. Raises ``ConceptError`` for several concepts.
    """
    concept, *others = as_concepts(concepts)
    if others:
        raise ConceptError(f"{method} erases one concept at a time, got {1 + len(others)}; run it once for each")
    return concept


def split(line: str, separator: str | None) -> list[str]:
    """Return the parts of a line between separators, without blank ones; with ``None``, the whole line."""
    return [part.strip() for part in line.split(separator) if part.strip()] if separator else [line]


def check_text(text: str, where: str) -> None:
    """Raise ``ConceptError`` for a character that no prompt can have; the message begins with ``where``."""
    char = unreadable(text)
    if char:
        raise ConceptError(f"{where} has '{excerpt(char)}', which is not text; take it out, and save files as UTF-8")


def decode(text: str | bytes, what: str) -> str:
    """Return text that was typed, or decode the bytes of a UTF-8 file; ``what`` is what error messages call it.

    Raises ``ConceptError`` for the bytes of a spreadsheet, a PDF or the like, and for other encodings.
    """
    if not isinstance(text, str | bytes):
        raise ConceptError(f"{what} is text, not {excerpt(repr(text))}")
    if isinstance(text, bytes):
        kind = next((kind for start, kind in OTHER_FORMATS.items() if text.startswith(start)), None)
        if kind:
            raise ConceptError(f"{what} is {kind}, not text; save it as CSV in UTF-8, or as text with one name a line")
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConceptError(f"{what} is not UTF-8 text: {error}; save it as UTF-8") from error
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # pairs of surrogates, joined
    return joined.lstrip("\ufeff")


def _lines(text: str | bytes, what: str) -> Iterable[tuple[int, str]]:
    """Iterate over the numbers, from 1, and the texts of lines that are neither blank nor a comment."""
    for number, line in enumerate(visible(decode(text, what)).splitlines(), start=1):
        line = _without_comment(line) if not line.strip().startswith("#") else ""
        check_text(line, f"line {number} of {what}, '{excerpt(line)}',")
        if line:
            yield number, line


def _without_comment(line: str) -> str:
    return COMMENT.sub("", visible(line)).strip()


def _parse_line(line: str, where: str | None, warnings: _Doubts) -> Concept:
    where = where or f"the concept '{excerpt(line)}'"
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
    warnings.add(where, name, *rest)
    return concept


def _check_target(concept: Concept, where: str) -> None:
    if key(concept.name) == key(concept.instead):
        raise ConceptError(f"{where} maps a concept to itself; name something else after '{ARROW}'")


def _check_arrows(text: str, where: str) -> None:
    parts = arrow_in(text)
    if parts:
        before, sign, after = (excerpt(" ".join(part.split())) for part in parts)
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
    """Return whether a prompt has an arrow of more than one ASCII sign; a single ``>`` or ``|`` may be text."""
    parts = arrow_in(prompt)
    return parts is not None and (len(parts[1]) > 1 or not parts[1].isascii())


class _Doubts:
    """Warnings about a list: one for each kind of doubt, with the first line that raises it."""

    def __init__(self) -> None:
        self.by_kind: dict[str, list[str]] = {}

    def add(self, where: str, *texts: str) -> None:
        """Add the doubts about the texts of a line; ``where`` is what the warning calls the line."""
        for text in texts:
            for kind, doubt in doubts(text):
                self.by_kind.setdefault(kind, []).append(f"{where.rstrip(',')} {doubt}")

    def add_targets(self, concepts: Iterable[Concept]) -> None:
        """Add a doubt for a target that names another concept to erase among other things."""
        concepts = list(concepts)
        erased = Named([concept.name for concept in concepts])
        for concept in concepts:
            name = erased.within(concept.instead) if concept.instead else None
            if name and name != concept.name:
                doubt = f"'{excerpt(str(concept))}' draws what names '{excerpt(name)}', which is to be erased too"
                self.by_kind.setdefault("target", []).append(doubt)

    def sentences(self) -> list[str]:
        """Return one sentence for each kind of doubt."""
        return [
            f"{first}{f' (so do {len(others)} more)' if others else ''}." for first, *others in self.by_kind.values()
        ]
