"""What settings may be is declared with their fields, and errors say it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import pytest

from erasure_core.settings import Limits, Settings, limits_of, setting


@dataclass(frozen=True)
class SomeSettings(Settings):
    """One setting of every kind of range."""

    rate: float = setting(1.0, above=0)
    weight: float = setting(1.0, least=0)
    guidance: float = setting(1.0, least=0, most=100)
    share: float = setting(0.5, least=0, below=1)
    growth: float = setting(math.inf, above=1, finite=False, says="above 1 (inf for no limit)")
    count: int = setting(2, least=2, help="How many.")
    kind: str = setting("object", choices=("object", "style"))
    free: float = 0.0


@pytest.mark.parametrize(
    ("name", "allowed", "refused", "told"),
    [
        ("rate", [1e-9, 1e9, 3], [0, 0.0, -1.0, math.nan, math.inf], "a finite number above 0"),
        ("weight", [0, 0.0, 1e9], [-1e-9, math.nan, math.inf], "a finite number of at least 0"),
        ("guidance", [0.0, 100], [-0.1, 100.1, math.nan], "from 0 to 100"),
        ("share", [0, 0.0, 0.999], [1, 1.0, -0.1, math.nan], "from 0 to less than 1"),
        ("growth", [1.1, math.inf], [1, 1.0, -math.inf, math.nan], "above 1 (inf for no limit)"),
        ("count", [2, 10**400], [1, -5], "at least 2"),
        ("kind", ["style"], ["colour"], "one of object, style"),
        ("free", [math.nan, math.inf, -1], [], ""),
    ],
)
def test_a_setting_is_within_its_limits(name: str, allowed: list, refused: list, told: str) -> None:
    for value in allowed:
        found = getattr(SomeSettings(**{name: value}), name)
        assert found == value or math.isnan(value)
    for value in refused:
        with pytest.raises(ValueError) as error:
            SomeSettings(**{name: value})
        assert str(error.value).startswith(f"{name} must be {told}, got ")


def test_an_error_quotes_text_and_names_the_first_of_the_wrong_type() -> None:
    with pytest.raises(ValueError, match="^kind must be one of object, style, got 'hue'$"):
        SomeSettings(kind="hue")
    with pytest.raises(ValueError, match="^count must be a whole number, got 2.5$"):
        SomeSettings(rate=-1.0, count=2.5)


def test_limits_can_be_read_by_others() -> None:
    declared = {one.name: limits_of(one) for one in fields(SomeSettings)}
    assert declared["count"] == Limits(least=2, help="How many.") and declared["free"] == Limits(finite=False)
