"""What inputs of nodes may be: the host checks little of what comes through its API, and nothing of what is linked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any

import torch

from ..erasure_core import Erasure
from ..erasure_core.closed_form.statistics import Statistics
from ..erasure_core.quoting import excerpt, shortened, unreadable
from .warnings_at_node import collected_warnings, with_warnings


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: all(hasattr(value, name) for name in names)


SOCKETS: Mapping[str, Callable[[Any], bool]] = {
    "MODEL": _has("model", "patches"),
    "CLIP": _has("tokenize", "cond_stage_model"),
    "VAE": _has("encode", "decode"),
    "CLIP_VISION": _has("encode_image"),
    "LATENT": lambda value: isinstance(value, Mapping) and torch.is_tensor(value.get("samples")),
    "IMAGE": lambda value: torch.is_tensor(value) and value.ndim == 4 and len(value) > 0 and value.shape[-1] >= 3,
    "ERASURE": lambda value: isinstance(value, Erasure),
    "ERASURE_STATISTICS": lambda value: isinstance(value, Statistics),
}
"""The test for values of each type; for a type of ComfyUI itself, whether they have what this pack uses of it."""
LIBRARY = Erasure.__module__.rpartition(".erasures.")[0]
HINTS = {"CLIP": "; where a checkpoint has no text encoder, load one with 'Load CLIP'"}


def checked(execute: Callable) -> Callable:
    """Return a node's ``execute`` that first checks every input against the node's schema.

    What the pack warns of in the meantime is shown at the node. Raises ``ValueError`` in one sentence that names the
    input. An error class of the library is raised as the builtin class that it is derived from, because ComfyUI shows
    the module of any other, which in a pack is a path.
    """

    @wraps(execute)
    def run(cls, *values, **keywords):
        bound = signature(execute).bind(cls, *values, **keywords)
        values_by_name = bound.arguments | bound.kwargs
        for one in cls.define_schema().inputs:
            if one.id in values_by_name:
                check(one, values_by_name[one.id])
        try:
            with collected_warnings() as warnings:
                output = execute(cls, *values, **keywords)
            return with_warnings(output, warnings)
        except Exception as error:
            if not type(error).__module__.startswith(LIBRARY):
                raise
            raise _builtin(type(error))(str(error)) from error

    return run


def _builtin(kind: type) -> type:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def check(one, value: Any) -> None:
    """Raise ``ValueError`` for a value that the input ``one`` of a schema cannot have, by its type and its range."""
    name, kind = one.id, one.io_type
    if kind == "STRING":
        check_text(name, value)
    elif kind == "COMBO":
        if not isinstance(value, str) or value not in one.options:
            raise ValueError(f"{name} '{excerpt(value)}' is unknown; known: {shortened(one.options) or 'none'}")
    elif kind in ("INT", "FLOAT"):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not one.min <= value <= one.max:
            raise ValueError(f"{name} must be a finite number from {one.min:g} to {one.max:g}, got {excerpt(value)}")
    elif kind == "BOOLEAN":
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {excerpt(value)}")
    elif value is None and not one.optional:
        raise ValueError(f"{name} is missing: connect a {kind}{HINTS.get(kind, '')}")
    elif value is not None and not SOCKETS[kind](value):
        raise ValueError(f"{name} is no {kind} but {excerpt(value)}; connect one")


def check_text(name: str, value: Any) -> None:
    """Raise ``ValueError`` for a value of the input ``name`` that is no text.

    Halves of characters, NUL and other control characters are no text either.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {excerpt(value)}")
    joined = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    lines = joined.split("\n")
    for number, line in enumerate(lines, start=1):
        character = unreadable(line)
        if character:
            where = f"line {number} of {name}, '{excerpt(line)}'," if len(lines) > 1 else f"{name} '{excerpt(line)}'"
            raise ValueError(f"{where} has '{excerpt(character)}', which is not text; take it out")
