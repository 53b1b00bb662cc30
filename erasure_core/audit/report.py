"""What an erasure did, measured on pairs of pictures from the same noise, before and after it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..arguments import Seed, checked
from ..concepts.common import COMMON, not_among, sharing_no_word
from ..concepts.parse import as_prompts
from ..drawing.table import percent, table
from ..erasures.erasure import Erasure
from ..model import Callback, DiffusionModel
from ..progress import part_of
from ..sampling.ddim import sample_latents
from .recognisers.recogniser import Recogniser
from .report_prompts import ERASED, FAR, GROUPS, NEIGHBOUR, Probe, probes

RESAMPLES, CERTAIN = 1000, 0.95
DRAWN_BEFORE = 0.5  # at least this share of pictures has to show the concept before, for the share after to mean much
BATCH = 32


@dataclass(frozen=True)
class Drawn:
    """Pictures ``[probes * seeds, 3, h, w]`` in 0 to 1 and their latents, the seeds of a probe after one another."""

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
    """Means over the pictures of one prompt, or of one group.

    ``latents`` is the root mean square of the change of latents relative to that of the latents before, ``pixels`` of
    the change of pixels relative to their range; ``shown`` the share recognised as what was asked for; ``likeness`` the
    CLIP score. ``None`` where nobody could tell.
    """

    latents: Interval
    pixels: Interval
    shown_before: Interval | None
    shown_after: Interval | None
    likeness_before: Interval | None
    likeness_after: Interval | None


@dataclass(frozen=True)
class Report:
    """Rows for each of ``probes`` and for each group, and who recognised the pictures."""

    concept: str
    probes: tuple[Probe, ...]
    rows: tuple[Row, ...]
    groups: Mapping[str, Row]
    recogniser: str | None
    pictures: int
    """Of the concept itself."""
    settings: Mapping[str, object]

    @property
    def ua(self) -> float | None:
        """The share of the concept's pictures that no longer show it; None where nobody could tell."""
        shown = self.groups[ERASED].shown_after
        return None if shown is None else 1 - shown.mean

    def as_json(self) -> str:
        """All numbers."""
        told = {
            "version": 1,
            "concept": self.concept,
            "recogniser": self.recogniser,
            "pictures": self.pictures,
            "settings": dict(self.settings),
            "ua": self.ua,
            "ira": _mean(self.groups[NEIGHBOUR].shown_after),
            "cra": _mean(self.groups[FAR].shown_after),
            "groups": {name: asdict(row) for name, row in self.groups.items()},
            "prompts": [{**asdict(probe), **asdict(row)} for probe, row in zip(self.probes, self.rows, strict=True)],
            "verdict": self.verdict(),
        }
        return json.dumps(told, indent=2)

    def table(self) -> str:
        """A line a prompt, the groups' means at the end."""
        lines = [[probe.prompt, probe.group, *cells(row)] for probe, row in zip(self.probes, self.rows, strict=True)]
        lines += [[f"**{name}**", "mean", *cells(row)] for name, row in self.groups.items()]
        return table(HEADER, lines)

    def verdict(self) -> str:
        """One paragraph, for people."""
        near, far = self.groups[NEIGHBOUR], self.groups[FAR]
        worst = max(
            (pair for pair in zip(self.probes, self.rows, strict=True) if pair[0].group == NEIGHBOUR),
            key=lambda pair: _lost(pair[1]),
        )
        parts = [self._shown(), self._harm(near, far)]
        parts.append(f"Of the neighbours '{worst[0].concept}' suffers most{_how_much(worst[1])}.")
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

    def _harm(self, near: Row, far: Row) -> str:
        drift = (
            f"Pixels of its neighbours changed by {100 * near.pixels.mean:.0f} % of the range, of far concepts by "
            f"{100 * far.pixels.mean:.0f} %."
        )
        told = {"Neighbours": near, "Far concepts": far}
        seen = [
            f"{name} are recognised in {percent(row.shown_after.mean)} % of their pictures (before "
            f"{percent(row.shown_before.mean)})."
            for name, row in told.items()
            if row.shown_before is not None and row.shown_after is not None
        ]
        unseen = " and ".join(name.lower() for name, row in told.items() if row.shown_before is None)
        missing = [f"Nobody looked whether {unseen} still show what was asked for."] if unseen else []
        return " ".join([drift, *seen, *missing])


HEADER = ("prompt", "group", "shown before", "after", "pixels %", "latents %", "CLIP before", "after ")


def cells(row: Row) -> list[str]:
    """A row's numbers for a table: percents, and CLIP scores."""
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
    """Draw ``probes`` with and without ``erasure`` and measure. The model is only read.

    ``among`` are the concepts in which ``count`` neighbours and far ones are looked for, others that are erased passed
    over; ``more`` are further prompts of the concept. Raises ``ValueError`` for settings that cannot be used, and for a
    concept that ``erasure`` does not hold.
    """
    if not seeds:
        raise ValueError("seeds is empty: give at least one")
    problem = not_among(concept, erasure.concepts)
    if problem:
        raise ValueError(f"{problem}, and list what else asks for it as further prompts")
    others = sharing_no_word(erasure.concepts, as_prompts(among, "among"))
    asked = probes(model, concept, kind, among=others, count=count, more=more)
    given = {"seeds": list(seeds), "steps": steps, "guidance": guidance, "kind": kind}
    drawing = {"seeds": seeds, "steps": steps, "guidance": guidance}
    before = draw(model, asked, **drawing, callback=part_of(callback, 0, 2))
    with erasure.applied_to(model):
        after = draw(model, asked, **drawing, callback=part_of(callback, 1, 2))
    return summarise(concept, asked, before, after, recogniser, given)


