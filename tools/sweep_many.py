"""Try settings of RECE for many concepts at once, on random sets that docs/results.md does not use.

python tools/sweep_many.py --count 5 20 --listed half none --name_only 0 1 --amplification 1 1.2 1.4
python tools/sweep_many.py --count 5 20 --name_only 1 --amplification 1.2 --exact --exactness 0.03
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from dataclasses import fields, replace
from pathlib import Path

from results import many
from results.settings import Bench

from erasure_core.methods.rece import RECE, ReceSettings
from erasure_core.toy.captions import OBJECTS

ERASED, OTHERS = 24, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, nargs="+", default=[5, 20], help="how many objects at once")
    parser.add_argument("--sets", type=int, nargs="+", default=[0], help="the numbers of random sets of each count")
    parser.add_argument("--listed", nargs="+", choices=many.LISTED, default=[many.HALF], help="what is preserved")
    parser.add_argument("--exact", action="store_true", help="what is listed is left exactly alone, not weighed")
    parser.add_argument("--rows", type=Path, default=Path("build/sweep-many.jsonl"))
    settings = [field.name for field in fields(ReceSettings)]
    for name in settings:
        parser.add_argument(f"--{name}", type=float, nargs="+")
    args = parser.parse_args()
    bench = Bench()
    given = {name: getattr(args, name) for name in settings if getattr(args, name) is not None}
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    for count, number, listed in itertools.product(args.count, args.sets, args.listed):
        names = random.Random(f"tune/{count}/{number}").sample(OBJECTS, count)
        for values in itertools.product(*given.values()):
            changes = {name: _typed(name, value) for name, value in zip(given, values, strict=True)}
            preset = replace(RECE["object"], **changes)
            erasure = many.erase(bench.model, names, many.Setting("rece", preset, listed, args.exact))
            found = many.shares(bench, names, random.Random(f"tune/{number}"), erasure, ERASED, OTHERS)
            row = {"count": count, "number": number, "listed": listed, "exact": args.exact, **changes, **found}
            print(row, flush=True)
            with args.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _typed(name: str, value: float) -> float | int | bool:
    return type(getattr(RECE["object"], name))(value)


if __name__ == "__main__":
    main()
