"""What a user asks for, on the command line or in a configuration: a model by name, and an erasure to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from ..concepts.parse import Concept
from ..erasures.erasure import Erasure
from ..limits import Settings
from ..methods import METHODS
from ..methods.inputs import Input, Preserve
from ..model import Callback, DiffusionModel
from .progress import Progress

if TYPE_CHECKING:
    from ..diffusers.model import DiffusersModel

TOY = "toy"
CPU = torch.device("cpu")


def load_model(
    name: str, device: torch.device = CPU, dtype: torch.dtype = torch.float32, clip_skip: int = 0
) -> DiffusersModel:
    """``toy``, or what is at a path, on a device; see ``load_checkpoint`` for ``clip_skip`` and for what it raises."""
    if name == TOY:
        from ..toy import load_toy

        model = load_toy(clip_skip)
        if dtype != torch.float32:  # as it is stored; diffusers warns of a cast that changes nothing
            model.pipe.to(dtype)
    else:
        from ..diffusers.checkpoint import load_checkpoint

        model = load_checkpoint(name, dtype, clip_skip)
    model.pipe.to(device)
    return model


def names_of(kind: type[Settings] | type[Input]) -> list[str]:
    """What can be set of settings, or given of a kind of input."""
    return [one.name for one in fields(kind)]


def having(setting: str) -> list[str]:
    """The methods that have a setting."""
    return [name for name, method in METHODS.items() if setting in names_of(method.settings)]


def taking(name: str) -> list[str]:
    """The methods that take an input."""
    return [one for one, method in METHODS.items() if any(name in names_of(kind) for kind in method.takes)]


@dataclass(frozen=True)
class Request:
    """An erasure to compute.

    ``preset`` is by default the method's first; ``settings`` take the places of its own. ``inputs`` is what the method
    takes besides, by the names of the fields in ``methods.inputs``: what is ``None``, empty or false was not given.
    ``toy`` says that the model is the embedded one, ``option`` how errors spell the name of a setting or an input.
    """

    concepts: Sequence[Concept]
    method: str = "rece"
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    toy: bool = False
    option: Callable[[str], str] = str

    def check(self) -> None:
        """Raise ``ValueError`` for what the method does not take, and for what cannot be used; needs no model."""
        self.chosen_settings()
        for name in self._given():
            methods = taking(name)
            if self.method not in methods:
                self._belongs_elsewhere(name, methods)
        self.keywords()

    def chosen_settings(self) -> Settings:
        """The preset with what is set in place of its own."""
        method = METHODS[self.method]
        presets = method.toy_presets if self.toy else method.presets
        preset = self.preset or next(iter(presets))
        if preset not in presets:
            raise ValueError(f"{self.method} has no preset '{preset}'; it has {', '.join(presets)}")
        for name in self.settings:
            if name not in names_of(method.settings):
                self._belongs_elsewhere(name, having(name))
        return replace(presets[preset], **self.settings)

    def erasure(self, model: DiffusionModel, callback: Callback) -> Erasure:
        """Compute it; raises what ``check`` and the method do."""
        self.check()
        keywords = self.keywords()
        for one in self._inputs():
            with Progress(type(one).__name__.lower()) as bar:
                keywords |= one.keywords_of_model(self, model, bar)
        return METHODS[self.method].run(model, self.concepts, self.chosen_settings(), callback=callback, **keywords)

    def preserves_common(self) -> bool:
        """Whether everyday concepts are preserved, by a method that takes prompts to preserve."""
        return any(one.preserves_common(self) for one in self._inputs() if isinstance(one, Preserve))

    def _given(self) -> dict[str, Any]:
        """The inputs that were given; a 0 was given too."""
        return {name: value for name, value in self.inputs.items() if value or type(value) in (int, float)}

    def _inputs(self) -> list[Input]:
        given = self._given()
        kinds = METHODS[self.method].takes
        return [kind(**{name: given[name] for name in names_of(kind) if name in given}) for kind in kinds]

    def keywords(self) -> dict[str, Any]:
        """What the method is called with beside settings. Raises ``ValueError`` for what cannot be used."""
        return {name: value for one in self._inputs() for name, value in one.keywords(self).items()}

    def _belongs_elsewhere(self, name: str, methods: Sequence[str]) -> None:
        whose = f"; it is of {', '.join(methods)}" if methods else ""
        raise ValueError(f"{self.method} takes no {self.option(name)}{whose}")
