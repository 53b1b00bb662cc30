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
from ..concepts.name_lists import LISTS, listed_beside
from ..concepts.parse import Concept, kept_prompts
from ..families.unets import text_parts
from ..files.images import load_pictures, picture_files
from ..model import Callback, DiffusionModel
from ..quoting import excerpt
from ..sampling.ddim import generate
from ..sampling.size import side
from ..settings import setting
from ..training.loop import Budget, check_rank

TEXT_ENCODERS = ("both", *text_parts())
MOST_DRAWN = 1000  # pictures of the concept; about four are needed


class Wish(Protocol):
    """The erasure that a user wishes for, as far as inputs depend on it."""

    @property
    def concepts(self) -> Sequence[Concept]:
        """The concepts to erase, at least one."""

    @property
    def method(self) -> str:
        """The name of the method that erases them."""

    @property
    def option(self) -> Callable[[str], str]:
        """A function from the name of an input to how errors spell it, for example ``--no-common``."""


@dataclass(frozen=True)
class Input:
    """A kind of input, with the values that a user gave."""

    def keywords(self, wish: Wish) -> dict[str, Any]:
        """Return the keyword arguments for the method. Raises ``ValueError`` for values that cannot be used."""
        return dict(vars(self))

    def keywords_of_model(self, wish: Wish, model: DiffusionModel, callback: Callback) -> dict[str, Any]:
        """Return the keyword arguments that need a model, in place of those of ``keywords``; by default none."""
        return {}


@dataclass(frozen=True)
class Preserve(Input):
    """Prompts and a list of names that should stay as they are, and whether everyday concepts should not as well.

    Names of the list that share a word with an erased concept are left out.
    """

    preserve: Sequence[str] | str = setting((), help="a prompt to leave alone")
    preserve_list: str | None = setting(None, choices=LISTS, help="a list of names to leave alone")
    no_common: bool = setting(False, help="do not preserve everyday concepts as well")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        preserve = kept_prompts(self.preserve, wish.option("preserve"))
        preserve += listed_beside(wish.concepts, self.preserve_list)
        return {"preserve": preserve + ([] if self.no_common else common_concepts(wish.concepts))}


@dataclass(frozen=True)
class Exactly(Input):
    """Prompts that must not change at all."""

    exactly: Sequence[str] | str = setting((), help="a prompt whose pictures must not change")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        return {"exactly": kept_prompts(self.exactly, wish.option("exactly"))}


@dataclass(frozen=True)
class Images(Input):
    """Pictures of the concept: those of a folder, or a number of pictures that the model draws itself, or ``none``.

    The number is from 1 to ``MOST_DRAWN``.
    """

    images: str | int | None = setting(None, help="a folder of the concept, a number for the model to draw, or none")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        text = str(self.images)
        if self.images is None:
            raise ValueError(
                f"{wish.method} needs {wish.option('images')}: a folder of pictures of the concept, a number of "
                "pictures for the model to draw itself, or 'none'"
            )
        if text.isdecimal() and not (len(text) < 10 and 1 <= int(text) <= MOST_DRAWN):
            raise ValueError(
                f"{wish.option('images')}: the model draws 1 to {MOST_DRAWN} pictures itself, not {excerpt(text)}"
            )
        return {"images": None}

    def keywords_of_model(self, wish: Wish, model: DiffusionModel, callback: Callback) -> dict[str, Any]:
        text = str(self.images)
        if text == "none":
            return {}
        if not text.isdecimal():
            return {"images": load_pictures(picture_files(Path(text)), side(model))}
        prompts = [wish.concepts[0].name] * int(text)
        return {"images": generate(model, prompts, range(len(prompts)), callback=callback)}


@dataclass(frozen=True)
class Training(Input):
    """How a method trains: from which seed, for how many seconds at most, and low-rank changes of which rank."""

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
    """Whether to train in less memory and more time."""

    gradient_checkpointing: bool = setting(False, help="less memory, more time")


@dataclass(frozen=True)
class TextEncoders(Input):
    """Which text encoders to train; the option is called ``towers`` on the command line, in nodes and in files."""

    towers: str = setting(TEXT_ENCODERS[0], choices=TEXT_ENCODERS, help="which text encoder of two (SDXL)")
