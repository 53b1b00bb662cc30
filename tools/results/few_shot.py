"""Few-shot by matching, with a replacement and without, on styles and objects, from two seeds."""

from __future__ import annotations

from dataclasses import replace

from erasure_core import Concept
from erasure_core.methods import METHODS
from erasure_core.toy.captions import sample_captions
from erasure_core.toy.evaluation import draw, subject_of

from .settings import INSTEAD, SEED, STYLES, Bench, Setting, preserved, run
from .single import COLUMNS, drawn, unedited
from .variants import tables

OBJECTS = ("cat", "dog", "rose", "car", "penguin", "banana")
TUNED_ON = ("noto", "cat")
VARIANTS = {
    "target": Setting("few_shot", "with a replacement, everyday concepts preserved", instead=True),
    "unlisted": Setting(
        "few_shot", "with a replacement, everyday concepts without the model's own objects and styles preserved",
        "unlisted", True,
    ),
    "alone": Setting("few_shot", "without a replacement, everyday concepts preserved"),
}  # fmt: skip
PICTURES = 96
EVERY = (*STYLES, *OBJECTS)
MEASURED = {"target": EVERY, "unlisted": STYLES, "alone": (*STYLES, "dog", "penguin")}
SEEDS = {"target": (0, 1), "unlisted": (0,), "alone": (0,)}


UNNAMED = {"concept": "", "variant": "unnamed", "seed": 0}


def jobs() -> list[dict]:
    """What the model draws without a style named, all of the first seed, and then those of the second."""
    return [UNNAMED] + [
        {"concept": f"{name} -> {INSTEAD[name]}" if setting.instead else name, "variant": variant, "seed": seed}
        for seed in (0, 1)
        for variant, setting in VARIANTS.items()
        if seed in SEEDS[variant]
        for name in MEASURED[variant]
    ]


def measure(bench: Bench, concept: str, variant: str, seed: int) -> dict:
    """Of one erasure and of the unedited model, on the same captions and noise."""
    if variant == UNNAMED["variant"]:
        return {"styles": unnamed(bench)}
    asked, method = Concept(*concept.split(" -> ")), METHODS["few_shot"]
    before = unedited(bench, asked.name)[0]
    kind = "style" if subject_of(asked).kind == "style" else "object"
    erasure = run(bench.model, method, asked, method.toy_presets[kind], preserved(VARIANTS[variant], asked), seed=seed)
    scores = drawn(bench, asked.name, erasure)[0]
    shares = {column: [getattr(one, column.lower()) for one in (scores, before)] for column in COLUMNS}
    return {"kind": kind, **shares}


def unnamed(bench: Bench) -> dict[str, int]:
    """Return in how many of ``PICTURES`` that name an object and a colour the unedited model draws each style."""
    captions = [replace(caption, style=None) for caption in sample_captions(PICTURES, SEED)]
    styles = draw(bench.model, bench.judge, captions, seed=SEED).verdict.styles
    return {style: styles.count(style) for style in STYLES}


def section(rows: list[dict]) -> str:
    """A table for each variant, and what is drawn without a style named."""
    parts = [HEAD.format(tuned=" and ".join(TUNED_ON)), *tables(rows, VARIANTS, TUNED_ON, {})]
    for row in rows:
        if row["variant"] == UNNAMED["variant"]:
            counts = ", ".join(f"{style} in {100 * count / PICTURES:.0f} %" for style, count in row["styles"].items())
            parts.append(f"Of {PICTURES} prompts that name no style, the unedited model draws {counts}.")
    return "\n\n".join(parts)


HEAD = """## Few-shot by matching

The default of this pack (`docs/learned.md`): the model draws eight pictures of the concept itself, each with its
caption, and the text encoder learns to give what it gave for the caption with the replacement. The paper's form is
`few_shot` on [the first page](results.md). Each row has 24 pictures of the erased concept and 72 of others of its kind.

Steps, rate and weights were tuned on {tuned} alone."""
