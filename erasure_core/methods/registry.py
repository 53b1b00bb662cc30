"""Every method by the name that the command line, files and presets use. A new method is a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..erasure import Erasure
from . import rece


@dataclass(frozen=True)
class Method:
    """How to call a method: ``run(model, concepts, **settings)`` with a preset's fields as settings."""

    run: Callable[..., Erasure]
    presets: Mapping[str, Any]
    summary: str


METHODS: Mapping[str, Method] = {
    "rece": Method(rece.rece, rece.PRESETS, "closed form, iterated: erases a concept and what would bring it back"),
    "uce": Method(rece.uce, rece.UCE_PRESETS, "closed form, once: the first step of rece"),
}
