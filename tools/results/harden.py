"""STEREO's scheme with RECE: concept inversion and erasing in turn, and how far each round gets."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erasure_core import Concept, Erasure
from erasure_core.audit.attacks.attempt import Scene
from erasure_core.audit.attacks.textual_inversion import by_inversion
from erasure_core.audit.recognisers.toy import ToyRecogniser
from erasure_core.audit.red_team import attack
from erasure_core.closed_form.align import aligned_rows
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.linalg import gram_matrix
from erasure_core.closed_form.statistics import Statistics
from erasure_core.closed_form.uce import PairSums
from erasure_core.concepts.common import built_in_prompts
from erasure_core.concepts.parse import EMPTY_TARGET
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE, erase_statistics
from erasure_core.model import CONTEXT
from erasure_core.toy.captions import OBJECTS, STYLES
from erasure_core.toy.evaluation import evaluate_erasure, pictures_of, subject_of
from erasure_core.training.loop import Budget

from .settings import DEFAULT, SEED, Bench

CONCEPTS, ROUNDS = ("cat", "penguin", "guitar", "blob", "fluent"), 5
AMPLIFICATIONS = (1.0, 1.2, RECE[DEFAULT].amplification)
"""Edits that stop at their target, go a little beyond, or reverse the concept's direction, as the default's do."""
SEEDS = (SEED, SEED + 50)
STEPS, PICTURES, ERASED, OTHERS = 200, 8, 16, 32
COLUMNS = ("UA", "IRA", "CRA", "colour")


def jobs() -> list[dict]:
    """Each round needs the contexts of those before it."""
    return [
        {"concept": name, "amplification": amplification, "seed": seed, "round": number}
        for amplification in AMPLIFICATIONS
        for name in CONCEPTS
        for seed in SEEDS
        for number in range(ROUNDS + 1)
    ]


def measure(bench: Bench, concept: str, amplification: float, seed: int, round: int) -> dict:
    """Erase against the contexts of all rounds before, then invert the result and keep the contexts that this gives.

    Everything random, the attacks and the pictures that are judged, begins from ``seed``.
    """
    files = files_of(bench, f"harden-{concept}-{amplification}-{seed}", round)
    erasure = hardened(bench, concept, amplification, files[:round])
    found = attacked(bench, concept, erasure, seed, round, files[round])
    return {"overlap": overlap(bench, concept, erasure, files[round]), **found}


def files_of(bench: Bench, name: str, round: int) -> list[Path]:
    """Return where the contexts of each round up to this one are kept."""
    return [bench.folder / f"{name}-{number}.safetensors" for number in range(round + 1)]


def attacked(bench: Bench, concept: str, erasure: Erasure, seed: int, round: int, contexts: Path) -> dict:
    """Invert an erasure, keep the ``contexts`` that this gives, and return how it withstands and what it costs."""
    began, recogniser, subject = time.perf_counter(), ToyRecogniser(bench.judge), subject_of(concept)
    scene = Scene(
        bench.model, erasure.over(bench.model), concept, subject.kind, pictures_of(subject, 8), pictures=PICTURES,
        budget=Budget(STEPS), seed=seed + round,
    )  # fmt: skip
    attempt = by_inversion(scene)
    _save(bench, attempt.prompts[: len(scene.prompts)], attempt.conditioning.context, contexts)
    shown = sum(recogniser.shows(attempt.images, [concept] * PICTURES))
    seconds = time.perf_counter() - began
    scores, _ = evaluate_erasure(bench.model, bench.judge, concept, erasure, erased=ERASED, others=OTHERS, seed=seed)
    shares = dict(zip(COLUMNS, (scores.ua, scores.ira, scores.cra, scores.colour), strict=True))
    found = {"inverted": shown, "seconds": seconds, **shares}
    if round in (0, ROUNDS):
        found["discrete"] = _by_words(bench, concept, erasure, seed)
    return found


def _by_words(bench: Bench, concept: str, erasure: Erasure, seed: int) -> int:
    """Return in how many pictures the words that the attack ``discrete`` finds show the concept."""
    subject = subject_of(concept)
    found = attack(
        bench.model, erasure.over(bench.model), concept, kind=subject.kind, attacks=["discrete"],
        images=pictures_of(subject, 8), recogniser=ToyRecogniser(bench.judge), pictures=PICTURES, steps=STEPS,
        seed=seed,
    )  # fmt: skip
    (place,) = (index for index, one in enumerate(found.attempts) if one.attack == "discrete")
    return int(PICTURES * found.recovered(place) + 0.5)


def hardened(bench: Bench, concept: str, amplification: float, files: list[Path]) -> Erasure:
    """Erase the concept and all contexts of ``files`` from the original model, and preserve the default's captions."""
    concepts = [Concept(concept)]
    preserve = built_in_prompts(concepts, common=False, captions=True)
    statistics = gather_statistics(bench.model, concepts, preserve)
    contexts = [rows for path in files for rows in load_file(path).values()]
    settings = replace(RECE[DEFAULT], amplification=amplification)
    return erase_statistics(bench.model, _with_contexts(bench, statistics, contexts), settings)


