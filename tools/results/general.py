"""RECE's default, the preset ``general``, with three seeds; and twenty at once by the preset ``several``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from statistics import mean

from erasure_core import Concept, common_concepts
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE, ReceSettings, rece
from erasure_core.toy.captions import OBJECTS as ALL_OBJECTS
from erasure_core.toy.evaluation import NAMES, Scores, evaluate_erasure

from . import many
from .settings import OBJECTS, SEED, STYLES, TUNED_ON, Bench

PRESET, TOGETHER = RECE["general"], RECE["several"]
HALF = many.HALF
NOTHING, OTHERS = LISTED = ("nothing", "others")
SEEDS = (SEED, SEED + 1, SEED + 2)
ERASED, REST = 24, 72
TWENTY, SETS = 20, 2
COLUMNS = ("UA", "IRA", "CRA", "colour")


def jobs() -> list[dict]:
    single = [
        {"erased": [name], "listed": listed, "seed": seed}
        for name in (*OBJECTS, *STYLES)
        for seed in SEEDS
        for listed in (LISTED if seed == SEED else (NOTHING,))
    ]
    sets = [random.Random(f"general/{TWENTY}/{number}").sample(ALL_OBJECTS, TWENTY) for number in range(SETS)]
    pairs = [(names, listed) for names in sets for listed in (NOTHING, HALF)]
    return single + [{"erased": names, "listed": listed, "seed": SEED} for names, listed in pairs]


def measure(bench: Bench, erased: list[str], listed: str, seed: int) -> dict:
    """The shares of the edited model, and those of the unedited one on the same captions and noise as ``before``."""
    concepts = [Concept(name) for name in erased]
    if len(erased) == 1:
        erasure = rece(bench.model, concepts, PRESET, preserve=preserved(concepts, listed))
        before, after = _unedited(bench, erased[0], seed), _scores(bench, erased[0], erasure, seed)
        return {**after, "before": before}
    share = HALF if listed == HALF else many.NONE
    erasure = many.erase(bench.model, erased, many.Setting("rece", TOGETHER, share))
    draw = f"general/{erased[0]}"
    after = many.shares(bench, erased, random.Random(draw), erasure)
    return {**after, "before": many.shares(bench, erased, random.Random(draw), None)}


def preserved(concepts: Sequence[Concept], listed: str) -> list[str]:
    """Nothing, or everyday concepts without the model's own objects and styles."""
    if listed == NOTHING:
        return []
    known = {*NAMES["object"], *(f"in the style of {style}" for style in NAMES["style"])}
    return [text for text in common_concepts(concepts) if text not in known]


@lru_cache(maxsize=1)
def _unedited(bench: Bench, name: str, seed: int) -> dict[str, float]:
    return _scores(bench, name, None, seed)


def _scores(bench: Bench, name: str, erasure, seed: int) -> dict[str, float]:
    counts = {"erased": ERASED, "others": REST, "seed": seed}
    scores: Scores = evaluate_erasure(bench.model, bench.judge, name, erasure, **counts)[0]
    return dict(zip(COLUMNS, (scores.ua, scores.ira, scores.cra, scores.colour), strict=True))


def section(rows: list[dict]) -> str:
    parts = [
        HEAD.format(
            erased=ERASED,
            others=REST,
            seeds=len(SEEDS),
            tuned=", ".join(TUNED_ON),
            preset=_numbers(PRESET),
            objects=len(ALL_OBJECTS),
        )
    ]
    for listed, meaning in MEANINGS.items():
        group = [row for row in rows if len(row["erased"]) == 1 and row["listed"] == listed]
        parts.append(f"### {meaning}\n\n{_single_table(group)}")
    twenty = [row for row in rows if len(row["erased"]) > 1]
    lines = [_line(f"set {n + 1}, {listed} listed", [one]) for n, listed, one in _numbered(twenty)]
    for listed in (NOTHING, HALF):
        lines.append(_line(f"**mean, {listed} listed**", [row for row in twenty if row["listed"] == listed]))
    parts.append(_twenty_head() + table(("erased", *COLUMNS), lines))
    return "\n\n".join(parts)


def _twenty_head() -> str:
    return MANY.format(count=TWENTY, erased=many.ERASED, others=many.OTHERS, preset=_numbers(TOGETHER))


def _numbers(preset: ReceSettings) -> str:
    return f"amplification {preset.amplification:g}, relative ridge {preset.relative_ridge:g}"


def _numbered(rows: list[dict]) -> list[tuple[int, str, dict]]:
    sets = list(dict.fromkeys(tuple(row["erased"]) for row in rows))
    return [(sets.index(tuple(row["erased"])), row["listed"], row) for row in rows]


def _single_table(rows: list[dict]) -> str:
    names = (*OBJECTS, *STYLES)
    groups = {name: [row for row in rows if row["erased"] == [name]] for name in names}
    of = {
        "mean of objects": [row for name in OBJECTS for row in groups[name]],
        "mean of styles": [row for name in STYLES for row in groups[name]],
        "mean of those never tuned on": [row for name in names if name not in TUNED_ON for row in groups[name]],
    }
    lines = [_line(name, group) for name, group in groups.items()]
    return table(("erased", *COLUMNS), [*lines, *(_line(f"**{name}**", group) for name, group in of.items())])


def _line(label: str, rows: list[dict]) -> list[str]:
    """Means, the lowest UA in brackets, and the other shares as changes with the worst in brackets."""
    lost = [100 * row["UA"] for row in rows]
    cells = [label, f"{mean(lost):.0f}" + (f" ({min(lost):.0f})" if len(lost) > 1 else "")]
    for column in COLUMNS[1:]:
        changes = [100 * (row[column] - row["before"][column]) for row in rows]
        cells.append(f"{mean(changes):+.1f}" + (f" ({min(changes):+.0f})" if len(changes) > 1 else ""))
    return cells


MEANINGS = {
    NOTHING: "Nothing listed: the default",
    OTHERS: "Others listed: everyday concepts, but none of the model's own objects and styles (one seed)",
}
HEAD = """## One concept at a time, by RECE's default

The preset `general` ({preset}). Each cell is the mean over {seeds} seeds, with {erased} pictures of the erased concept
and {others} of others of its kind for each seed. UA is a share; IRA, CRA and colour are changes in points against the
unedited model on the same captions and noise. In brackets stands the lowest of the seeds.

The built-in captions that the preset holds name sixteen of the model's {objects} objects, and none of its styles.

The preset was tuned on {tuned} (`tools/sweep.py`); the results of the others had been seen at an
amplification of 1.4 before."""
MANY = """## {count} concepts at once

The preset `several` ({preset}), which was tuned on other sets (`tools/sweep_many.py`). Random
sets of objects, with {erased} pictures of the erased ones and {others} of all others. With "half listed", every second
of the model's other objects is preserved.

"""
