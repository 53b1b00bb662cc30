"""Several concepts erased at once, by the methods that take several: UCE and RECE."""

from __future__ import annotations

import random
import time
from statistics import mean

from erasure_core import Concept, common_concepts
from erasure_core.evaluation import accuracy, deal, draw
from erasure_core.methods.registry import METHODS
from erasure_core.table import table
from erasure_core.toy import OBJECTS, STYLES
from erasure_core.toy.captions import COLOURS

from .settings import SEED, Bench

COUNTS = (2, 5, 20)
SETS = 3  # random sets of concepts of each size
ERASED, OTHERS = 40, 80
SETTINGS = {
    "uce": "UCE, common concepts preserved",
    "uce, nothing listed": "UCE, only the empty prompt preserved",
    "rece": "RECE, the default, common concepts preserved",
    "rece, nothing listed": "RECE, the default but only the empty prompt preserved",
}
NOTHING = "nothing"


def jobs() -> list[dict]:
    each = [(count, number) for count in COUNTS for number in range(SETS)]
    return [{"count": c, "number": number, "setting": name} for c, number in each for name in (NOTHING, *SETTINGS)]


def measure(bench: Bench, count: int, number: int, setting: str) -> dict:
    """UA of the erased objects, IRA of all others, CRA and colour of the others' pictures."""
    picked = random.Random(f"{count}/{number}")
    names = picked.sample(OBJECTS, count)
    rest = [name for name in OBJECTS if name not in names]
    attributes = {"style": STYLES, "colour": tuple(COLOURS)}
    captions = [
        *deal({"object": tuple(names), **attributes}, ERASED, picked),
        *deal({"object": tuple(rest), **attributes}, OTHERS, picked),
    ]
    began = time.perf_counter()
    erasure = None if setting == NOTHING else _erase(bench, names, setting)
    seconds = time.perf_counter() - began
    if erasure is None:
        gallery = draw(bench.model, bench.judge, captions, seed=SEED)
    else:
        with erasure.applied_to(bench.model):
            gallery = draw(bench.model, bench.judge, captions, seed=SEED)
    others = range(ERASED, ERASED + OTHERS)
    return {
        "UA": 1 - accuracy(gallery, "object", range(ERASED)), "IRA": accuracy(gallery, "object", others),
        "CRA": accuracy(gallery, "style", others), "colour": accuracy(gallery, "colour", others), "seconds": seconds,
    }  # fmt: skip


def _erase(bench: Bench, names: list[str], setting: str):
    method = METHODS[setting.partition(",")[0]]
    concepts = [Concept(name) for name in names]
    preserve = [] if setting.endswith("listed") else common_concepts(concepts)
    return method.run(bench.model, concepts, preserve=preserve, **vars(method.toy_presets["object"]))


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

Means over {sets} random sets of objects, {erased} pictures of the erased ones and {others} of all others for each.
"nothing listed": only the empty prompt is preserved. Few-shot, DoCo and AbO erase one concept at a time.

"""
