"""Reports: the effect of an erasure, measured on pictures from the same noise before and after it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from ..arguments import Seed, checked
from ..closed_form.regeneration import regeneration_error
from ..concepts.common import COMMON, not_among, sharing_no_word
from ..concepts.parse import as_prompts
from ..drawing.table import percent, table
from ..erasures.erasure import Erasure
from ..model import Callback, DiffusionModel
from ..progress import part_of
from ..sampling.ddim import sample_latents
from .recognisers.recogniser import Recogniser
from .report_prompts import ERASED, FAR, GROUPS, NEIGHBOUR, ReportPrompt, report_prompts

RESAMPLES, CONFIDENCE = 1000, 0.95  # of the bootstrap
DRAWN_BEFORE = 0.5  # if fewer pictures showed the concept before the erasure, the share after it says little
BATCH = 32  # pictures that are drawn at once


@dataclass(frozen=True)
class Pictures:
    """Images ``[prompts * seeds, 3, h, w]`` with values from 0 to 1, and their latents.

    The pictures of one prompt, a seed each, stand together.
    """

    images: Tensor
    latents: Tensor


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % bootstrap confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """Means over the pictures of one prompt or of one group.

    ``latents`` is the root mean square change of the latents, relative to that of the latents before. ``pixels`` is the
    root mean square change of the pixels, relative to their range. ``shown`` is the share of pictures that the
    recogniser takes for the concept of their prompt, from 0 to 1. ``likeness`` is the CLIP score, from -1 to 1. The
    last two are ``None`` without a recogniser that knows the concept.
    """

    latents: Interval
    pixels: Interval
    shown_before: Interval | None
    shown_after: Interval | None
    likeness_before: Interval | None
    likeness_after: Interval | None


@dataclass(frozen=True)
class Report:
    """The numbers of a report: a row for each of ``prompts``, and one for each group of them."""

    concept: str
    prompts: tuple[ReportPrompt, ...]
    rows: tuple[Row, ...]
    groups: Mapping[str, Row]
    recogniser: str | None
    """The name of the recogniser."""
    pictures: int
    """The number of pictures of the concept itself."""
    settings: Mapping[str, object]
    regeneration_error: float | None = None
    """How closely any context can regenerate the concept, see ``regeneration_error``; None if unknown."""

    @property
    def ua(self) -> float | None:
        """The unlearning accuracy: the share of the concept's pictures that no longer show it; None if unknown."""
        shown = self.groups[ERASED].shown_after
        return None if shown is None else 1 - shown.mean

    def as_json(self) -> str:
        """Return all numbers and the verdict as JSON."""
        numbers = {
            "version": 1,
            "concept": self.concept,
            "recogniser": self.recogniser,
            "pictures": self.pictures,
            "settings": dict(self.settings),
            "ua": self.ua,
            "regeneration_error": self.regeneration_error,
            "ira": _mean(self.groups[NEIGHBOUR].shown_after),
            "cra": _mean(self.groups[FAR].shown_after),
            "groups": {name: asdict(row) for name, row in self.groups.items()},
            "prompts": [{**asdict(prompt), **asdict(row)} for prompt, row in zip(self.prompts, self.rows, strict=True)],
            "verdict": self.verdict(),
        }
        return json.dumps(numbers, indent=2)

    def table(self) -> str:
        """Return a markdown table with a line for each prompt, and the means of the groups at the end."""
        lines = [[one.prompt, one.group, *cells(row)] for one, row in zip(self.prompts, self.rows, strict=True)]
        lines += [[f"**{name}**", "mean", *cells(row)] for name, row in self.groups.items()]
        return table(HEADER, lines)

    def verdict(self) -> str:
        """Return the result in one paragraph of plain sentences."""
        near, far = self.groups[NEIGHBOUR], self.groups[FAR]
        worst = max(
            (pair for pair in zip(self.prompts, self.rows, strict=True) if pair[0].group == NEIGHBOUR),
            key=lambda pair: _lost(pair[1]),
        )
        parts = [self._shown(), self._harm(near, far)]
        parts.append(f"Of the neighbours '{worst[0].concept}' suffers most{_how_much(worst[1])}.")
        if self.regeneration_error is not None:
            parts.append(self._left())
        parts.append("A report on some prompts is no proof of absence: attack the erasure as well.")
        return " ".join(parts)

    def _shown(self) -> str:
        before, after = self.groups[ERASED].shown_before, self.groups[ERASED].shown_after
        if before is None or after is None:
            return (
                f"Nobody looked whether pictures still show '{self.concept}'; their pixels changed by "
                f"{100 * self.groups[ERASED].pixels.mean:.0f} % of the range."
            )
        if before.mean < DRAWN_BEFORE:
            return (
                f"Before the erasure only {percent(before.mean)} % of the pictures of '{self.concept}' showed it (by "
                f"{self.recogniser}), so that {percent(after.mean)} % do now says little."
            )
        return (
            f"Of {self.pictures} pictures of '{self.concept}' {percent(after.mean)} % still show it "
            f"({percent(after.low)} to {percent(after.high)}), before the erasure {percent(before.mean)} % (by "
            f"{self.recogniser})."
        )

    def _left(self) -> str:
        nearest = percent(self.regeneration_error or 0.0)
        return (
            f"No context comes nearer to '{self.concept}' through the edited layers than {nearest} % of its distance "
            "from the target."
        )

    def _harm(self, near: Row, far: Row) -> str:
        drift = (
            f"Pixels of its neighbours changed by {100 * near.pixels.mean:.0f} % of the range, of far concepts by "
            f"{100 * far.pixels.mean:.0f} %."
        )
        groups = {"Neighbours": near, "Far concepts": far}
        shares = [
            f"{name} are recognised in {percent(row.shown_after.mean)} % of their pictures (before "
            f"{percent(row.shown_before.mean)})."
            for name, row in groups.items()
            if row.shown_before is not None and row.shown_after is not None
        ]
        unjudged = " and ".join(name.lower() for name, row in groups.items() if row.shown_before is None)
        missing = [f"Nobody looked whether {unjudged} still show what was asked for."] if unjudged else []
        return " ".join([drift, *shares, *missing])


