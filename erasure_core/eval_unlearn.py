"""A technique and a metric for the benchmark ``eval-unlearn``, which finds them by their entry points.

It asks for no base class: a technique is ``name(**config)`` with ``generate``, a metric ``name(**config)`` with
``load_dataset``, ``update`` and ``compute``. So nothing is imported from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, get_type_hints

import torch
from PIL import Image

from .arguments import OR_NONE, as_written
from .audit.recognisers.toy import ToyRecogniser
from .commands.progress import Progress
from .commands.request import TOY, Request, load_model, names_of
from .concepts.names import finder
from .concepts.parse import parse_concepts
from .devices import usable_device
from .erasures.erasure import Erasure
from .files.images import as_tensor, to_image
from .methods import METHODS
from .quoting import quoted
from .sampling.ddim import generate
from .toy.evaluation import captions_for, subject_of

UNEDITED = "none"
KEYWORDS = {"num_inference_steps": "steps", "guidance_scale": "guidance"}  # as the benchmark's own techniques have it
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "Sequence[str] | str": list, "str | int": (str, int), "Seed": int, "int": int, "float": float, "bool": bool,
    "str": str,
}  # fmt: skip
"""What a configuration has for an annotation of a setting or an input."""
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a table"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Technique:
    """The configuration of ``ErasureTechnique``. ``steps`` and ``guidance`` are the benchmark's usual ones.

    Either ``erasure`` is a file, or ``method`` erases ``erase_concept`` from ``model``; the method ``none`` leaves the
    model as it is. ``settings`` holds what the command ``erase`` has options for. Beside a file ``erase_concept``
    only says which of its concepts the report is about; the benchmark writes it there.
    """

    model: str
    erasure: str = ""
    method: str = ""
    erase_concept: str = ""
    preset: str = ""
    settings: dict = field(default_factory=dict)
    device: str = "cpu"
    seed: int = 0
    steps: int = 50
    guidance: float = 7.5
    batch: int = 8

    def __post_init__(self) -> None:
        if bool(self.erasure) == bool(self.method):
            raise ValueError(
                "give either 'erasure', a file, or 'method' and 'erase_concept'; the method 'none' leaves the model as "
                "it is"
            )
        if self.method and self.method not in (UNEDITED, *METHODS):
            raise ValueError(f"method '{self.method}' is unknown; known: {', '.join((*METHODS, UNEDITED))}")
        if self.method not in ("", UNEDITED) and not self.erase_concept:
            raise ValueError(f"method '{self.method}' needs 'erase_concept', for example 'cat' or 'cat -> dog'")
        unused = {"": ("preset", "settings"), UNEDITED: ("erase_concept", "preset", "settings")}
        for name in unused.get(self.method, ()):
            if getattr(self, name):
                beside = f"method '{UNEDITED}'" if self.method else "'erasure'"
                raise ValueError(f"'{name}' means nothing beside {beside}; leave it out")

    def request(self) -> Request:
        """What to erase, and how. Raises ``ValueError`` naming the setting that cannot be used."""
        method = METHODS[self.method]
        inputs = [kind for one in METHODS.values() for kind in one.takes]
        own, others = _types(method.settings), [one.settings for one in METHODS.values()]
        foreign = [name for kind in others for name in names_of(kind) if name not in own]
        asked, known = _types(*inputs), {**_types(*others, *inputs), **own}
        typed = {
            name: value if name in foreign and name not in asked else _typed(name, value, known)
            for name, value in self.settings.items()
        }
        for name in [name for name in ("preserve", "exactly") if name in typed]:
            for prompt in typed[name]:
                _typed(name, prompt, {name: str})
        given = {name: value for name, value in typed.items() if name in asked and name not in own}
        settings = {name: value for name, value in typed.items() if name not in given}
        concepts = parse_concepts(self.erase_concept)
        return Request(concepts, self.method, self.preset, settings, given, toy=self.model == TOY)


class ErasureTechnique:
    """Draws with an erased model. Raises ``ValueError`` naming what is wrong in its configuration, a ``Technique``."""

    def __init__(self, **config):
        self.config = _checked(Technique, config)
        self._erasure, request = None, None
        if self.config.erasure:
            self._erasure = _loaded(self.config.erasure, self.config.erase_concept)
        elif self.config.method != UNEDITED:
            request = self.config.request()
            request.check()
        self._model = load_model(self.config.model, usable_device(self.config.device))
        if request:
            with Progress(request.method) as bar:
                self._erasure = request.erasure(self._model, bar)
        self._drawn = 0

    def generate(self, prompts: Sequence[str], seed: int | None = None, **kwargs) -> list[Image.Image]:
        """A picture a prompt: the first from ``seed``, the next from the number after it.

        Without a ``seed``, as when the benchmark is run from its command line, they go on from the configured one,
        through all calls. Prompts too long for the text encoder lose their ends, as in diffusers, with a warning.
        """
        wrong = sorted(set(kwargs) - set(KEYWORDS))
        if wrong:
            raise ValueError(f"generate has no setting '{wrong[0]}'; it has {', '.join(KEYWORDS)}")
        settings = {"steps": self.config.steps, "guidance": self.config.guidance, "batch": self.config.batch}
        settings |= {KEYWORDS[name]: value for name, value in kwargs.items()}
        first = self.config.seed + self._drawn if seed is None else seed
        texts = [self._fitting(prompt) for prompt in prompts]
        with self._erasure.applied_to(self._model) if self._erasure else nullcontext():
            images = generate(self._model, texts, range(first, first + len(texts)), **settings)
        self._drawn += len(texts)
        return [to_image(image) for image in images]

    def _fitting(self, prompt: str) -> str:
        short = self._model.shortened(prompt)
        if short != prompt:
            logger.warning("the prompt '%s...' is too long and loses '%s'", prompt[:40], prompt[len(short) :])
        return short


@dataclass(frozen=True)
class ToyJudge:
    """The configuration of ``ToyJudgeMetric``: what to look for, in how many pictures."""

    concept: str
    pictures: int = 48
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pictures", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"'{name}' must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Prompts:
    """What the benchmark calls a ``Dataset``."""

    prompts: list[str]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What the benchmark calls a ``MetricResult``."""

    name: str
    value: float
    details: dict[str, Any]


