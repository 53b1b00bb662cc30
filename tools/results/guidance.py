"""Guidance 1, as turbo, LCM and distilled models are sampled: an erasure beside a negative prompt."""

from __future__ import annotations

from contextlib import nullcontext

from erasure_core.concepts.parse import Concept
from erasure_core.drawing.table import table
from erasure_core.sampling.ddim import generate
from erasure_core.toy.evaluation import Gallery, captions_for, score, subject_of

from .settings import DEFAULT, SEED, Bench

CONCEPTS = ("cat", "penguin", "guitar", "noto")
GUIDANCE = (1.0, 3.0)
WAYS = ("unedited", "negative prompt", "erasure")
EACH, OTHERS = 12, 12


def jobs() -> list[dict]:
    return [{"concept": name, "guidance": guidance} for name in CONCEPTS for guidance in GUIDANCE]


def measure(bench: Bench, concept: str, guidance: float) -> dict:
    """UA and IRA of the unedited model, of its negative prompt, and of the erased model without a negative prompt."""
    subject, erasure = subject_of(concept), bench.erasure(Concept(concept), DEFAULT)
    captions = captions_for(subject, EACH, OTHERS, SEED)
    found: dict = {}
    for way in WAYS:
        with erasure.applied_to(bench.model) if way == "erasure" else nullcontext():
            images = generate(
                bench.model,
                [str(caption) for caption in captions],
                [SEED * 1_000_003 + index for index in range(len(captions))],
                guidance=guidance,
                negative=concept if way == "negative prompt" else "",
            )
        scores = score(Gallery(tuple(captions), images, bench.judge.judge(images)), subject)
        found[way] = {"UA": scores.ua, "IRA": scores.ira}
    return found


def section(rows: list[dict]) -> str:
    lines = []
    for guidance in GUIDANCE:
        mine = [row for row in rows if row["guidance"] == guidance]
        for way in WAYS:
            cells = [f"{100 * sum(row[way][key] for row in mine) / len(mine):.0f}" for key in ("UA", "IRA")]
            lowest = f"{100 * min(row[way]['UA'] for row in mine):.0f}"
            lines.append([f"guidance {guidance:g}, {way}", cells[0], lowest, cells[1]])
    names = ", ".join(CONCEPTS)
    head = HEAD.format(names=names, each=EACH, others=OTHERS)
    return head + table(("model", "UA", "UA of the worst concept", "IRA"), lines)


HEAD = """## At guidance 1, where a negative prompt does nothing

Turbo, LCM and other distilled models are sampled at guidance 1 (CFG 1 in ComfyUI). Classifier-free guidance computes
`negative + guidance * (prompt - negative)`: at 1 the negative prompt cancels out, so samplers do not read it at all. An
erasure is in the weights. It works at any guidance, and costs nothing a picture, while guidance costs a second pass of
the UNet in every step.

Means over {names}, one erased at a time by RECE's default with nothing listed. {each} pictures of each concept and
{others} of others, drawn at both guidances: by the unedited model, by the unedited model with the concept's name as its
negative prompt, and by the erased model without a negative prompt. The embedded model is not distilled; what is shown
is guidance 1, not distillation.

"""