HEADER = ("prompt", "group", "shown before", "after", "pixels %", "latents %", "CLIP before", "after ")


def cells(row: Row) -> list[str]:
    """Return the numbers of a row as text for a table: percent, and CLIP scores."""
    shown = ["" if one is None else percent(one.mean) for one in (row.shown_before, row.shown_after)]
    drift = [f"{100 * one.mean:.1f}" for one in (row.pixels, row.latents)]
    scores = ["" if one is None else f"{one.mean:.3f}" for one in (row.likeness_before, row.likeness_after)]
    return [*shown, *drift, *scores]


@checked
def report(
    model: DiffusionModel,
    erasure: Erasure,
    concept: str,
    *,
    kind: str = "object",
    among: Sequence[str] | str = COMMON,
    count: int = 6,
    more: Sequence[str] | str = (),
    recogniser: Recogniser | None = None,
    seeds: Sequence[Seed] = (0, 1, 2, 3),
    steps: int = 15,
    guidance: float = 3.0,
    callback: Callback | None = None,
) -> Report:
    """Draw pictures with and without ``erasure`` from the same noise, and measure what has changed.

    ``concept`` is one that the erasure has erased, and ``kind`` is ``object`` or ``style``. ``among``, ``count`` and
    ``more`` choose the prompts as in ``report_prompts``; other concepts that are erased are left out. ``recogniser``
    judges the pictures; without one only their change is measured. Each prompt is drawn with every one of ``seeds``, in
    ``steps`` DDIM steps, with classifier-free ``guidance``. ``callback`` gets the progress. The model is not changed.
    Raises ``ValueError`` for settings that cannot be used, and for a concept that the erasure has not erased.
    """
    if not seeds:
        raise ValueError("seeds is empty: give at least one")
    problem = not_among(concept, erasure.concepts)
    if problem:
        raise ValueError(f"{problem}, and list what else asks for it as further prompts")
    others = sharing_no_word(erasure.concepts, as_prompts(among, "among"))
    prompts = report_prompts(model, concept, kind, among=others, count=count, more=more)
    settings = {"seeds": list(seeds), "steps": steps, "guidance": guidance, "kind": kind}
    drawn = partial(draw, model, prompts, seeds=seeds, steps=steps, guidance=guidance)
    before = drawn(callback=part_of(callback, 0, 2))
    with erasure.applied_to(model):
        after = drawn(callback=part_of(callback, 1, 2))
    left = regeneration_error(model, erasure, concept)
    return summarise(concept, prompts, before, after, recogniser, settings, left)


@checked
def draw(
    model: DiffusionModel,
    prompts: Sequence[ReportPrompt],
    *,
    seeds: Sequence[Seed],
    steps: int,
    guidance: float,
    callback: Callback | None = None,
) -> Pictures:
    """Draw each of ``prompts`` with each of ``seeds``; the settings are those of ``report``."""
    texts = [one.prompt for one in prompts for _ in seeds]
    latents = sample_latents(
        model, texts, list(seeds) * len(prompts), steps=steps, guidance=guidance, batch=BATCH, callback=callback
    )
    images = [model.decode_latents(part.to(model.device)).float().cpu() for part in latents.split(BATCH)]
    return Pictures(torch.cat(images), latents)


