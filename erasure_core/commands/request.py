"""What a user asks for, on the command line or in a configuration: a model by name, and an erasure to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import check_argument
from ..concepts.common import common_concepts
from ..concepts.parse import Concept, kept_prompts
from ..erasures.erasure import Erasure
from ..files.images import load_pictures, picture_files
from ..methods import METHODS
from ..model import Callback
from ..quoting import shown
from ..sampling.ddim import generate
from ..settings import Settings
from ..training.loop import Budget, check_rank
from .progress import Progress

if TYPE_CHECKING:
    from ..diffusers.model import DiffusersModel

TOY = "toy"
TRAINING = ("seconds", "rank")
CHECKPOINTING = "gradient_checkpointing"
OPTIONS = (CHECKPOINTING, "towers")
NEEDS = {"no_common": "preserve", "seed": "training", **dict.fromkeys(TRAINING, "training")}
MOST_DRAWN = 1000  # pictures of the concept; about four are needed
VAE_FACTOR = 8  # pixels a latent, in every Stable Diffusion


def load_model(name: str) -> DiffusersModel:
    """``toy``, or what is at a path; see ``load_checkpoint`` for what it raises."""
    if name == TOY:
        from ..toy import load_toy

        return load_toy()
    from ..diffusers.checkpoint import load_checkpoint

    return load_checkpoint(name)


def setting_types() -> dict[str, type]:
    """Every setting of every method by name."""
    presets = [preset for method in METHODS.values() for preset in method.presets.values()]
    return {name: type(value) for preset in presets for name, value in vars(preset).items()}


def having(setting: str) -> list[str]:
    """The methods that have a setting."""
    return [name for name, method in METHODS.items() if setting in vars(next(iter(method.presets.values())))]


@dataclass(frozen=True)
class Request:
    """An erasure to compute. What is ``None``, empty or false was not asked for.

    ``settings`` take the places of the preset's; ``images`` is a folder, a number of pictures for the model to draw,
    or ``none``. ``toy`` says that the model is the embedded one, ``option`` how errors spell the name of a setting.
    """

    concepts: Sequence[Concept]
    method: str = "rece"
    preset: str = "object"
    settings: Mapping[str, Any] = field(default_factory=dict)
    preserve: Sequence[str] | str = ()
    exactly: Sequence[str] | str = ()
    no_common: bool = False
    images: str | None = None
    seed: int | None = None
    seconds: float | None = None
    rank: int | None = None
    gradient_checkpointing: bool = False
    towers: str | None = None
    toy: bool = False
    option: Callable[[str], str] = str

    def keywords(self) -> dict[str, Any]:
        """What the method is called with, but for pictures of the concept.

        Raises ``ValueError`` for what the method does not take.
        """
        found = {"settings": self._settings(), **self._preserve(), **self._training()}
        self._check_images()
        return found

    def erasure(self, model, callback: Callback) -> Erasure:
        """Compute it; raises what ``keywords`` and the method do."""
        keywords = self.keywords() | self._images(model)
        return METHODS[self.method].run(model, self.concepts, callback=callback, **keywords)

    def _settings(self) -> Settings:
        method = METHODS[self.method]
        presets = method.toy_presets if self.toy else method.presets
        if self.preset not in presets:
            raise ValueError(f"{self.method} has no preset '{self.preset}'; it has {', '.join(presets)}")
        preset = presets[self.preset]
        for name in self.settings:
            if name not in vars(preset):
                self._belongs_elsewhere(name, having(name))
        return replace(preset, **self.settings)

    def _preserve(self) -> dict[str, Any]:
        if "preserve" not in METHODS[self.method].needs:
            self._refuse("preserve", "no_common", "exactly")
            return {}
        preserve = kept_prompts(self.preserve, self.option("preserve"))
        found = {"preserve": preserve + ([] if self.no_common else common_concepts(self.concepts))}
        if "exactly" in METHODS[self.method].needs:
            return {**found, "exactly": kept_prompts(self.exactly, self.option("exactly"))}
        self._refuse("exactly")
        return found

    def _training(self) -> dict[str, Any]:
        needs, found = METHODS[self.method].needs, {}
        if "training" in needs:
            found = {"seed": self.seed or 0, **{name: getattr(self, name) for name in TRAINING}}
            check_argument("seed", "Seed", found["seed"])
            check_rank(self.rank)
            Budget(1, self.seconds)
        else:
            self._refuse("seed", *TRAINING)
        for name in OPTIONS:
            if name not in needs:
                self._refuse(name)
            elif getattr(self, name):
                found[name] = getattr(self, name)
        return found

    def _check_images(self) -> None:
        if "images" not in METHODS[self.method].needs:
            self._refuse("images")
        elif self.images is None:
            raise ValueError(
                f"{self.method} needs {self.option('images')}: a folder of pictures of the concept, a number of "
                "pictures for the model to draw itself, or 'none'"
            )
        elif self.images.isdecimal() and not (len(self.images) < 10 and 1 <= int(self.images) <= MOST_DRAWN):
            raise ValueError(
                f"{self.option('images')}: the model draws 1 to {MOST_DRAWN} pictures itself, not {shown(self.images)}"
            )

    def _images(self, model) -> dict[str, Any]:
        if self.images is None:
            return {}
        if self.images == "none":
            return {"images": None}
        if not self.images.isdecimal():
            return {"images": load_pictures(picture_files(Path(self.images)), side(model))}
        count = int(self.images)
        with Progress("images") as bar:
            return {"images": generate(model, [self.concepts[0].name] * count, range(count), callback=bar)}

    def _refuse(self, *names: str) -> None:
        for name in names:
            given = getattr(self, name)
            if given or type(given) in (int, float):  # a 0 was given too
                need = NEEDS.get(name, name)
                self._belongs_elsewhere(name, [other for other, method in METHODS.items() if need in method.needs])

    def _belongs_elsewhere(self, name: str, methods: Sequence[str]) -> None:
        whose = f"; it is of {', '.join(methods)}" if methods else ""
        raise ValueError(f"{self.method} takes no {self.option(name)}{whose}")


def side(model) -> int:
    """Of a picture that the model draws, in pixels."""
    return VAE_FACTOR * model.latent_shape()[1]
