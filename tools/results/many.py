"""Several concepts erased at once, by the methods that take several: UCE and RECE."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import mean

from erasure_core import Concept, Erasure, common_concepts
from erasure_core.drawing.table import table
from erasure_core.limits import Settings
from erasure_core.methods import METHODS
from erasure_core.methods.rece import RECE
from erasure_core.methods.uce import UCE
from erasure_core.toy.captions import COLOURS, OBJECTS, STYLES
from erasure_core.toy.evaluation import accuracy, deal, draw

from .settings import SEED, Bench

COUNTS = (2, 5, 10, 20)
SETS = 2  # random sets of concepts of each size
ERASED, OTHERS = 40, 80
ALL, HALF, NONE = LISTED = ("all", "half", "none")
NOTHING = "nothing"


@dataclass(frozen=True)
class Setting:
    """``listed``, of the concepts to preserve: all, all but half of the model's other objects, or none.

    ``exact``: they are left exactly alone, within the settings' ``exactness``; otherwise they are weighed.
    """

    method: str
    preset: Settings
    listed: str = ALL
    exact: bool = False


MANY = RECE["many"]
SETTINGS = {
    "uce": Setting("uce", UCE["object"]),
    "uce, nothing listed": Setting("uce", UCE["object"], NONE),
    "rece": Setting("rece", RECE["object"]),
    "rece, nothing listed": Setting("rece", RECE["object"], NONE),
    "many": Setting("rece", MANY),
    "many, half listed": Setting("rece", MANY, HALF),
    "many, nothing listed": Setting("rece", MANY, NONE),
    "null space": Setting("rece", replace(MANY, exactness=0.03), ALL, exact=True),
    "null space, half listed": Setting("rece", replace(MANY, exactness=0.03), HALF, exact=True),
}


def jobs() -> list[dict]:
    each = [(count, number) for count in COUNTS for number in range(SETS)]
    return [{"count": c, "number": number, "setting": name} for c, number in each for name in (NOTHING, *SETTINGS)]


def measure(bench: Bench, count: int, number: int, setting: str) -> dict:
    """UA of the erased objects, IRA of all others, CRA and colour of the others' pictures."""
    picked = random.Random(f"{count}/{number}")
    names = picked.sample(OBJECTS, count)
    began = time.perf_counter()
    erasure = None if setting == NOTHING else erase(bench.model, names, SETTINGS[setting])
    seconds = time.perf_counter() - began
    return {**shares(bench, names, picked, erasure), "seconds": seconds}


def shares(
    bench: Bench, names: list[str], picked: random.Random, erasure: Erasure | None, erased=ERASED, others=OTHERS
) -> dict[str, float]:
    rest = [name for name in OBJECTS if name not in names]
    attributes = {"style": STYLES, "colour": tuple(COLOURS)}
    captions = [
        *deal({"object": tuple(names), **attributes}, erased, picked),
        *deal({"object": tuple(rest), **attributes}, others, picked),
    ]
    with erasure.applied_to(bench.model) if erasure else nullcontext():
        gallery = draw(bench.model, bench.judge, captions, seed=SEED)
    rest = range(erased, erased + others)
    return {
        "UA": 1 - accuracy(gallery, "object", range(erased)), "IRA": accuracy(gallery, "object", rest),
        "CRA": accuracy(gallery, "style", rest), "colour": accuracy(gallery, "colour", rest),
    }  # fmt: skip


def erase(model, names: list[str], setting: Setting) -> Erasure:
    """Objects at once."""
    concepts = [Concept(name) for name in names]
    listed = preserved(concepts, setting.listed)
    kept = {"exactly": listed} if setting.exact else {"preserve": listed}
    return METHODS[setting.method].run(model, concepts, setting.preset, **kept)


def preserved(concepts: list[Concept], listed: str) -> list[str]:
    if listed == NONE:
        return []
    common = common_concepts(concepts)
    if listed == ALL:
        return common
    left_out = [name for name in OBJECTS if name in common][1::2]
    return [text for text in common if text not in left_out]


def section(rows: list[dict]) -> str:
    lines = []
    for count in COUNTS:
        before = [row for row in rows if (row["count"], row["setting"]) == (count, NOTHING)]
        for name in SETTINGS:
            group = [row for row in rows if (row["count"], row["setting"]) == (count, name)]
            line = [f"{count} objects, {name}", f"{100 * mean(row['UA'] for row in group):.0f}"]
            for key in ("IRA", "CRA", "colour"):
                now, was = (mean(row[key] for row in found) for found in (group, before))
                line.append(f"{100 * now:.0f} ({100 * (now - was):+.0f})")
            lines.append([*line, f"{mean(row['seconds'] for row in group):.2f}"])
    return HEAD.format(sets=SETS, erased=ERASED, others=OTHERS) + table(
        ("erased, setting", "UA", "IRA", "CRA", "colour", "seconds"), lines
    )


HEAD = """## Several concepts at once

Random sets of objects were erased, {sets} of each size, with {erased} pictures of the erased ones and {others} of all
others for each.

- "uce" and "rece" have the presets for objects, "many" is RECE with the preset for many concepts (`name_only`).
- "null space" is "many" with one difference: the listed prompts are in `exactly`, with exactness 3 %, and not in
  `preserve`.
- Common concepts are listed, and the model's other objects are among them. "half listed" leaves out every second of
  these, "nothing listed" all but the empty prompt.

Few-shot, DoCo and AbO erase one concept at a time.

"""
