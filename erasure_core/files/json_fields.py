"""JSON from a file that anybody may have written: every field is checked, and a ``ValueError`` says what is wrong."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..quoting import excerpt, unreadable

DEEPEST = 32  # levels of lists and objects inside one another
KINDS = {
    str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "an object",
}  # fmt: skip


@dataclass(frozen=True)
class Fields:
    """A JSON object. ``values`` are its fields; ``what`` is what error messages call the object."""

    values: Mapping[str, Any]
    what: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def null(self, name: str) -> bool:
        """Return whether there is a field of this name whose value is ``null``."""
        return name in self.values and self.values[name] is None

    def get(self, name: str, kind: type) -> Any:
        """Return the field ``name``, which must be of type ``kind``, one of ``KINDS``; raise ``ValueError`` otherwise.

        A whole number is also a ``float``; ``true`` and ``false`` are not numbers.
        """
        if name not in self.values:
            raise ValueError(f"{self.what} has no '{excerpt(name)}'")
        return _of(self.values[name], kind, f"'{excerpt(name)}' of {self.what}")

    def all(self, name: str, kind: type) -> list[Any]:
        """Return the field ``name``, which must be a list of values of type ``kind``."""
        return [_of(value, kind, f"what '{excerpt(name)}' of {self.what} lists") for value in self.get(name, list)]

    def object(self, name: str) -> Fields:
        """Return the field ``name``, which must be an object."""
        return Fields(self.get(name, dict), f"'{excerpt(name)}'")

    def objects(self, name: str) -> list[Fields]:
        """Return the field ``name``, which must be a list of objects."""
        return [Fields(value, f"one of '{excerpt(name)}'") for value in self.all(name, dict)]

    def items(self) -> Iterator[tuple[str, Fields]]:
        """Iterate over the names and values of all fields, each of which must be an object."""
        return ((name, self.object(name)) for name in self.values)


def parsed(text: str, what: str) -> Fields:
    """Parse ``text``, which must be one JSON object; ``what`` is what error messages call it.

    Raises ``ValueError`` for what is not JSON, for an object with two fields of one name, for numbers that are not
    finite, for text with characters that no text has, and for more than 32 levels of nesting.
    """
    try:
        values = json.loads(text, object_pairs_hook=_once)
        _check(values, DEEPEST)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what} cannot be read: {error}") from error
    return Fields(_of(values, dict, what), what)


def written(values: Mapping[str, Any], what: str) -> str:
    """Return JSON text that ``parsed`` reads back, with the fields sorted by name.

    Raises ``ValueError`` when ``values`` hold what ``parsed`` would refuse; ``what`` is what messages call them.
    """
    try:
        text = json.dumps(values, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be kept in a file: {error}") from error
    parsed(text, what)
    return text


def twice(texts: Sequence[str]) -> str | None:
    """Return a text that ``texts`` holds more than once, or ``None``."""
    if len(set(texts)) == len(texts):
        return None
    ((text, _),) = Counter(texts).most_common(1)
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(f"it has '{excerpt(twice([name for name, _ in pairs]))}' twice")
    return fields


def _check(value: Any, levels: int) -> None:
    if not levels:
        raise ValueError("it is nested too deeply")
    if isinstance(value, float) and not _of_type(value, float):
        raise ValueError(f"it has {value}, which is not finite")
    if isinstance(value, str) and unreadable(value):
        raise ValueError(f"it has '{excerpt(unreadable(value))}', which is not text")
    for part in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(part, levels - 1)


def _of(value: Any, kind: type, what: str) -> Any:
    if not _of_type(value, kind):
        raise ValueError(f"{what} is {excerpt(value)}, expected {KINDS[kind]}")
    return value


def _of_type(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
