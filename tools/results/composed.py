"""Two erasures by two methods, one on top of the other, in both orders, and merely added."""

from __future__ import annotations

import random

from erasure_core import Erasure
from erasure_core.drawing.table import table
from erasure_core.toy.captions import COLOURS, OBJECTS, STYLES
from erasure_core.toy.evaluation import accuracy, deal, draw

from .attacks import asked
from .settings import SEED, Bench, erase, kept

FIRST, SECOND = "penguin", "guitar"
PAIRS = (("listed", "listed"), ("listed", "abo"), ("few_shot", "listed"), ("few_shot", "abo"), ("doco", "listed"))
WAYS = ("first, then second", "second, then first", "added")
EACH, OTHERS = 24, 80
NOTHING = ("nothing", "nothing")


def jobs() -> list[dict]:
    return [{"methods": list(pair), "way": way} for pair in PAIRS for way in WAYS] + [
        {"methods": list(NOTHING), "way": "added"}
    ]


def measure(bench: Bench, methods: list[str], way: str) -> dict:
    """UA of both concepts, IRA and CRA of pictures of other objects."""
    attributes, picked = {"style": STYLES, "colour": tuple(COLOURS)}, random.Random(SEED)
    rest = tuple(name for name in OBJECTS if name not in (FIRST, SECOND))
    counts = {(FIRST,): EACH, (SECOND,): EACH, rest: OTHERS}
    captions = [c for names, n in counts.items() for c in deal({"object": names, **attributes}, n, picked)]
    if tuple(methods) == NOTHING:
        gallery = draw(bench.model, bench.judge, captions, seed=SEED)
    else:
        with composed(bench, methods, way).applied_to(bench.model):
            gallery = draw(bench.model, bench.judge, captions, seed=SEED)
    first, second, others = range(EACH), range(EACH, 2 * EACH), range(2 * EACH, len(captions))
    return {
        "UA first": 1 - accuracy(gallery, "object", first), "UA second": 1 - accuracy(gallery, "object", second),
        "IRA": accuracy(gallery, "object", others), "CRA": accuracy(gallery, "style", others),
    }  # fmt: skip


def composed(bench: Bench, methods: list[str], way: str) -> Erasure:
    """Both erasures; unless they are merely added, the later one is computed on the model that has the earlier."""
    both = [(asked(name, method), method) for name, method in zip((FIRST, SECOND), methods, strict=True)]
    if way == "second, then first":
        both.reverse()
    earlier = bench.erasure(*both[0])
    if way == "added":
        return earlier + bench.erasure(*both[1])

    def on_top() -> Erasure:
        with earlier.applied_to(bench.model):
            return erase(bench.model, *both[1])

    return earlier + kept(bench.folder / f"on-{both[0][1]}-{both[0][0].name}", *both[1], on_top)


def section(rows: list[dict]) -> str:
    columns = ("UA first", "UA second", "IRA", "CRA")
    lines = []
    for job in jobs():
        (row,) = [row for row in rows if row["methods"] == job["methods"] and row["way"] == job["way"]]
        name = f"{FIRST} by {job['methods'][0]}, {SECOND} by {job['methods'][1]}: {job['way']}"
        lines.append(
            [name if job["methods"] != list(NOTHING) else "unedited", *(f"{100 * row[key]:.0f}" for key in columns)]
        )
    return HEAD.format(each=EACH, others=OTHERS) + table(("erasures", *columns), lines)


HEAD = """## Two erasures on one model

"then": the second erasure is computed on the model that has the first. "added": both were computed on the unedited
model, and then summed. Each row has {each} pictures of each erased object, and {others} of the others.

"""
