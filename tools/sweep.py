"""Try RECE's settings on the four concepts that tuning may look at; how its presets were chosen.

python tools/sweep_rece.py --loops 1 2 --regularization 0.1 --erase-scale 1 --preserve-scale 0.1 1 --ridge 0.1
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict, fields
from pathlib import Path
from statistics import mean

from make_results import TUNED_ON

from erasure_core import Concept, common_concepts, rece
from erasure_core.evaluation import evaluate_erasure
from erasure_core.methods.rece import RecePreset
from erasure_core.table import table
from erasure_core.toy import Judge, load_toy

ERASED, OTHERS, SEED = 16, 64, 7
COLUMNS = ("ua", "ira", "cra", "colour")


def settings_of(args: argparse.Namespace) -> list[RecePreset]:
    """Every combination of what was asked for."""
    names = [field.name for field in fields(RecePreset)]
    return [RecePreset(*values) for values in itertools.product(*(getattr(args, name) for name in names))]


def shares(model, judge, concept: Concept, erasure=None) -> list[float]:
    scores, _ = evaluate_erasure(model, judge, concept, erasure, erased=ERASED, others=OTHERS, seed=SEED)
    return [getattr(scores, column) for column in COLUMNS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for field in fields(RecePreset):
        kind = int if field.name == "loops" else float
        default = 1 if field.name == "loops" else getattr(RecePreset(1, 0.1), field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, nargs="+", default=[default])
    parser.add_argument("--concepts", nargs="+", default=list(TUNED_ON))
    parser.add_argument("--rows", type=Path, default=Path("build/sweep.jsonl"))
    args = parser.parse_args()
    model, judge = load_toy(), Judge.load()
    concepts = [Concept(name) for name in args.concepts]
    before = {concept: shares(model, judge, concept) for concept in concepts}
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for settings in settings_of(args):
        found = {}
        for concept in concepts:
            erasure = rece(model, [concept], preserve=common_concepts([concept]), **asdict(settings))
            found[str(concept)] = shares(model, judge, concept, erasure)
            with args.rows.open("a") as file:
                row = {"concept": str(concept), **asdict(settings), "before": before[concept]}
                file.write(json.dumps({**row, "after": found[str(concept)]}) + "\n")
        lines.append(_line(settings, found, before))
        print(lines[-1], flush=True)
    print(table(("settings", "UA of each", *COLUMNS), lines))


def _line(settings: RecePreset, found: dict[str, list[float]], before: dict[Concept, list[float]]) -> list[str]:
    """Means; all but UA as changes against the unedited model."""
    means = [mean(column) for column in zip(*found.values(), strict=True)]
    was = [mean(column) for column in zip(*before.values(), strict=True)]
    each = " ".join(f"{100 * row[0]:.0f}" for row in found.values())
    changes = [f"{100 * (new - old):+.1f}" for new, old in zip(means[1:], was[1:], strict=True)]
    return [" ".join(map(str, asdict(settings).values())), each, f"{100 * means[0]:.1f}", *changes]


if __name__ == "__main__":
    main()
