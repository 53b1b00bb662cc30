"""Options of the command line: none is guessed, numbers are in their ranges, and sentences spell them as users do."""

from __future__ import annotations

import argparse
import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..quoting import excerpt
from .exit_codes import FAILED

TOLD = {"least": "of at least", "most": "of at most", "above": "above"}
INSIDE = {"least": operator.ge, "most": operator.le, "above": operator.gt}
ADVICE = "raise|lower|set|leave"


class Parser(argparse.ArgumentParser):
    """Takes whole names of options only. Errors are one sentence, as all others; ``--help`` shows the usage."""

    def __init__(self, extend: Callable[[Parser, Sequence[str]], None] | None = None, **settings):
        """``extend`` adds options that depend on what is to be read; it is called once, with that."""
        super().__init__(**settings, allow_abbrev=False)
        self._extend = extend

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Names an unknown option before argparse misses the required one that it may have been meant for."""
        words = None if args is None else list(args)
        if self._extend:
            self._extend(self, words or ())
            self._extend = None
        if self._subparsers is None:
            for word in words or ():
                if word == "--":
                    break
                if word.startswith("--") and " " not in word:
                    self._check_known(word.partition("=")[0])
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace(": must ", " must ", 1)
        self.exit(FAILED, f"error: {message}; see {self.prog} --help\n")

    def _check_known(self, word: str) -> None:
        if word in self._option_string_actions:
            return
        near = difflib.get_close_matches(word, self._option_string_actions, 1, 0.7)
        begun = [name for name in self._option_string_actions if name.startswith(word)]
        meant = " or ".join(begun if 0 < len(begun) < 4 else near)
        self.error(f"there is no option {excerpt(word)}" + (f"; did you mean {meant}?" if meant else ""))


def whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Reads a whole number in a range."""
    return lambda text: _read(text, int, "a whole number", least=least, most=most)


def number(least: float | None = None, most: float | None = None, above: float | None = None) -> Callable[[str], float]:
    """Reads a number in a range, and without one any number, infinity among them."""
    return lambda text: _read(text, float, "a number", least=least, most=most, above=above)


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


def as_typed(sentence: str, names: Collection[str]) -> str:
    """An error of Python with the settings ``names`` spelled as options.

    A name of one word is one only where the sentence begins with it, advises to change it, or has it in brackets.
    """
    if not names:
        return sentence
    one = rf"\b(?:{'|'.join(names)})\b"
    begins, advises, brackets = rf"^{one}(?=:| (?:must|lists|is|are|holds?) )", rf"\b(?:{ADVICE}) {one}", rf"\({one}\)"
    pattern = rf"{begins}|{advises}(?: or {one})?|{brackets}|(?<![\w/.'\"-])(?=\w*_){one}(?![/'\"-]|\.\w)"
    return re.sub(pattern, lambda found: re.sub(one, lambda name: option(name[0]), found[0]), sentence)


def _read(text: str, kind: type, what: str, **ends: float | None):
    given = {end: value for end, value in ends.items() if value is not None}
    if "least" in given and "most" in given:
        told = f"from {ends['least']} to {ends['most']}"
    else:
        told = " and ".join(f"{TOLD[end]} {value}" for end, value in given.items())
    wrong = argparse.ArgumentTypeError(f"must be {what} {told}".rstrip() + f", got '{excerpt(text)}'")
    try:
        found = kind(text)
    except ValueError:
        raise wrong from None
    if given and not (math.isfinite(found) and all(INSIDE[end](found, value) for end, value in given.items())):
        raise wrong
    return found