class ToyJudgeMetric:
    """The share of the embedded model's pictures that show a concept when asked for it, from 0 to 1.

    Its judge says so, without the network; of other models' pictures it knows nothing.
    """

    def __init__(self, **config):
        self.config = _checked(ToyJudge, config)
        self.subject = subject_of(self.config.concept)
        self._recogniser = ToyRecogniser()
        self._shown: list[bool] = []

    def load_dataset(self) -> Iterator[Prompts]:
        """Prompts that name the concept, batch by batch."""
        captions = captions_for(self.subject, self.config.pictures, 0, self.config.seed)
        for start in range(0, len(captions), self.config.batch):
            part = captions[start : start + self.config.batch]
            yield Prompts([str(caption) for caption in part], {"source": "the embedded model's captions"})

    def update(self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Mapping[str, Any]) -> None:
        pictures = torch.stack([as_tensor(image) for image in images])
        self._shown += self._recogniser.shows(pictures, [self.subject.name] * len(images))

    def compute(self) -> Result:
        share = sum(self._shown) / len(self._shown)
        return Result("shown", share, {"concept": self.subject.name, "pictures": len(self._shown)})


def _types(*kinds: type) -> dict[str, type | tuple[type, ...]]:
    """The fields of settings and inputs, with the types that a configuration has for them."""
    return {one.name: TYPES[as_written(one.type).removesuffix(OR_NONE)] for kind in kinds for one in fields(kind)}


def _loaded(path: str, concept: str) -> Erasure:
    """From a file, which has to erase ``concept`` unless that is empty."""
    erasure = Erasure.load(path)
    erased = finder(name for one in erasure.concepts for name in (one.name, str(one)))
    if concept and not erased(concept):
        raise ValueError(f"{path} erases {quoted([str(one) for one in erasure.concepts])}, not '{concept}'")
    return erasure


def _checked(kind: type, config: Mapping[str, Any]):
    """A ``kind`` from what a configuration file says. Raises ``ValueError`` naming a key that is wrong."""
    known = get_type_hints(kind)
    for one in fields(kind):
        if one.default is MISSING and one.default_factory is MISSING and not config.get(one.name):
            raise ValueError(f"the configuration needs '{one.name}', which is missing or empty")
    return kind(**{name: _typed(name, value, known) for name, value in config.items()})


def _typed(name: str, value: Any, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"the configuration has no setting '{name}'; it has {', '.join(known)}")
    kinds = known[name] if isinstance(known[name], tuple) else (known[name],)
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds:
        return float(value)
    wanted = " or ".join(WORDS[kind] for kind in kinds)
    raise ValueError(f"'{name}' must be {wanted}, got {value!r}")