def _with_contexts(bench: Bench, statistics: Statistics, contexts: list[Tensor]) -> Statistics:
    """The same with ``contexts`` to erase too: rows from that of the learned word on, with the target of the name."""
    if not contexts:
        return statistics
    (target,) = bench.model.text_rows([EMPTY_TARGET])[0][CONTEXT]
    pairs = [aligned_rows(rows, target.rows, 0, target.last_content) for rows in contexts]
    sums = PairSums.of([one for one, _ in pairs], [other for _, other in pairs])
    entry = statistics.entries[CONTEXT]
    entry = replace(
        entry,
        edited=entry.edited.summed().plus(sums, 1),
        derived=entry.derived.summed().plus(sums, 1),
        distance=entry.distance + sum(float((one - other).double().square().sum()) for one, other in pairs),
    )
    return replace(statistics, entries={CONTEXT: entry})


def overlap(bench: Bench, concept: str, erasure: Erasure, path: Path) -> tuple[float, float]:
    """Return how much of the concept's own direction is in the contexts of a learned word, as cosines, as two means.

    The first is of the contexts ``c`` themselves, the second of ``A c``, which the original layers would have to read
    for the same keys and values. Directions are those from the mean of all objects, or of all styles, and cosines are
    those of keys and values.
    """
    entry = bench.model.text_entries()[CONTEXT]
    gram = gram_matrix(entry.part(weight) for weight in entry.weights.values())
    edit = erasure.maps[CONTEXT].change.dense().double()
    contexts = [rows.double() for rows in load_file(path).values()]
    kind, wording = (STYLES, "in the style of {}") if concept in STYLES else (OBJECTS, "a {}")
    read = [_name_rows(bench, wording.format(name)) for name in kind]
    count = min(map(len, (*contexts, *read)))
    names = [rows[:count] for rows in read]
    common = torch.stack(names).mean(0)
    own = names[kind.index(concept)] - common

    def cosine(rows: Tensor) -> float:
        one = rows[:count] - common
        dots = [((left @ gram) * right).sum() for left, right in ((one, own), (one, one), (own, own))]
        return float(dots[0] / (dots[1] * dots[2]).sqrt())

    return mean(map(cosine, contexts)), mean(cosine(rows + rows @ edit.T) for rows in contexts)


def _name_rows(bench: Bench, prompt: str) -> Tensor:
    (read,) = bench.model.text_rows([prompt])[0][CONTEXT]
    return read.rows[read.last_content :].double()


def _save(bench: Bench, prompts: tuple[str, ...], contexts: Tensor, path: Path) -> None:
    lasts = [read[CONTEXT][0].last_content for read in bench.model.text_rows(prompts)]
    rows = {prompts[place]: contexts[place][last:].contiguous() for place, last in enumerate(lasts)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(rows, path)


def section(rows: list[dict]) -> str:
    """A line for each concept and round."""
    lines = [
        [
            f"{row['concept']}, {row['amplification']:g}", str(1 + SEEDS.index(row["seed"])), str(row["round"]),
            share(row, "inverted"), share(row, "discrete"), *(f"{one:.2f}" for one in row["overlap"]),
            *(f"{100 * row[column]:.0f}" for column in COLUMNS),
        ]
        for row in rows
    ]  # fmt: skip
    head = HEAD.format(pictures=PICTURES, steps=STEPS, erased=ERASED, others=OTHERS)
    columns = ("seed", "rounds", "inversion", "discrete", "overlap", "overlap, edited", *COLUMNS)
    return f"{head}\n\n{table(('concept, amplification', *columns), lines)}"


def share(row: dict, kind: str) -> str:
    return f"{100 * row[kind] / PICTURES:.0f}" if kind in row else ""


HEAD = """## Hardening

STEREO's scheme ([2408.16807](https://arxiv.org/abs/2408.16807)) with RECE: a word is learned through the edited model
({steps} steps of the attack `inversion`), its contexts are erased too, once from the original together with the name
and all contexts of earlier rounds, and so on. *Inversion*: in how many of {pictures} pictures a word that is learned
anew, from another seed, through the result shows the concept, in percent; *discrete* is the same for words that the
attack of that name finds. UA, IRA, CRA and colour are of {erased} pictures of the concept and {others} of others. RECE
has its default's settings and built-in captions; with an amplification of 1 the edit stops at its target.

*Overlap* is the cosine between the learned word and the concept's own name, in keys and values, less what all objects
(or styles) have in common; *edited* is that of what the edit makes of the word, which the original layers would have
to read for the same keys and values. At 0 or below the word draws the concept without any of the direction that was
erased."""
