"""DoCo and AbO, the methods that train cross-attention, on styles and objects, with seeds; and RECE beside them."""

from __future__ import annotations

import time
from statistics import mean

from erasure_core import Concept
from erasure_core.methods import METHODS
from erasure_core.toy.evaluation import drift_outside, subject_of

from .settings import INSTEAD, STYLES, Bench, Setting, preserved, run
from .single import COLUMNS, drawn, unedited
from .variants import tables

TUNED_ON = ("noto", "cat", "car")
OBJECTS = ("cat", "car", "dog", "rose", "penguin", "banana")
VARIANTS = {
    "doco": Setting("doco", "DoCo, everyday concepts preserved", instead=True),
    "abo": Setting("abo", "AbO, everyday concepts preserved", instead=True),
    "rece": Setting("rece", "RECE's presets `object` and `style`, for the column outside", instead=True),
    "doco-unlisted": Setting(
        "doco", "DoCo, everyday concepts without the model's own objects and styles preserved", "unlisted", True
    ),
    "doco-published": Setting("doco", "DoCo as published, at the toy's rates", "nothing", True),
}
EVERY = (*STYLES, *OBJECTS)
SEEDS = {"doco": (0, 1, 2), "abo": (0, 1), "rece": (0,), "doco-unlisted": (0,), "doco-published": (0,)}


def jobs() -> list[dict]:
    """All of the first seed, and then those of the next ones."""
    return [
        {"concept": f"{name} -> {INSTEAD[name]}", "variant": variant, "seed": seed}
        for seed in range(3)
        for variant in VARIANTS
        if seed in SEEDS[variant]
        for name in (STYLES if variant == "doco-unlisted" else EVERY)
    ]


def measure(bench: Bench, concept: str, variant: str, seed: int) -> dict:
    """Of one erasure and of the unedited model, on the same captions and noise."""
    asked, setting = Concept(*concept.split(" -> ")), VARIANTS[variant]
    method = METHODS[setting.method]
    kind = "style" if subject_of(asked).kind == "style" else "object"
    preset = kind if variant != "doco-published" else {"object": "published", "style": "published-style"}[kind]
    more = {} if setting.method == "rece" else {"seed": seed}
    was, before = unedited(bench, asked.name)
    began = time.perf_counter()
    erasure = run(bench.model, method, asked, method.toy_presets[preset], preserved(setting, asked), **more)
    seconds = time.perf_counter() - began
    now, after = drawn(bench, asked.name, erasure)
    shares = {column: [getattr(one, column.lower()) for one in (now, was)] for column in COLUMNS}
    return {"kind": kind, **shares, "outside": drift_outside(before, after, now.subject), "seconds": seconds}


def section(rows: list[dict]) -> str:
    """A table for each variant."""
    more = {
        "outside": lambda own: f"{100 * mean(row['outside'] for row in own):.1f}",
        "seconds": lambda own: f"{mean(row['seconds'] for row in own):.0f}",
    }
    return "\n\n".join([HEAD.format(tuned=", ".join(TUNED_ON)), *tables(rows, VARIANTS, TUNED_ON, more)])


HEAD = """## DoCo and AbO

The presets of [learned.md](learned.md), each with the replacement of the concept as its anchor or alternative. Each row
has 24 pictures of the erased concept and 72 of others of its kind. The seconds are those of one thread beside other
work.

Both were tuned on {tuned} alone."""
