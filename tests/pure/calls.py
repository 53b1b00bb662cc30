"""Calls of methods by keywords alone, as parametrised tests have them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from erasure_core.limits import Settings


def with_settings(kind: type[Settings], /, **keywords: Any) -> dict[str, Any]:
    """The keywords of a method, those among them that are settings as one object of this ``kind``."""
    own = {one.name for one in fields(kind)}
    settings = kind(**{name: value for name, value in keywords.items() if name in own})
    return {"settings": settings, **{name: value for name, value in keywords.items() if name not in own}}
