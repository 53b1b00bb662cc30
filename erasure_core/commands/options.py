"""Options of the command line: none is guessed, numbers are in their ranges, and sentences spell them as users do."""

from __future__ import annotations

import argparse
import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..quoting import excerpt
from .exit_codes import FAILED

ENDS = {"least": "of at least", "most": "of at most", "above": "above"}
INSIDE = {"least": operator.ge, "most": operator.le, "above": operator.gt}
ADVICE = "raise|lower|set|leave"


class Parser(argparse.ArgumentParser):
    """Takes whole names of options only. Errors are one sentence, as all others; ``--help`` shows the usage."""

    def __init__(self, extend: Callable[[Parser, Sequence[str]], None] | None = None, **settings):
        """``extend`` adds options that depend on what is to be read; it is called once, with that."""
        self.earlier: dict[str, str] = {}
        self._typed: dict[str, str] = {}
        self._extend = extend
        super().__init__(**settings, allow_abbrev=False)

    def add_argument(self, *names: str, earlier: Sequence[str] = (), **settings: Any) -> argparse.Action:
        """Add an option whose help says its range and its default too; ``earlier`` are further names that are taken."""
        if "help" in settings:
            settings["help"] += _facts(settings)
        if earlier and "dest" not in settings:
            settings["dest"] = names[0].removeprefix("--").replace("-", "_")
        self.earlier |= dict.fromkeys(earlier, names[0])
        return super().add_argument(*names, **settings)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Names an unknown option before argparse misses the required one that it may have been meant for."""
        words = None if args is None else list(args)
        if self._extend:
            self._extend(self, words or ())
            self._extend = None
        if self._subparsers is not None:
            return super().parse_known_args(words, namespace)
        words = self._current(words or ())
        parsed, rest = super().parse_known_args(words, namespace)
        parsed.spelling = {
            one.dest: self._typed_name(one.option_strings[0]) for one in self._actions if one.option_strings
        }
        return parsed, rest

    def _current(self, words: Sequence[str]) -> list[str]:
        """Return the words of a command line with the current names of options, which have to be known.

        Underscores stand for hyphens, as kohya-ss's scripts have them.
        """
        current: list[str] = []
        for place, word in enumerate(words):
            if word == "--":
                return [*current, *words[place:]]
            name, equals, value = word.partition("=")
            if word.startswith("--") and " " not in word:
                if name not in self._option_string_actions:
                    name = name.replace("_", "-")
                typed, name = name, self.earlier.get(name, name)
                self._typed[name] = typed
                self._check_known(name)
                word = name + equals + value
            current.append(word)
        return current

    def _typed_name(self, name: str) -> str:
        return self._typed.get(name, name)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace(": must ", " must ", 1)
        first, colon, rest = message.partition(" ")
        message = self._typed_name(first.rstrip(":")) + ":" * first.endswith(":") + colon + rest
        self.exit(FAILED, f"error: {message}; see {self.prog} --help\n")

    def _check_known(self, word: str) -> None:
        if word in self._option_string_actions:
            return
        near = difflib.get_close_matches(word, self._option_string_actions, 1, 0.7)
        begun = [name for name in self._option_string_actions if name.startswith(word)]
        meant = " or ".join(begun if 0 < len(begun) < 4 else near)
        self.error(f"there is no option {excerpt(word)}" + (f"; did you mean {meant}?" if meant else ""))


@dataclass(frozen=True, eq=False)  # argparse hashes it
class Reader:
    """Reads a number in a range from what a user typed: a whole one, or any, also infinity if there is no range."""

    kind: type
    ends: Mapping[str, float]

    def __call__(self, text: str) -> Any:
        return _read(text, self.kind, self.words, **self.ends)

    @property
    def words(self) -> str:
        """What the number must be."""
        return f"{'a whole number' if self.kind is int else 'a number'} {self.range}".rstrip()

    @property
    def range(self) -> str:
        """The range, in words; nothing without one."""
        if "least" in self.ends and "most" in self.ends:
            return f"from {_short(self.ends['least'])} to {_short(self.ends['most'])}"
        return " and ".join(f"{ENDS[end]} {_short(value)}" for end, value in self.ends.items())


def whole(least: int | None = None, most: int | None = None) -> Reader:
    """Return what reads a whole number in a range."""
    return Reader(int, _given(least=least, most=most))


def number(least: float | None = None, most: float | None = None, above: float | None = None) -> Reader:
    """Return what reads a number in a range, and without one any number, infinity among them."""
    return Reader(float, _given(least=least, most=most, above=above))


def as_path(text: str) -> Path:
    """Reads a path; an empty text, as of a variable of the shell that is not set, would be the folder one is in."""
    return Path(filled(text))


def filled(text: str) -> str:
    """Reads a text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def option(name: str) -> str:
    """As a user types the setting that Python calls ``name``."""
    return "--" + name.replace("_", "-")


def as_typed(sentence: str, names: Collection[str] | Mapping[str, str]) -> str:
    """An error of Python with the settings ``names`` spelled as options; a mapping says how each is spelled.

    A name of one word is one only where the sentence begins with it, advises to change it, or has it in brackets.
    """
    if not names:
        return sentence
    one = rf"\b(?:{'|'.join(names)})\b"
    begins, advises, brackets = rf"^{one}(?=:| (?:must|lists|is|are|holds?) )", rf"\b(?:{ADVICE}) {one}", rf"\({one}\)"
    pattern = rf"{begins}|{advises}(?: or {one})?|{brackets}|(?<![\w/.'\"-])(?=\w*_){one}(?![/'\"-]|\.\w)"
    spelled = names if isinstance(names, Mapping) else {}

    def spell(match: re.Match[str]) -> str:
        return re.sub(one, lambda name: spelled.get(name[0]) or option(name[0]), match[0])

    return re.sub(pattern, spell, sentence)


def _given(**ends: float | None) -> dict[str, float]:
    return {end: value for end, value in ends.items() if value is not None}


def _read(text: str, kind: type, what: str, **ends: float) -> Any:
    wrong = argparse.ArgumentTypeError(f"must be {what}, got '{excerpt(text)}'")
    try:
        value = kind(text)
    except ValueError:
        raise wrong from None
    if ends and not (math.isfinite(value) and all(INSIDE[end](value, limit) for end, limit in ends.items())):
        raise wrong
    return value


def _facts(settings: Mapping[str, Any]) -> str:
    """Return what the help of an option says of its range and its default, in brackets."""
    reader, default = settings.get("type"), settings.get("default")
    facts = [reader.words] if isinstance(reader, Reader) and reader.ends else []
    if (
        isinstance(default, str | int | float)
        and not isinstance(default, bool)
        and default not in ("", argparse.SUPPRESS)
    ):
        facts.append(f"default {_short(default)}")
    return f" ({'; '.join(facts)})" if facts else ""


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
