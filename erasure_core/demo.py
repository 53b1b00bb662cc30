"""Three erasures of different kinds on the embedded model, as a contact sheet and a table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from .concepts import Concept
from .evaluation import Gallery, Scores, Subject, evaluate_erasure, subject_of
from .methods.registry import METHODS
from .progress import Progress
from .sheet import Section, contact_sheet, save_whole
from .table import percent, table
from .toy import Judge, load_toy
from .vocabulary import common_concepts

CASES = ((Concept("cat"), "object"), (Concept("noto", "fluent"), "style"), (Concept("lion", "tiger"), "object"))
ERASED, OTHERS = 24, 64  # pictures a concept and state
SHOWN = 5  # of each, on the sheet
HEADER = ("concept", "", "UA", "IRA", "CRA", "colour", "seconds")
LEGEND = (
    "In percent. UA: pictures of the concept no longer recognised as it; IRA: others of its kind still recognised;\n"
    "CRA: the other kind (styles, or objects when a style was erased); colour: the background.\n"
    "Seconds: to compute the erasure on this machine, without loading the model."
)


@dataclass(frozen=True)
class Case:
    """One concept before and after."""

    concept: Concept
    scores: tuple[Scores, Scores]
    galleries: tuple[Gallery, Gallery]
    seconds: float


def demo(folder: Path, seed: int = 0, erased: int = ERASED, others: int = OTHERS) -> str:
    """Write ``demo.png`` and ``demo.md`` into ``folder``, both once all is done; returns the table."""
    model, judge = load_toy(), Judge.load()
    cases = [_run(model, judge, *case, seed, erased, others) for case in CASES]
    text = f"{table(HEADER, [row for case in cases for row in _rows(case)])}\n\n{LEGEND}\n"
    sheet = contact_sheet([_section(case) for case in cases])
    folder.mkdir(parents=True, exist_ok=True)
    save_whole(sheet, folder / "demo.png")
    (folder / "demo.md").write_text(text, encoding="utf-8")
    return text


def _run(model, judge: Judge, concept: Concept, preset: str, seed: int, erased: int, others: int) -> Case:
    counts = {"erased": erased, "others": others, "seed": seed}
    with Progress(f"{concept}, before") as bar:
        before, was = evaluate_erasure(model, judge, concept, **counts, callback=bar)
    method = METHODS["rece"]
    settings = vars(method.presets[preset])
    began = time.perf_counter()
    erasure = method.run(model, [concept], preserve=common_concepts([concept]), **settings)
    seconds = time.perf_counter() - began
    with Progress(f"{concept}, after") as bar:
        after, now = evaluate_erasure(model, judge, concept, erasure, **counts, callback=bar)
    return Case(concept, (before, after), (was, now), seconds)


def _rows(case: Case) -> list[list[str]]:
    rows = []
    for state, scores in zip(("before", "after"), case.scores, strict=True):
        shares = (scores.ua, scores.ira, scores.cra, scores.colour)
        seconds = f"{case.seconds:.2f}" if state == "after" else ""
        rows.append([str(case.concept), state, *map(percent, shares), seconds])
    return rows


def _section(case: Case) -> Section:
    """Pictures of the concept and of others, what it is turned into first."""
    subject = case.scores[0].subject
    captions = case.galleries[0].captions
    erased = [index for index, caption in enumerate(captions) if getattr(caption, subject.kind) == subject.name]
    others = [index for index in range(len(captions)) if index not in set(erased)]
    shown, rest = erased[:SHOWN], sorted(others, key=lambda index: _distance(case.concept, subject, captions[index]))
    places = shown + rest[:SHOWN]
    return Section(
        f"RECE: erase {case.concept}",
        [", ".join((c.object, c.style, c.colour)) for c in (captions[place] for place in places)],
        [
            (state, gallery.images[torch.tensor(places)])
            for state, gallery in zip(("before", "after"), case.galleries, strict=True)
        ],
        (("prompts that name it", len(shown)), ("other prompts", len(places) - len(shown))),
    )


def _distance(concept: Concept, subject: Subject, caption) -> int:
    """0 for captions that name what the concept is turned into, else 1."""
    if not concept.instead:
        return 1
    return int(getattr(caption, subject.kind) != subject_of(concept.instead).name)
