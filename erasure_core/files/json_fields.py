"""JSON that anybody may have written: each field is there and of its type, or a ``ValueError`` says what is wrong."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..quoting import shown, unreadable

DEEPEST = 32  # of what stands in one another
KINDS = {
    str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "an object",
}  # fmt: skip


@dataclass(frozen=True)
class Fields:
    """An object of JSON; ``what`` is how errors call it."""

    values: Mapping[str, Any]
    what: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def null(self, name: str) -> bool:
        return name in self.values and self.values[name] is None

    def get(self, name: str, kind: type) -> Any:
        """A field of this type; whole numbers are numbers too, true and false are none."""
        if name not in self.values:
            raise ValueError(f"{self.what} has no '{name}'")
        return _of(self.values[name], kind, f"'{name}' of {self.what}")

    def all(self, name: str, kind: type) -> list[Any]:
        """A field that is a list of values of this type."""
        return [_of(value, kind, f"what '{name}' of {self.what} lists") for value in self.get(name, list)]

    def object(self, name: str) -> Fields:
        return Fields(self.get(name, dict), f"'{shown(name)}'")

    def objects(self, name: str) -> list[Fields]:
        return [Fields(value, f"one of '{name}'") for value in self.all(name, dict)]

    def items(self) -> Iterator[tuple[str, Fields]]:
        """The fields, all of which are objects."""
        return ((name, self.object(name)) for name in self.values)


def parsed(text: str, what: str) -> Fields:
    """An object of JSON, with neither a name twice, nor numbers that are not finite, nor text that is none."""
    try:
        values = json.loads(text, object_pairs_hook=_once)
        _check(values, DEEPEST)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what} cannot be read: {error}") from error
    return Fields(_of(values, dict, what), what)


def written(values: Mapping[str, Any], what: str) -> str:
    """The text that ``parsed`` reads, the same each time. Raises ``ValueError`` for what it would not."""
    try:
        text = json.dumps(values, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be kept in a file: {error}") from error
    parsed(text, what)
    return text


def twice(texts: Sequence[str]) -> str | None:
    """One of those that are there more than once."""
    if len(set(texts)) == len(texts):
        return None
    ((text, _),) = Counter(texts).most_common(1)
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"it has '{shown(twice([name for name, _ in pairs]))}' twice")
    return found


def _check(value: Any, levels: int) -> None:
    if not levels:
        raise ValueError("it is nested too deeply")
    if isinstance(value, float) and not _of_type(value, float):
        raise ValueError(f"it has {value}, which is not finite")
    if isinstance(value, str) and unreadable(value):
        raise ValueError(f"it has '{shown(unreadable(value))}', which is not text")
    for part in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(part, levels - 1)


def _of(value: Any, kind: type, what: str) -> Any:
    if not _of_type(value, kind):
        raise ValueError(f"{what} is {shown(value)}, expected {KINDS[kind]}")
    return value


def _of_type(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
