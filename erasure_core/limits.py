"""Settings of methods: dataclasses whose fields say, once, their defaults and what they may be."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from .arguments import as_written, check_argument

LIMITS = "limits"
INSIDE: Mapping[str, Callable[[Any, Any], bool]] = {
    "least": operator.ge, "above": operator.gt, "most": operator.le, "below": operator.lt,
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The range of a setting: from ``least`` to ``most``, or strictly ``above`` and ``below``, or one of ``choices``.

    Numbers have to be finite unless ``finite`` is false. ``says`` replaces the words of an error for the range.
    ``help`` describes the setting to users.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: Sequence[str] = ()
    finite: bool = True
    says: str = ""
    help: str = ""

    def allow(self, value: Any) -> bool:
        """Return whether a value, which has the setting's type, is within the limits."""
        if self.choices:
            return value in self.choices
        if self.finite and isinstance(value, float) and not math.isfinite(value):
            return False
        ends = {name: getattr(self, name) for name in INSIDE}
        return all(INSIDE[name](value, end) for name, end in ends.items() if end is not None)

    def words(self, whole: bool = False) -> str:
        """Return the words of an error for the range; ``whole`` is true for whole numbers."""
        if self.says:
            return self.says
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        if self.least is not None and self.below is not None:
            return f"from {self.least:g} to less than {self.below:g}"
        ends = {"above": self.above, "at least": self.least, "below": self.below, "at most": self.most}
        told = " and ".join(f"{word} {end:g}" for word, end in ends.items() if end is not None)
        if whole:
            return told
        number = "a finite number" if self.finite else "a number"
        return f"{number} {'of ' if told.startswith('at') else ''}{told}".rstrip()


def setting(default: Any, **limits: Any) -> Any:
    """Return a field for a dataclass of settings, with its default and the ``limits`` of ``Limits``."""
    return field(default=default, metadata={LIMITS: Limits(**limits)})


def limits_of(one: Field[Any]) -> Limits:
    """Return the limits of a field of a dataclass of settings."""
    return one.metadata.get(LIMITS, Limits(finite=False))


@dataclass(frozen=True)
class Settings:
    """Settings of a method. Raises ``ValueError`` naming the setting, what it must be and what it was."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs_common(self) -> bool:
        """Whether an erasure with these settings needs a list of everyday concepts to preserve: by default it does."""
        return True


def check_fields(settings: Any) -> None:
    """Raise ``ValueError`` for the first field of a dataclass that has another type, or is beyond its limits."""
    for one in fields(settings):
        check_argument(one.name, one.type, getattr(settings, one.name))
    for one in fields(settings):
        value, limits = getattr(settings, one.name), limits_of(one)
        if value is not None and not limits.allow(value):
            shown = f"'{value}'" if isinstance(value, str) else value
            raise ValueError(f"{one.name} must be {limits.words(as_written(one.type) == 'int')}, got {shown}")
