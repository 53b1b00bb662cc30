"""RECE on a style's name alone, and on captions with it too, beside prompts that name no style.

python tools/in_context.py
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from results.settings import STYLES, Bench
from results.unnamed import nameless_share

from erasure_core import Concept, Erasure
from erasure_core.concepts.common import EVERYDAY_CAPTIONS
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE, ReceSettings, rece
from erasure_core.toy.evaluation import evaluate_erasure

ERASED, OTHERS, SEED = 24, 72, 100
GENERAL = RECE["general"]
WITHOUT = replace(GENERAL, everyday_captions=False)


@dataclass(frozen=True)
class Case:
    """Settings, and how many captions with the style are erased too, each to the caption without it."""

    label: str
    settings: ReceSettings
    captions: int = 0


CASES = [
    Case("`general` without captions", WITHOUT),
    Case("`general`", GENERAL),
    Case("`general`, amplification 1.4", replace(GENERAL, amplification=1.4)),
    *(
        Case(f"{count} erased too, amplification {further:g}", replace(WITHOUT, amplification=further), count)
        for count in (4, 8, 16)
        for further in (1.2, 1.5)
    ),
]


def erased(bench: Bench, style: str, case: Case) -> Erasure:
    """Erase a style as the case says; the built-in captions are preserved where captions are erased too."""
    pairs = [Concept(f"{caption} in the style of {style}", caption) for caption in EVERYDAY_CAPTIONS[: case.captions]]
    held = ["", *EVERYDAY_CAPTIONS] if pairs else []
    return rece(bench.model, [Concept(style), *pairs], case.settings, preserve=held)


def main() -> None:
    bench = Bench(Path("build/in_context"))
    plain, lines = {style: shares(bench, style, None) for style in STYLES}, []
    for case in (None, *CASES):
        rows = [shares(bench, style, case and erased(bench, style, case)) for style in STYLES]
        kept = [100 * (row[1] - plain[style][1]) for style, row in zip(STYLES, rows, strict=True)]
        cells = [
            f"{100 * ua:.0f}, {lost:+.0f}, {100 * drawn:.0f}" for (ua, _, drawn), lost in zip(rows, kept, strict=True)
        ]
        ua, _, drawn = (100 * mean(column) for column in zip(*rows, strict=True))
        lines.append([case.label if case else "unedited", *cells, f"{ua:.0f}", f"{mean(kept):+.1f}", f"{drawn:.0f}"])
        print(lines[-1], flush=True)
    print(table(("settings", *STYLES, "UA", "IRA", "nameless"), lines))


def shares(bench: Bench, style: str, erasure: Erasure | None) -> tuple[float, float, float]:
    """UA, IRA, and the share of pictures in the style of prompts that name none."""
    counts = {"erased": ERASED, "others": OTHERS, "seed": SEED}
    scores, _ = evaluate_erasure(bench.model, bench.judge, style, erasure, **counts)
    with erasure.applied_to(bench.model) if erasure else nullcontext():
        return scores.ua, scores.ira, nameless_share(bench, Concept(style))


if __name__ == "__main__":
    main()
