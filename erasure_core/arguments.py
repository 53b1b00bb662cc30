"""Checks of arguments against a function's annotations; an error is one sentence that names the argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .model import check_model, check_reader
from .quoting import excerpt

F = TypeVar("F", bound=Callable[..., Any])
Seed = int
"""A seed: a whole number from 0 to ``MOST_SEED``."""
MOST_SEED = 2**63 - 1  # PyTorch takes twice as many; methods count on from the one that they are given
OR_NONE = " | None"
SETTINGS = "Settings"
"""How the names of classes of settings end."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _seed(value: Any) -> bool:
    return _whole(value) and 0 <= value <= MOST_SEED


SEED = f"whole number from 0 to {MOST_SEED}"
KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_whole, "a whole number"),
    "float": (lambda value: isinstance(value, float) or _whole(value), "a number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "text"),
    "Seed": (_seed, f"a {SEED}"),
    "Sequence[Seed]": (
        lambda value: isinstance(value, Sequence) and all(map(_seed, value)), f"a list, each a {SEED}",
    ),
    "Sequence[Concept]": (
        lambda value: isinstance(value, Sequence) and all(hasattr(one, "instead") for one in value),
        "a list of Concept, as parse_concepts makes",
    ),
    "Tensor": (torch.is_tensor, "a tensor"),
    "Tensor | int": (lambda value: torch.is_tensor(value) or _whole(value), "a tensor or a whole number"),
    "Callback": (callable, "a function"),
    "Preview": (callable, "a function"),
    "Erasure": (lambda value: hasattr(value, "deltas"), "an Erasure (Erasure.load reads one from a file)"),
}  # fmt: skip
"""The test for values of an annotation, and what messages call them."""
MODELS: Mapping[str, Callable[[Any, str], None]] = {"TextReader": check_reader, "DiffusionModel": check_model}
"""What checks the models that functions take."""


def checked(function: F) -> F:
    """Return a function that first checks its arguments against its annotations, as far as ``KINDS`` has these.

    Raises ``ValueError`` naming the argument, what it must be and what came, and ``UnsupportedModelError`` for what is
    no ``TextReader`` or no ``DiffusionModel``.
    """
    taken = signature(function)

    @wraps(function)
    def run(*values: Any, **named: Any) -> Any:
        for name, value in taken.bind(*values, **named).arguments.items():
            check_argument(name, taken.parameters[name].annotation, value)
        return function(*values, **named)

    return cast(F, run)


def check_argument(name: str, annotation: Any, value: Any) -> None:
    """Raise ``ValueError`` for a value that an argument of this ``annotation``, as it is written, cannot have."""
    if annotation in MODELS:
        MODELS[annotation](value, name)
        return
    written = as_written(annotation)
    kind = written.removesuffix(OR_NONE)
    optional = kind != written
    if optional and value is None:
        return
    if kind.endswith(SETTINGS):
        fits, what = (lambda one: kind in [known.__name__ for known in type(one).__mro__]), f"{kind}, as presets are"
    elif kind in KINDS:
        fits, what = KINDS[kind]
    else:
        return
    if not fits(value):
        raise ValueError(f"{name} must be {what}{' or None' if optional else ''}, got {excerpt(repr(value))}")


def check_images(images: Tensor) -> None:
    """Raise ``ValueError`` unless ``images`` are ``[n, 3, h, w]`` with values from 0 to 1 and at least one picture."""
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"images must be [n, 3, height, width] with n at least 1, got {tuple(images.shape)}")
    if not torch.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise ValueError("images must hold finite numbers from 0 to 1")


def as_written(annotation: Any) -> str:
    """An annotation as the source has it, where it may be a type itself."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
