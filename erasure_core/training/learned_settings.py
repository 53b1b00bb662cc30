"""Settings that all methods have which train."""

from __future__ import annotations

from typing import Any

from ..concepts.templates import WORDINGS
from ..limits import setting

RATE = "How far each update goes. Lower it when the loss explodes."


def kind_setting() -> Any:
    """Return the field for the kind of concept, one of ``WORDINGS``, by which its prompts are worded.

    The default is ``object``, since most concepts are objects.
    """
    return setting("object", choices=tuple(WORDINGS), help="The kind of concept, by which its prompts are worded.")


def steps_setting(default: int) -> Any:
    """Return the field for the number of updates, at least 1; ``default`` is the method's own."""
    return setting(default, least=1, says="a whole number of at least 1", help="How many updates.")
