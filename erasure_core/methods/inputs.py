"""What methods take beside a model, concepts and settings: a class for each kind of input.

The fields of a class are what users give: the command line has an option for each, with its help and its range. A new
kind of input is a new class here, and its name in what the methods take that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..arguments import MOST_SEED, Seed, check_argument
from ..concepts.common import common_concepts
from ..concepts.name_lists import LISTS, listed_beside
from ..concepts.parse import Concept, kept_prompts
from ..families.unets import text_parts
from ..files.images import captions_beside, load_pictures, picture_files
from ..limits import Settings, setting
from ..model import Callback, DiffusionModel
from ..quoting import excerpt
from ..sampling.size import side
from ..training.loop import Budget, check_rank

TEXT_ENCODERS = ("both", *text_parts())
MOST_DRAWN = 1000  # pictures of the concept; about eight are needed
DRAWN = 8  # pictures of the concept that a model draws itself, unless another number or pictures are given


class Wish(Protocol):
    """The erasure that a user wishes for, as far as inputs depend on it."""

    @property
    def concepts(self) -> Sequence[Concept]:
        """The concepts to erase, at least one."""

    @property
    def method(self) -> str:
        """The name of the method that erases them."""

    def chosen_settings(self) -> Settings:
        """The settings that the method erases with."""

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
    common: bool = setting(False, help="preserve everyday concepts as well, also where the settings need no such list")
    no_common: bool = setting(False, help="do not preserve everyday concepts as well")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        preserve = kept_prompts(self.preserve, wish.option("preserve"))
        preserve += listed_beside(wish.concepts, self.preserve_list)
        return {"preserve": preserve + (common_concepts(wish.concepts) if self.preserves_common(wish) else [])}

    def preserves_common(self, wish: Wish) -> bool:
        """Return whether everyday concepts are preserved too. Raises ``ValueError`` when both ways are asked for."""
        if self.common and self.no_common:
            raise ValueError(f"give either {wish.option('common')} or {wish.option('no_common')}")
        return self.common or (wish.chosen_settings().needs_common and not self.no_common)


@dataclass(frozen=True)
class Exactly(Input):
    """Prompts that must not change at all."""

    exactly: Sequence[str] | str = setting((), help="a prompt whose pictures must not change")

    def keywords(self, wish: Wish) -> dict[str, Any]:
        return {"exactly": kept_prompts(self.exactly, wish.option("exactly"))}


@dataclass(frozen=True)
class Images(Input):
    """Pictures of the concept: those of a folder, or a number of pictures that the model draws itself, or ``none``.

    The number is from 1 to ``MOST_DRAWN``, by default ``DRAWN``. A picture of a folder may have its caption beside it,
    in a text file of the same name, as trainers of LoRAs read them.
    """

    images: str | int | None = setting(
        None, help=f"a folder of the concept, a number for the model to draw (by default {DRAWN}), or none"
    )

    def keywords(self, wish: Wish) -> dict[str, Any]:
        text = str(self.images)
        if self.images is not None and text.isdecimal():
            check_drawn(int(text[:10]) if len(text) < 10 else MOST_DRAWN + 1, wish.option("images"), text)
        return {"images": None}

    def keywords_of_model(self, wish: Wish, model: DiffusionModel, callback: Callback) -> dict[str, Any]:
        text = str(self.images)
        if self.images is None or text.isdecimal():
            return {"images": DRAWN if self.images is None else int(text)}
        if text == "none":
            return {}
        files = picture_files(Path(text))
        return {"images": load_pictures(files, side(model)), "captions": captions_beside(files)}


def check_drawn(images: Tensor | int | None, what: str, text: str = "") -> None:
    """Raise ``ValueError`` for a number of pictures to draw that is not from 1 to ``MOST_DRAWN``.

    Tensors and ``None`` are no numbers, and pass. ``what`` is what errors call the number, and ``text`` how it was
    written.
    """
    if isinstance(images, int) and not 1 <= images <= MOST_DRAWN:
        given = excerpt(text or str(images))
        raise ValueError(f"{what}: the model draws 1 to {MOST_DRAWN} pictures itself, not {given}")


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
