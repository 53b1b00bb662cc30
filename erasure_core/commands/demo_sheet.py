"""The contact sheet and the table of the command ``demo``: RECE on three kinds of concept, or all methods on one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..concepts.common import common_concepts
from ..concepts.parse import Concept
from ..diffusers.model import DiffusersModel
from ..drawing.contact_sheet import Section, contact_sheet
from ..drawing.table import percent, table
from ..erasures.erasure import Erasure
from ..files.images import save_image, save_text
from ..methods import METHODS
from ..methods.inputs import Preserve, Training
from ..toy import Judge, load_toy
from ..toy.evaluation import Gallery, Scores, Subject, evaluate_erasure, subject_of
from .progress import Progress

ERASED, OTHERS = 24, 64  # pictures of the concept and of others, before and after each erasure
SHOWN = 5  # of both, on the sheet
HEADER = ("concept", "", "UA", "IRA", "CRA", "colour", "seconds")
LEGEND = (
    "In percent. UA: pictures of the concept no longer recognised as it; IRA: others of its kind still recognised;\n"
    "CRA: the other kind (styles, or objects when a style was erased); colour: the background.\n"
    "Seconds: to compute the erasure on this machine, without loading the model."
)


@dataclass(frozen=True)
class Plan:
    """A concept, its kind, and the methods that erase it one after the other, by their labels in the results."""

    concept: Concept
    kind: str
    methods: dict[str, str]


RECE = {"after": "rece"}
PLANS = {
    "rece": (
        Plan(Concept("cat"), "object", RECE),
        Plan(Concept("noto", "fluent"), "style", RECE),
        Plan(Concept("lion", "tiger"), "object", RECE),
    ),
    "all": (
        Plan(Concept("cat", "dog"), "object", {"RECE": "rece", "few-shot": "few_shot", "DoCo": "doco", "AbO": "abo"}),
    ),
}
FILES = {"rece": "demo", "all": "methods"}


@dataclass(frozen=True)
class State:
    """The pictures and scores of the model, without or with one erasure, and the seconds that this took."""

    label: str
    scores: Scores
    gallery: Gallery
    seconds: float | None = None


def demo(
    folder: Path,
    method: str = "rece",
    seed: int = 0,
    model: DiffusersModel | None = None,
    erased: int = ERASED,
    others: int = OTHERS,
) -> str:
    """Write a picture and a table into ``folder`` once all is done, and return the table.

    ``method`` is ``rece``, or ``all`` for the four methods side by side. ``model`` is the embedded model, which is
    loaded by default. ``erased`` and ``others`` are the numbers of pictures of the concept and of others.
    """
    model, judge = model or load_toy(), Judge.load()
    cases = [(plan, _run(model, judge, plan, erased, others, seed)) for plan in PLANS[method]]
    text = f"{table(HEADER, [row for case in cases for row in _rows(*case)])}\n\n{LEGEND}\n"
    sheet = contact_sheet([_section(*case) for case in cases])
    folder.mkdir(parents=True, exist_ok=True)
    save_image(sheet, folder / f"{FILES[method]}.png")
    save_text(text, folder / f"{FILES[method]}.md")
    return text


def _run(model, judge: Judge, plan: Plan, erased: int, others: int, seed: int) -> list[State]:
    evaluated = partial(evaluate_erasure, model, judge, plan.concept, erased=erased, others=others, seed=seed)
    with Progress(f"{plan.concept}, before") as bar:
        states = [State("before", *evaluated(callback=bar))]
    for label, method in plan.methods.items():
        began = time.perf_counter()
        with Progress(f"{plan.concept}, {method}") as bar:
            erasure = _erasure(model, plan, method, {"seed": seed, "callback": bar})
        seconds = time.perf_counter() - began
        with Progress(f"{plan.concept}, {label}") as bar:
            after = evaluated(erasure, callback=bar)
        states.append(State(label, *after, seconds))
    return states


def _erasure(model, plan: Plan, name: str, training: dict[str, Any]) -> Erasure:
    """Return the erasure of a method with its preset for the embedded model and all inputs that it needs."""
    method, concept = METHODS[name], plan.concept
    settings = method.toy_presets[plan.kind]
    inputs: dict[str, Any] = {}
    if Preserve in method.takes:
        inputs["preserve"] = common_concepts([concept])
    return method.run(model, [concept], settings, **inputs, **(training if Training in method.takes else {}))


def _rows(plan: Plan, states: list[State]) -> list[list[str]]:
    rows = []
    for state in states:
        shares = (state.scores.ua, state.scores.ira, state.scores.cra, state.scores.colour)
        seconds = "" if state.seconds is None else f"{state.seconds:.2f}"
        rows.append([str(plan.concept), state.label, *map(percent, shares), seconds])
    return rows


def _section(plan: Plan, states: list[State]) -> Section:
    """Return the section of the sheet: pictures of the concept, then of others, those of its replacement first."""
    subject, captions = states[0].scores.subject, states[0].gallery.captions
    erased = [index for index, caption in enumerate(captions) if getattr(caption, subject.kind) == subject.name]
    others = [index for index in range(len(captions)) if index not in set(erased)]
    shown, rest = erased[:SHOWN], sorted(others, key=lambda index: _distance(plan.concept, subject, captions[index]))
    places = shown + rest[:SHOWN]
    return Section(
        f"{'RECE: erase' if plan.methods == RECE else 'Erase'} {plan.concept}",
        [", ".join(filter(None, (c.object, c.style, c.colour))) for c in (captions[place] for place in places)],
        [(state.label, state.gallery.images[torch.tensor(places)]) for state in states],
        (("prompts that name it", len(shown)), ("other prompts", len(places) - len(shown))),
    )


def _distance(concept: Concept, subject: Subject, caption) -> int:
    """Return 0 for captions that name the replacement of the concept, else 1."""
    if not concept.instead:
        return 1
    return int(getattr(caption, subject.kind) != subject_of(concept.instead).name)
