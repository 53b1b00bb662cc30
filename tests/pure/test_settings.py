"""What settings may be is declared with their fields, and errors say it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import pytest

from erasure_core.limits import Limits, Settings, limits_of, setting
from erasure_core.methods.abo import AbOSettings
from erasure_core.methods.doco import DoCoSettings
from erasure_core.methods.few_shot import FewShotSettings


@dataclass(frozen=True)
class SomeSettings(Settings):
    """One setting of every kind of range."""

    rate: float = setting(1.0, above=0)
    weight: float = setting(1.0, least=0)
    guidance: float = setting(1.0, least=0, most=100)
    share: float = setting(0.5, least=0, below=1)
    growth: float = setting(math.inf, above=1, finite=False, says="above 1 (inf for no limit)")
    count: int = setting(2, least=2, help="How many.")
    part: float = setting(1.0, above=0, most=1)
    open: float = setting(0.5, above=0, below=1)
    depth: float = setting(-1.0, most=0)
    any: float = setting(0.0, help="Any finite number.")
    limitless: float = setting(1.0, above=0, finite=False)
    few: int = setting(1, above=0, most=3)
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
        ("part", [1e-9, 1], [0.0, 1.1, math.nan], "a finite number above 0 and at most 1"),
        ("open", [1e-9, 0.9], [0.0, 1.0], "a finite number above 0 and below 1"),
        ("depth", [-5, 0.0], [0.1, -math.inf], "a finite number of at most 0"),
        ("any", [-5, 0.0], [math.nan, math.inf], "a finite number"),
        ("limitless", [math.inf], [0.0, math.nan], "a number above 0"),
        ("few", [1, 3], [0, 4], "above 0 and at most 3"),
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


@pytest.mark.parametrize("settings", [FewShotSettings, DoCoSettings, AbOSettings])
def test_settings_that_all_methods_have_which_train(settings: type) -> None:
    assert settings().kind == "object" and settings("style").kind == "style"
    with pytest.raises(ValueError, match="^kind must be one of object, style, got 'hue'$"):
        settings("hue")
    with pytest.raises(ValueError, match="^steps must be a whole number of at least 1, got 0$"):
        settings(steps=0)
