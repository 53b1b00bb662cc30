"""What an erasure does to the embedded model, in numbers: UA, IRA, CRA and colour, by its judge.

An object, a style or a colour is erased. UA is the share of pictures prompted with it that are no longer
recognised as it; the rest is counted on pictures of the others of its kind: IRA the share recognised as the one
asked for, CRA the accuracy on the other kind (styles when an object was erased, else objects), colour that of the
background.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import Seed, checked
from ..concepts.common import not_among, without_style
from ..concepts.names import key
from ..concepts.parse import Concept
from ..erasures.erasure import Erasure
from ..model import Callback, DiffusionModel
from ..quoting import shown
from ..sampling.ddim import generate
from .captions import COLOURS, OBJECTS, STYLES, SYNONYMS, Caption
from .judge import Judge, Verdict
from .renders import load_renders, psnr

NAMES: dict[str, tuple[str, ...]] = {"object": OBJECTS, "style": STYLES, "colour": tuple(COLOURS)}
BACKGROUND = 0.15  # how far a channel may be from the background's colour and still count as it
CROSS = {"object": "style", "style": "object", "colour": "object"}


@dataclass(frozen=True)
class Subject:
    """A concept as the embedded model knows it: ``kind`` is object, style or colour."""

    kind: str
    name: str


@dataclass(frozen=True)
class Gallery:
    """What was asked for, the pictures ``[n, 3, h, w]`` in 0 to 1, and what the judge sees in them."""

    captions: tuple[Caption, ...]
    images: Tensor
    verdict: Verdict


@dataclass(frozen=True)
class Scores:
    """Shares from 0 to 1; see the module. ``erased`` and ``others`` count the pictures behind them."""

    subject: Subject
    ua: float
    ira: float
    cra: float
    colour: float
    erased: int
    others: int


@dataclass(frozen=True)
class Accuracy:
    """The share of ``images`` in which the judge names what was asked for, from 0 to 1."""

    object: float
    style: float
    colour: float
    images: int


def subject_of(concept: Concept | str) -> Subject:
    """The kind and name of a concept. Raises ``ValueError`` for one that the embedded model does not draw."""
    found = _known(concept)
    if found:
        return found
    asked = shown(_name(concept))
    known = "; ".join(f"{kind}s: {', '.join(names)}" for kind, names in NAMES.items())
    raise ValueError(f"the embedded model does not draw '{asked}', so its erasure cannot be judged. It draws {known}")


def _name(concept: Concept | str) -> str:
    return str(concept.name if isinstance(concept, Concept) else concept).strip()


def _known(concept: Concept | str) -> Subject | None:
    asked = _name(concept)
    words = key(without_style(asked))
    words = words[:-1] if len(words) > 1 and words[-1] in ("style", "background") else words
    synonyms = {key(other): known for known, other in SYNONYMS.items()}
    for kind, names in NAMES.items():
        for name in names:
            if name == synonyms.get(words) or key(name) == words:
                return Subject(kind, name)
    return None


def check_erased(concept: Concept | str, concepts: Sequence[Concept]) -> None:
    """Raise ``ValueError`` for a concept that is none of those erased, by its name or another that the toy knows."""
    problem = not_among(_name(concept), concepts)
    if problem and subject_of(concept) not in map(_known, concepts):
        raise ValueError(problem)


def captions_for(subject: Subject, erased: int, others: int, seed: int, apart: Sequence[Concept] = ()) -> list[Caption]:
    """``erased`` captions that name the subject, then ``others`` that name the others of its kind, evenly.

    What is to be kept ``apart``, since it is erased too, is named by none of them. Raises ``ValueError`` when nothing
    else is left.
    """
    gone = {subject, *map(_known, apart)}
    rest = {kind: tuple(name for name in names if Subject(kind, name) not in gone) for kind, names in NAMES.items()}
    for kind, names in rest.items():
        if not names:
            raise ValueError(f"every {kind} that the embedded model draws is erased; none is left to compare with")
    draw = random.Random(seed)
    return [*deal({**rest, subject.kind: (subject.name,)}, erased, draw), *deal(rest, others, draw)]


@checked
def draw(
    model: DiffusionModel,
    judge: Judge,
    captions: Sequence[Caption],
    *,
    seed: Seed = 0,
    steps: int = 15,
    guidance: float = 3.0,
    batch: int = 64,
    callback: Callback | None = None,
) -> Gallery:
    """Generate a picture a caption and judge it. The same ``seed`` gives the same starting noise."""
    if not captions:
        raise ValueError("there is no caption to draw; ask for at least one picture")
    images = generate(
        model,
        [str(caption) for caption in captions],
        [seed * 1_000_003 + index for index in range(len(captions))],
        steps=steps,
        guidance=guidance,
        batch=batch,
        callback=callback,
    )
    return Gallery(tuple(captions), images, judge.judge(images))


def score(gallery: Gallery, subject: Subject) -> Scores:
    """Split the pictures by whether their caption names ``subject``, and count."""
    named = [getattr(caption, subject.kind) == subject.name for caption in gallery.captions]
    erased = [index for index, is_named in enumerate(named) if is_named]
    others = [index for index, is_named in enumerate(named) if not is_named]
    return Scores(
        subject,
        ua=1 - accuracy(gallery, subject.kind, erased),
        ira=accuracy(gallery, subject.kind, others),
        cra=accuracy(gallery, CROSS[subject.kind], others),
        colour=accuracy(gallery, "colour", others),
        erased=len(erased),
        others=len(others),
    )


@checked
def evaluate_erasure(
    model: DiffusionModel,
    judge: Judge,
    concept: Concept | str,
    erasure: Erasure | None = None,
    *,
    erased: int = 24,
    others: int = 64,
    apart: Sequence[Concept] = (),
    seed: Seed = 0,
    callback: Callback | None = None,
) -> tuple[Scores, Gallery]:
    """Scores for ``concept`` with ``erasure`` applied, or of the model as it is, and the pictures behind them.

    The other concepts of ``erasure``, and those ``apart``, are named by no caption: their loss is no damage. Raises
    ``ValueError`` for a concept that the erasure does not hold.
    """
    subject = subject_of(concept)
    held = erasure.concepts if erasure else ()
    check_erased(concept, held)
    captions = captions_for(subject, erased, others, seed, (*held, *apart))
    with erasure.applied_to(model) if erasure else nullcontext():
        gallery = draw(model, judge, captions, seed=seed, callback=callback)
    return score(gallery, subject), gallery


def drift_outside(before: Gallery, after: Gallery, subject: Subject) -> float:
    """How much pictures of ``subject`` changed where they showed plain background before: the root mean square
    difference of channels, from 0 to 1. Both galleries are of the same captions and noise; low means that the layout
    stayed."""
    named = [index for index, caption in enumerate(before.captions) if getattr(caption, subject.kind) == subject.name]
    was, now = before.images[named], after.images[named]
    colours = torch.tensor([_background(before.captions[index]) for index in named]) / 255
    outside = (was - colours[:, :, None, None]).abs().amax(1) < BACKGROUND
    return float((now - was).square().mean(1)[outside].mean().sqrt())


def _background(caption: Caption) -> tuple[int, int, int]:
    if caption.colour is None:
        raise ValueError(f"'{caption}' names no background, so it cannot be told whether it stayed")
    return COLOURS[caption.colour]


def pictures_of(subject: Subject, count: int = 4) -> Tensor:
    """About ``count`` real renders of the subject, ``[n, 3, h, w]`` in 0 to 1, spread over the sheet."""
    captions, images = load_renders()
    places = [index for index, caption in enumerate(captions) if getattr(caption, subject.kind) == subject.name]
    return images[places[:: max(1, len(places) // count)][:count]]


@checked
def evaluate_model(
    model: DiffusionModel,
    judge: Judge,
    *,
    images: int = 192,
    seed: Seed = 0,
    callback: Callback | None = None,
) -> Accuracy:
    """How often the judge names what complete captions asked for."""
    gallery = draw(model, judge, deal(NAMES, images, random.Random(seed)), seed=seed, callback=callback)
    return _overall(gallery)


@dataclass(frozen=True)
class RenderAccuracy:
    """The judge on real renders as they are and passed through the autoencoder; ``psnr`` of these in dB."""

    raw: Accuracy
    decoded: Accuracy
    psnr: float


@checked
def evaluate_renders(model: DiffusionModel, judge: Judge) -> RenderAccuracy:
    """How good the judge and the autoencoder are, on renders that neither has seen in this place."""
    captions, images = load_renders()
    decoded = model.decode_latents(model.encode_images(images.to(model.device))).cpu()
    raw, passed = (_overall(Gallery(tuple(captions), shown, judge.judge(shown))) for shown in (images, decoded))
    return RenderAccuracy(raw, passed, psnr(images, decoded))


def _overall(gallery: Gallery) -> Accuracy:
    every = range(len(gallery.captions))
    thing, style, colour = (accuracy(gallery, kind, every) for kind in ("object", "style", "colour"))
    return Accuracy(thing, style, colour, len(every))


def deal(names: dict[str, tuple[str, ...]], count: int, draw: random.Random) -> list[Caption]:
    """``count`` captions in which each name of a kind comes as often as the others, give or take one."""
    columns = []
    for kind in ("object", "style", "colour"):
        deck: list[str] = []
        while len(deck) < count:
            deck += draw.sample(names[kind], len(names[kind]))
        columns.append(deck[:count])
    return [Caption(*row) for row in zip(*columns, strict=True)]


def accuracy(gallery: Gallery, kind: str, places: Sequence[int]) -> float:
    """The share of ``places`` where the judge names the ``kind`` that the caption did; NaN for none."""
    seen = getattr(gallery.verdict, f"{kind}s")
    right = sum(seen[place] == getattr(gallery.captions[place], kind) for place in places)
    return right / len(places) if places else float("nan")
