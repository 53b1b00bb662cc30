"""Time and memory of RECE on full-size models with random weights, against the floor of its work. Run it to resume.

python benchmarks/rece_speed.py [--out docs/bench.md] [--cases sd15-1 sdxl-10] [--fresh]

Each case is measured in a process of its own and becomes a line of build/bench.jsonl; the page is made of all lines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from cases import CASES, Case
from families import TITLES, full_size_model
from measure import ROOT, EncoderPasses, Phases, machine, now, revision, settle, status
from plot import beside, log_chart
from rece_page import PICTURE, page, panels

from erasure_core import Erasure, rece
from erasure_core.files.images import save_image, save_text


def measure(case: Case) -> dict:
    """A row of the page: the first call's seconds and peak memory, and each run's seconds beside its floor's.

    All begin with no memory in reserve: what they take has to be had from the system, which takes time too.
    """
    model = full_size_model(case.family)
    before = settle()
    run, erasure = timed(model, case)
    row = {
        "case": case.name, "family": case.family, "concepts": case.count, "common": case.common,
        "published": case.published, "loops": case.settings.loops,
        "prompts": len(distinct(model, case)), "layers": len(erasure.deltas), "repeats": case.repeats,
        "first": sum(run["rece"].values()), "megabytes": status("VmHWM") - before, "rank": erasure.rank,
        "result": megabytes_of(erasure), "error": erasure.error, "weights": before, "machine": machine(),
        "revision": revision(), "clock": "processor" if torch.get_num_threads() == 1 else "wall", "runs": [],
    }  # fmt: skip
    for _ in range(case.repeats or 1):
        if case.repeats:
            del erasure
            settle()
            run, erasure = timed(model, case)
        ups = {name: found.change.up for name, found in erasure.maps.items()}
        settle()
        row["runs"].append({**run, "floor": {**run["floor"], **floor_of_weights(model, ups)}})
    return row


def timed(model, case: Case) -> tuple[dict[str, dict[str, float]], Erasure]:
    """Seconds of each phase, the floor of those that encode, and what was made."""
    phases = Phases()
    with EncoderPasses(model.pipe) as passes:
        erasure = rece(model, case.concepts(), case.settings, preserve=case.preserve(), callback=phases)
    encode = passes.seconds / passes.rows * len(distinct(model, case))
    return {"rece": phases.seconds, "floor": {"encode": encode}}, erasure


def distinct(model, case: Case) -> torch.Tensor:
    """The token ids of the prompts that differ, ``[n, tokens]``."""
    return torch.tensor([model.tokenize(prompt) for prompt in case.prompts()]).unique(dim=0)


@torch.no_grad()
def floor_of_weights(model, ups: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Seconds of the bare products of every weight with itself, and with the ``up`` of its text entry."""
    pairs = [
        (entry.part(entry.weights[name]), ups[kind])
        for kind, entry in model.text_entries().items()
        for name in entry.weights
    ]
    began = now()
    for weight, _ in pairs:
        weight.T @ weight
    deltas = now()
    changes = [weight @ up for weight, up in pairs]
    done = now()
    del changes
    return {"Gram": deltas - began, "deltas": done - deltas}


def megabytes_of(erasure: Erasure) -> float:
    """What the changes of an erasure take; those of a text entry share one ``down``."""
    tensors = [tensor for delta in erasure.deltas.values() for tensor in (delta.up, delta.down)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values()) / 1e6


def in_a_fresh_process(case: str) -> dict:
    """``measure`` of a case where no other case has run."""
    command = [sys.executable, __file__, "--measure", case]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def rows_of(path: Path) -> dict[str, dict]:
    """By case, the last row of each."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["case"]: row for row in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench.md")
    parser.add_argument("--rows", type=Path, default=ROOT / "build" / "bench.jsonl")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="all by default")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(CASES[options.measure])))
        return
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    for name in options.cases:
        if name in rows_of(options.rows) and not options.fresh:
            print(f"{name}: measured before, kept", file=sys.stderr)
            continue
        row = in_a_fresh_process(name)
        print(row, file=sys.stderr, flush=True)
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    found = rows_of(options.rows)
    rows = [found[name] for name in CASES if name in found]
    text = page(rows, TITLES, missing=[name for name in CASES if name not in found])
    save_text(text, options.out)
    charts = [log_chart(lines, title, "concepts") for title, lines in panels(rows, TITLES).items()]
    save_image(beside(charts), options.out.with_name(PICTURE))
    print(text)


if __name__ == "__main__":
    main()
