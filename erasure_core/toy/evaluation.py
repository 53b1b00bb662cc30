"""The effect of an erasure on the embedded model in numbers: UA, IRA, CRA and colour, counted by its judge.

The erased concept is an object, a style or a colour. UA (unlearning accuracy) is the share of pictures prompted with it
that the judge no longer takes for it. The other numbers are counted on pictures of the other concepts of its kind: IRA
(in-domain retention accuracy) is the share recognised as the concept of their caption, CRA (cross-domain) the same for
the other kind (styles when an object was erased, else objects), and colour the same for the background.
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
from ..quoting import excerpt
from ..sampling.ddim import generate
from .captions import COLOURS, OBJECTS, STYLES, SYNONYMS, Caption
from .judge import Judge, Verdict
from .renders import load_renders, psnr

NAMES: dict[str, tuple[str, ...]] = {"object": OBJECTS, "style": STYLES, "colour": tuple(COLOURS)}
BACKGROUND = 0.15  # the largest difference of a channel, from 0 to 1, at which a pixel counts as background
CROSS = {"object": "style", "style": "object", "colour": "object"}


@dataclass(frozen=True)
class Subject:
    """A concept that the embedded model can draw; ``kind`` is ``object``, ``style`` or ``colour``."""

    kind: str
    name: str


@dataclass(frozen=True)
class Gallery:
    """Captions, their pictures ``[n, 3, h, w]`` with values from 0 to 1, and what the judge recognises in them."""

    captions: tuple[Caption, ...]
    images: Tensor
    verdict: Verdict


@dataclass(frozen=True)
class Scores:
    """The shares that the module describes, from 0 to 1, for one erased ``subject``.

    ``erased`` and ``others`` are the numbers of pictures with the erased concept and with others.
    """

    subject: Subject
    ua: float
    ira: float
    cra: float
    colour: float
    erased: int
    others: int


@dataclass(frozen=True)
class Accuracy:
    """The shares of pictures, from 0 to 1, in which the judge recognises what the caption names.

    ``images`` is the number of pictures.
    """

    object: float
    style: float
    colour: float
    images: int


def subject_of(concept: Concept | str) -> Subject:
    """Return the kind and name of a concept. Raises ``ValueError`` for one that the embedded model does not draw."""
    subject = _known(concept)
    if subject:
        return subject
    name = excerpt(_name(concept))
    known = "; ".join(f"{kind}s: {', '.join(names)}" for kind, names in NAMES.items())
    raise ValueError(f"the embedded model does not draw '{name}', so its erasure cannot be judged. It draws {known}")


def _name(concept: Concept | str) -> str:
    return str(concept.name if isinstance(concept, Concept) else concept).strip()


def _known(concept: Concept | str) -> Subject | None:
    """Return the concept as the embedded model knows it, by its name or a synonym; ``None`` if it does not."""
    words = key(without_style(_name(concept)))
    words = words[:-1] if len(words) > 1 and words[-1] in ("style", "background") else words
    synonyms = {key(other): known for known, other in SYNONYMS.items()}
    for kind, names in NAMES.items():
        for name in names:
            if name == synonyms.get(words) or key(name) == words:
                return Subject(kind, name)
    return None


def check_erased(concept: Concept | str, concepts: Sequence[Concept]) -> None:
    """Raise ``ValueError`` unless ``concept``, or a synonym that the embedded model knows, is one of ``concepts``."""
    problem = not_among(_name(concept), concepts)
    if problem and subject_of(concept) not in map(_known, concepts):
        raise ValueError(problem)


def captions_for(subject: Subject, erased: int, others: int, seed: int, apart: Sequence[Concept] = ()) -> list[Caption]:
    """Return ``erased`` captions that name the subject, and then ``others`` that name other concepts of its kind.

    Each name comes equally often. The concepts ``apart``, which are also erased, are named by no caption; by default
    there are none. Raises ``ValueError`` when no other concept of a kind is left.
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
    """Draw a picture for each caption and judge it.

    The same ``seed`` gives the same starting noise. Pictures are drawn ``batch`` at a time in ``steps`` DDIM steps with
    classifier-free ``guidance``. ``callback`` gets the progress. Raises ``ValueError`` without captions.
    """
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
    """Count the pictures whose captions name ``subject`` and those whose captions do not, and return the scores."""
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
    """Return the scores of ``model`` for ``concept`` with ``erasure`` applied, or without one, and the pictures.

    ``erased`` pictures name the concept and ``others`` other concepts of its kind. Other concepts of the erasure, and
    those ``apart``, are named by no caption, since their loss is no damage. Raises ``ValueError`` for a concept that
    the embedded model does not draw or that the erasure has not erased.
    """
    subject = subject_of(concept)
    held = erasure.concepts if erasure else ()
    check_erased(concept, held)
    captions = captions_for(subject, erased, others, seed, (*held, *apart))
    with erasure.applied_to(model) if erasure else nullcontext():
        gallery = draw(model, judge, captions, seed=seed, callback=callback)
    return score(gallery, subject), gallery