def summarise(
    concept: str,
    prompts: Sequence[ReportPrompt],
    before: Pictures,
    after: Pictures,
    recogniser: Recogniser | None,
    settings: Mapping[str, object],
    left: float | None = None,
) -> Report:
    """Return the report on pictures before and after an erasure, drawn with the same ``prompts`` and noise.

    ``settings`` are those of the drawing, for the record. ``left`` is the erasure's ``regeneration_error``, by default
    unknown. Raises ``ValueError`` when the pictures do not fit the
    prompts or hold NaN.
    """
    if before.images.shape != after.images.shape or len(before.images) % len(prompts):
        raise ValueError(
            f"{len(prompts)} probes need as many pictures each before as after, got {len(before.images)} and "
            f"{len(after.images)}"
        )
    if not (torch.isfinite(before.latents).all() and torch.isfinite(after.latents).all()):
        raise ValueError("a model draws NaN; there is nothing to measure")
    each = len(before.images) // len(prompts)
    latents = _change(before.latents, after.latents) / _change(before.latents, 0).clamp(min=1e-12)
    pixels = _change(before.images, after.images)
    shown = [_shown(recogniser, prompts, drawn.images.split(each)) for drawn in (before, after)]
    likeness = [_likeness(recogniser, prompts, drawn.images, each) for drawn in (before, after)]

    def row(places: list[int]) -> Row:
        return Row(
            bootstrap(latents.view(-1, each)[places]),
            bootstrap(pixels.view(-1, each)[places]),
            *(_interval(values, places) for values in (*shown, *likeness)),
        )

    rows = tuple(row([index]) for index in range(len(prompts)))
    groups = {name: row([i for i, one in enumerate(prompts) if one.group == name]) for name in GROUPS}
    pictures = each * sum(one.group == ERASED for one in prompts)
    name = recogniser.name if recogniser else None
    return Report(concept, tuple(prompts), rows, groups, name, pictures, dict(settings), left)


def bootstrap(values: Tensor, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of ``values`` ``[prompts, seeds]`` with its 95 % bootstrap confidence interval.

    Each of ``resamples`` (by default 1000) draws prompts first, and then seeds for each of them.
    """
    generator = torch.Generator().manual_seed(0)
    prompts, seeds = values.shape
    rows = torch.randint(prompts, (resamples, prompts), generator=generator)
    columns = torch.randint(seeds, (resamples, prompts, seeds), generator=generator)
    means = values.double()[rows[:, :, None], columns].mean((1, 2))
    edges = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.float64)
    low, high = means.quantile(edges).tolist()
    return Interval(float(values.double().mean()), low, high)


def _interval(values: Sequence[Tensor | None], places: Sequence[int]) -> Interval | None:
    """Return the interval over the prompts at ``places``; None if the value of one of them is unknown."""
    picked = [one for one in (values[place] for place in places) if one is not None]
    return bootstrap(torch.stack(picked)) if len(picked) == len(places) else None


def _shown(
    recogniser: Recogniser | None, prompts: Sequence[ReportPrompt], parts: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return for each prompt which of its pictures show its concept, as 0 and 1; None if the recogniser cannot tell."""

    def judged(concept: str, images: Tensor) -> Tensor | None:
        if recogniser is None or not recogniser.knows(concept):
            return None
        return torch.tensor(recogniser.shows(images, [concept] * len(images))).double()

    return [judged(one.concept, images) for one, images in zip(prompts, parts, strict=True)]


def _likeness(
    recogniser: Recogniser | None, prompts: Sequence[ReportPrompt], images: Tensor, each: int
) -> list[Tensor | None]:
    """Return for each prompt the CLIP scores of its pictures; None from a recogniser that gives none."""
    likeness: Callable[[Tensor, Sequence[str]], list[float]] | None = getattr(recogniser, "likeness", None)
    if likeness is None:
        return [None] * len(prompts)
    texts = [one.prompt for one in prompts for _ in range(each)]
    return list(torch.tensor(likeness(images, texts)).split(each))


def _change(before: Tensor, after: Tensor | float) -> Tensor:
    """Return the root mean square difference of each pair of pictures or latents, ``[n]``."""
    return (before - after).flatten(1).square().mean(1).sqrt()


def _mean(interval: Interval | None) -> float | None:
    return None if interval is None else interval.mean


def _lost(row: Row) -> float:
    """Return how much a neighbour suffered, for ranking: by recognition, and among equals by the change of pixels."""
    changed = row.pixels.mean / 100
    if row.shown_before is None or row.shown_after is None:
        return changed
    return row.shown_before.mean - row.shown_after.mean + changed


def _how_much(row: Row) -> str:
    if row.shown_before is None or row.shown_after is None or math.isclose(row.shown_before.mean, row.shown_after.mean):
        return f" (pixels changed by {100 * row.pixels.mean:.0f} %)"
    now, before = percent(row.shown_after.mean), percent(row.shown_before.mean)
    return f" (recognised in {now} % of its pictures, before {before})"
