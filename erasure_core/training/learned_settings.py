"""Settings that every method has which trains."""

from __future__ import annotations

from typing import Any

from ..concepts.templates import WORDINGS
from ..settings import setting

RATE = "How far each update goes. Lower it when the loss explodes."


def kind_setting() -> Any:
    """The kind of concept, by which its prompts are worded."""
    return setting("object", choices=tuple(WORDINGS), help="The kind of concept, by which its prompts are worded.")


def steps_setting(default: int) -> Any:
    """How many updates training makes."""
    return setting(default, least=1, says="a whole number of at least 1", help="How many updates.")