def drift_outside(before: Gallery, after: Gallery, subject: Subject) -> float:
    """Return how much pictures of ``subject`` changed where they showed plain background before.

    This is the root mean square difference of channels, from 0 to 1; a low number means that the layout stayed. Both
    galleries are of the same captions and noise. Raises ``ValueError`` for a caption without a background.
    """
    named = [index for index, caption in enumerate(before.captions) if getattr(caption, subject.kind) == subject.name]
    was, now = before.images[named], after.images[named]
    colours = torch.tensor([_background(before.captions[index]) for index in named]) / 255
    outside = (was - colours[:, :, None, None]).abs().amax(1) < BACKGROUND
    return float((now - was).square().mean(1)[outside].mean().sqrt())


def _background(caption: Caption) -> tuple[int, int, int]:
    """Return the colour of the background that a caption names, in bytes of red, green and blue."""
    if caption.colour is None:
        raise ValueError(f"'{caption}' names no background, so it cannot be told whether it stayed")
    return COLOURS[caption.colour]


def pictures_of(subject: Subject, count: int = 4, seed: Seed = 0) -> Tensor:
    """Return ``count`` real renders of the subject, or all if there are fewer, ``[n, 3, h, w]`` from 0 to 1.

    The subject is all that they share, as far as the sheet allows: each next picture has as little as possible in
    common with those before, and ``seed`` draws among the rest. They come in the order of the sheet.
    """
    captions, images = load_renders()
    places = [index for index, caption in enumerate(captions) if getattr(caption, subject.kind) == subject.name]
    random.Random(seed).shuffle(places)
    chosen: list[int] = []
    while places and len(chosen) < count:
        shared = [sum(_shared(captions[place], captions[other]) for other in chosen) for place in places]
        chosen.append(places.pop(shared.index(min(shared))))
    return images[sorted(chosen)]


def _shared(one: Caption, other: Caption) -> int:
    """Return how many of object, style and colour two captions have in common."""
    return sum(getattr(one, kind) == getattr(other, kind) for kind in NAMES)


@checked
def evaluate_model(
    model: DiffusionModel,
    judge: Judge,
    *,
    images: int = 192,
    seed: Seed = 0,
    callback: Callback | None = None,
) -> Accuracy:
    """Return how often the judge recognises what captions with object, style and colour name, over ``images``."""
    gallery = draw(model, judge, deal(NAMES, images, random.Random(seed)), seed=seed, callback=callback)
    return _overall(gallery)


@dataclass(frozen=True)
class RenderAccuracy:
    """The judge's accuracy on real renders, as they are (``raw``) and through the autoencoder (``decoded``).

    ``psnr`` is the peak signal-to-noise ratio of the autoencoder in dB.
    """

    raw: Accuracy
    decoded: Accuracy
    psnr: float


@checked
def evaluate_renders(model: DiffusionModel, judge: Judge) -> RenderAccuracy:
    """Return how accurate judge and autoencoder are on real renders, at a position that training never used."""
    captions, images = load_renders()
    decoded = model.decode_latents(model.encode_images(images.to(model.device))).cpu()
    raw, passed = (_overall(Gallery(tuple(captions), batch, judge.judge(batch))) for batch in (images, decoded))
    return RenderAccuracy(raw, passed, psnr(images, decoded))


def _overall(gallery: Gallery) -> Accuracy:
    every = range(len(gallery.captions))
    thing, style, colour = (accuracy(gallery, kind, every) for kind in ("object", "style", "colour"))
    return Accuracy(thing, style, colour, len(every))


def deal(names: dict[str, tuple[str, ...]], count: int, draw: random.Random) -> list[Caption]:
    """Return ``count`` captions in which all names of a kind come equally often, give or take one.

    ``names`` are the objects, styles and colours to choose from, by kind; ``draw`` shuffles them.
    """
    columns = []
    for kind in ("object", "style", "colour"):
        deck: list[str] = []
        while len(deck) < count:
            deck += draw.sample(names[kind], len(names[kind]))
        columns.append(deck[:count])
    return [Caption(*row) for row in zip(*columns, strict=True)]


def accuracy(gallery: Gallery, kind: str, places: Sequence[int]) -> float:
    """Return the share of the pictures at ``places`` whose ``kind`` the judge recognises; NaN without pictures."""
    names = getattr(gallery.verdict, f"{kind}s")
    right = sum(names[place] == getattr(gallery.captions[place], kind) for place in places)
    return right / len(places) if places else float("nan")
