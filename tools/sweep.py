"""Try a method's settings on the four concepts that tuning may look at; how the presets for the toy were chosen.

python tools/sweep.py rece --amplification 1 1.4 1.8
python tools/sweep.py doco --steps 240 360 --concepts cat car
python tools/sweep.py few_shot --published --growth 3 4 5 --concepts cat pizza car
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import fields, replace
from pathlib import Path
from statistics import mean

from results.settings import INSTEAD, TUNED_ON, published, run

from erasure_core import Concept, common_concepts
from erasure_core.drawing.table import table
from erasure_core.methods import METHODS
from erasure_core.toy import Judge, load_toy
from erasure_core.toy.evaluation import evaluate_erasure, subject_of

ERASED, OTHERS, SEED = 16, 64, 7
COLUMNS = ("ua", "ira", "cra", "colour")
WITH_REPLACEMENT = ("few_shot", "doco", "abo")


def shares(model, judge, concept: Concept, erasure=None) -> list[float]:
    scores, _ = evaluate_erasure(model, judge, concept, erasure, erased=ERASED, others=OTHERS, seed=SEED)
    return [getattr(scores, column) for column in COLUMNS]


def main() -> None:
    parser, name = _parser()
    args = parser.parse_args()
    presets, method = METHODS[name].toy_presets, METHODS[name]
    given = {field: values for field in _fields(name) if (values := getattr(args, field)) is not None}
    model, judge = load_toy(), Judge.load()
    replaced = name in WITH_REPLACEMENT and not (args.published or args.no_replacement)
    concepts = [Concept(text, INSTEAD[text] if replaced else "") for text in args.concepts]
    before = {concept: shares(model, judge, concept) for concept in concepts}
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    lines, low_rank = [], {"rank": args.rank} if args.rank else {}
    for values in itertools.product(*given.values()):
        changes, found = dict(zip(given, values, strict=True)), {}
        for concept in concepts:
            kind = _kind(concept)
            settings = replace(presets[published(kind) if args.published else kind], **changes)
            preserve = [] if args.alone else common_concepts([concept])
            erasure = run(model, method, concept, settings, preserve, **low_rank)
            found[str(concept)] = shares(model, judge, concept, erasure)
            with args.rows.open("a") as file:
                row = {"concept": str(concept), "method": name, **vars(settings), **low_rank, "before": before[concept]}
                file.write(json.dumps({**row, "after": found[str(concept)]}) + "\n")
        lines.append(_line(" ".join(f"{key} {value}" for key, value in changes.items()), found, before))
        print(lines[-1], flush=True)
    print(table(("settings", "UA of each", *COLUMNS), lines))


def _parser() -> tuple[argparse.ArgumentParser, str]:
    """Of the method that the command line names first; its settings are options that take several values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], add_help=False)
    parser.add_argument("method", choices=list(METHODS))
    name = parser.parse_known_args()[0].method
    for field, kind in _fields(name).items():
        typed = kind if kind is not bool else lambda text: bool(int(text))
        parser.add_argument(f"--{field.replace('_', '-')}", type=typed, nargs="+")
    parser.add_argument("--concepts", nargs="+", default=list(TUNED_ON))
    parser.add_argument("--alone", action="store_true", help="preserve nothing")
    parser.add_argument("--published", action="store_true", help="few-shot: as published, without replacements")
    parser.add_argument("--no-replacement", action="store_true", help="of methods that can have one")
    parser.add_argument("--rank", type=int, help="let a learned method train low-rank changes")
    parser.add_argument("--rows", type=Path, default=Path("build/sweep.jsonl"))
    parser.add_argument("--help", action="help")
    return parser, name


def _fields(name: str) -> dict[str, type]:
    """The settings of a method's presets that are numbers."""
    preset = METHODS[name].toy_presets["object"]
    return {field.name: type(getattr(preset, field.name)) for field in fields(preset) if field.name != "kind"}


def _kind(concept: Concept) -> str:
    return "style" if subject_of(concept).kind == "style" else "object"


def _line(settings: str, found: dict[str, list[float]], before: dict[Concept, list[float]]) -> list[str]:
    """Means; all but UA as changes against the unedited model."""
    means = [mean(column) for column in zip(*found.values(), strict=True)]
    was = [mean(column) for column in zip(*before.values(), strict=True)]
    each = " ".join(f"{100 * row[0]:.0f}" for row in found.values())
    changes = [f"{100 * (new - old):+.1f}" for new, old in zip(means[1:], was[1:], strict=True)]
    return [settings, each, f"{100 * means[0]:.1f}", *changes]


if __name__ == "__main__":
    main()
