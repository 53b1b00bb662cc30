"""What methods take beside a model, concepts and settings: a class for each kind of input.

The fields of a class are what users give: the command line has an option for each, with its help and its range. A new
kind of input is a new class here, and its name in what the methods take that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..arguments import MOST_SEED, Seed, check_argument
from ..concepts.common import common_concepts
from ..concepts.parse import Concept, kept_prompts
from ..files.images import load_pictures, picture_files
from ..model import Callback, DiffusionModel
from ..quoting import shown
from ..sampling.ddim import generate
from ..sampling.size import side
from ..settings import setting
from ..training.loop import Budget, check_rank

TOWERS = ("both", "text_encoder", "text_encoder_2")
MOST_DRAWN = 1000  # pictures of the concept; about four are needed


class Wish(Protocol):
    """The erasure that a user wishes for, as far as inputs depend on it."""

    @property
    def concepts(self) -> Sequence[Concept]: ...

    @property
    def method(self) -> str: ...

    @property
    def option(self) -> Callable[[str], str]:
        """How errors spell the name of an input."""


@dataclass(frozen=True)
class Input:
    """A kind of input with what a user gave of it."""

    def keywords(self, wish: Wish) -> dict[str, Any]:
        """What the method is called with. Raises ``ValueError`` for what cannot be used."""
        return dict(vars(self))

    def keywords_of_model(self, wish: Wish, model: DiffusionModel, callback: Callback) -> dict[str, Any]:
        """What the method is called with in place of that, where a model is needed to tell."""
        return {}


@dataclass(frozen=True)
class Preserve(Input):
    """Prompts that should stay as they are, ``preserve``."""

    preserve: Sequence[str] | str = setting((), help="a prompt to leave alone")
    no_common: bool = setting(False, help="do not preserve everyday concepts as well")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        preserve = kept_prompts(self.preserve, wish.option("preserve"))
        return {"preserve": preserve + ([] if self.no_common else common_concepts(wish.concepts))}


@dataclass(frozen=True)
class Exactly(Input):
    """Prompts that must not change at all, ``exactly``."""

    exactly: Sequence[str] | str = setting((), help="a prompt whose pictures must not change")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        return {"exactly": kept_prompts(self.exactly, wish.option("exactly"))}


@dataclass(frozen=True)
class Images(Input):
    """Pictures of the concept, ``images``: those of a folder, so many that the model draws itself, or ``none``."""

    images: str | int | None = setting(None, help="a folder of the concept, a number for the model to draw, or none")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        given = str(self.images)
        if self.images is None:
            raise ValueError(
                f"{wish.method} needs {wish.option('images')}: a folder of pictures of the concept, a number of "
                "pictures for the model to draw itself, or 'none'"
            )
        if given.isdecimal() and not (len(given) < 10 and 1 <= int(given) <= MOST_DRAWN):
            raise ValueError(
                f"{wish.option('images')}: the model draws 1 to {MOST_DRAWN} pictures itself, not {shown(given)}"
            )
        return {"images": None}

    def keywords_of_model(self, wish: Wish, model: DiffusionModel, callback: Callback) -> dict[str, Any]:
        given = str(self.images)
        if given == "none":
            return {}
        if not given.isdecimal():
            return {"images": load_pictures(picture_files(Path(given)), side(model))}
        prompts = [wish.concepts[0].name] * int(given)
        return {"images": generate(model, prompts, range(len(prompts)), callback=callback)}


@dataclass(frozen=True)
class Training(Input):
    """How long a method trains, from which seed, and whether it trains low-rank changes."""

    seed: Seed = setting(0, least=0, most=MOST_SEED, help="the same, the same erasure")
    seconds: float | None = setting(None, above=0, help="stop training after so many")
    rank: int | None = setting(None, least=1, help="train low-rank changes")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        check_argument("seed", "Seed", self.seed)
        check_rank(self.rank)
        Budget(1, self.seconds)
        return super().keywords(wish)


@dataclass(frozen=True)
class GradientCheckpointing(Input):
    """Whether to train in less memory."""

    gradient_checkpointing: bool = setting(False, help="less memory, more time")


@dataclass(frozen=True)
class TextEncoders(Input):
    """Which text encoders to train, ``towers``."""

    towers: str = setting(TOWERS[0], choices=TOWERS, help="which text encoder of two (SDXL)")