@checked
def draw(
    model: DiffusionModel,
    asked: Sequence[Probe],
    *,
    seeds: Sequence[Seed],
    steps: int,
    guidance: float,
    callback: Callback | None = None,
) -> Drawn:
    """Every probe from every seed."""
    prompts = [probe.prompt for probe in asked for _ in seeds]
    settings = {"steps": steps, "guidance": guidance, "batch": BATCH, "callback": callback}
    latents = sample_latents(model, prompts, list(seeds) * len(asked), **settings)
    images = [model.decode_latents(part.to(model.device)).float().cpu() for part in latents.split(BATCH)]
    return Drawn(torch.cat(images), latents)


def summarise(
    concept: str,
    asked: Sequence[Probe],
    before: Drawn,
    after: Drawn,
    recogniser: Recogniser | None,
    settings: Mapping[str, object],
) -> Report:
    """The report on pictures that have been drawn; both of the same probes and noise."""
    if before.images.shape != after.images.shape or len(before.images) % len(asked):
        raise ValueError(
            f"{len(asked)} probes need as many pictures each before as after, got {len(before.images)} and "
            f"{len(after.images)}"
        )
    if not (torch.isfinite(before.latents).all() and torch.isfinite(after.latents).all()):
        raise ValueError("a model draws NaN; there is nothing to measure")
    each = len(before.images) // len(asked)
    likeness: Callable | None = getattr(recogniser, "likeness", None)
    prompts = [probe.prompt for probe in asked for _ in range(each)]
    by_probe = {
        "latents": _split(_change(before.latents, after.latents) / _change(before.latents, 0).clamp(min=1e-12), each),
        "pixels": _split(_change(before.images, after.images), each),
        "shown_before": _shown(recogniser, asked, before.images.split(each)),
        "shown_after": _shown(recogniser, asked, after.images.split(each)),
        "likeness_before": likeness and _split(torch.tensor(likeness(before.images, prompts)), each),
        "likeness_after": likeness and _split(torch.tensor(likeness(after.images, prompts)), each),
    }

    def row(places: Sequence[int]) -> Row:
        return Row(**{name: _interval(values, places) for name, values in by_probe.items()})

    rows = tuple(row([index]) for index in range(len(asked)))
    groups = {name: row([i for i, probe in enumerate(asked) if probe.group == name]) for name in GROUPS}
    pictures = each * sum(probe.group == ERASED for probe in asked)
    return Report(concept, tuple(asked), rows, groups, recogniser and recogniser.name, pictures, dict(settings))


def bootstrap(values: Tensor, resamples: int = RESAMPLES) -> Interval:
    """The mean of ``values`` ``[prompts, seeds]``, resampled in two stages: prompts, then the seeds of each."""
    generator = torch.Generator().manual_seed(0)
    prompts, seeds = values.shape
    rows = torch.randint(prompts, (resamples, prompts), generator=generator)
    columns = torch.randint(seeds, (resamples, prompts, seeds), generator=generator)
    means = values.double()[rows[:, :, None], columns].mean((1, 2))
    edges = torch.tensor([(1 - CERTAIN) / 2, (1 + CERTAIN) / 2], dtype=torch.float64)
    low, high = means.quantile(edges).tolist()
    return Interval(float(values.double().mean()), low, high)


def _interval(values: Sequence[Tensor | None] | None, places: Sequence[int]) -> Interval | None:
    """Over some probes; None where one of them could not be told."""
    picked = [None] if values is None else [values[place] for place in places]
    return None if any(one is None for one in picked) else bootstrap(torch.stack(picked))


def _shown(recogniser: Recogniser | None, asked: Sequence[Probe], parts: Sequence[Tensor]) -> list[Tensor | None]:
    """For each probe which of its pictures show what it asks for, as 0 and 1."""

    def seen(concept: str, images: Tensor) -> Tensor | None:
        if recogniser is None or not recogniser.knows(concept):
            return None
        return torch.tensor(recogniser.shows(images, [concept] * len(images))).double()

    return [seen(probe.concept, images) for probe, images in zip(asked, parts, strict=True)]


def _split(values: Tensor, each: int) -> list[Tensor]:
    return list(values.split(each))


def _change(before: Tensor, after: Tensor | float) -> Tensor:
    """Root mean square difference of each pair."""
    return (before - after).flatten(1).square().mean(1).sqrt()


def _mean(interval: Interval | None) -> float | None:
    return None if interval is None else interval.mean


def _lost(row: Row) -> float:
    """How much a neighbour suffered: what is no longer recognised, and at par the change of pixels."""
    recognised = 0.0 if row.shown_before is None else row.shown_before.mean - row.shown_after.mean
    return recognised + row.pixels.mean / 100


def _how_much(row: Row) -> str:
    if row.shown_before is None or math.isclose(row.shown_before.mean, row.shown_after.mean):
        return f" (pixels changed by {100 * row.pixels.mean:.0f} %)"
    now, before = percent(row.shown_after.mean), percent(row.shown_before.mean)
    return f" (recognised in {now} % of its pictures, before {before})"
