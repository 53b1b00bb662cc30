"""What the list of methods says of each: the contract that a new method fulfils."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..closed_form.statistics import Statistics
from ..erasures.erasure import Erasure
from ..limits import Settings
from .inputs import Input


@dataclass(frozen=True)
class ClosedForm:
    """How a method erases from statistics, its own of an earlier erasure among them.

    ``run(model, concepts, settings, ...)`` takes ``statistics`` to go on from, the names to ``restore`` of these,
    whether to preserve ``common`` concepts too, prompts as the method itself does, and a ``callback``. It returns the
    erasure and the statistics. ``check(statistics, settings)`` raises ``ValueError`` for those that do not fit.
    ``gather`` takes what ``run`` takes, and the ``workers`` that share the reading, and returns the statistics alone;
    ``erase(model, statistics, settings)`` makes the erasure of them.
    """

    run: Callable[..., tuple[Erasure, Statistics]]
    check: Callable[[Statistics, Any], None]
    gather: Callable[..., Statistics]
    erase: Callable[..., Erasure]


@dataclass(frozen=True)
class Method:
    """A method by its ``name`` on the command line, in files and in presets.

    ``run(model, concepts, settings, ...)`` takes one of its ``presets`` as settings, by default the first, by keywords
    what ``takes`` lists, and a ``callback``; it returns an ``Erasure`` whose origin has the method's name.
    ``toy_presets`` are those for the embedded model, which is so small that learning rates for Stable Diffusion do
    nothing to it.
    """

    name: str
    run: Callable[..., Erasure]
    presets: Mapping[str, Settings]
    toy_presets: Mapping[str, Settings]
    summary: str
    takes: tuple[type[Input], ...] = ()
    closed_form: ClosedForm | None = None

    @property
    def settings(self) -> type[Settings]:
        """The class of its settings."""
        return type(next(iter(self.presets.values())))
