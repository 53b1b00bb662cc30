"""Other projects' erasing beside ours: effect on the embedded model, cost at the shapes of Stable Diffusion 1.5.

python benchmarks/peers.py --clones DIR [--out docs/peers.md] [--only effect|cost] [--fresh]

DIR holds clones of the repositories, in folders called UCE, SPEED, RECE, OCE and AdaVD; those that are missing are
named and left out. Run it again to resume. The tables are written between the markers of the page; the rest of the page
is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import peer_costs
import peer_effects
import torch
from measure import ROOT, machine
from peer_clones import PEERS, clones_in, commit_of
from peers_page import between_markers, section

from erasure_core.toy import Judge

PARTS = ("effect", "cost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clones", type=Path, required=True, help="the folder with a folder for each clone")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "peers.md", help="the page, with its markers")
    parser.add_argument("--rows", type=Path, default=ROOT / "build" / "peers.jsonl", help="what was measured")
    parser.add_argument("--only", choices=PARTS, help="measure only one part")
    parser.add_argument("--most", type=int, help="measure at most so many further rows")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    options = parser.parse_args()
    try:
        clones = clones_in(options.clones)
    except ValueError as error:
        parser.error(str(error))
    for name in [name for name in PEERS if name not in clones]:
        print(f"{name} is not in {options.clones}; it is left out ({PEERS[name].repository})", file=sys.stderr)
    if options.fresh:
        options.rows.unlink(missing_ok=True)
    measure_all(options, clones)
    commits = {name: commit_of(clone) for name, clone in clones.items()}
    missing = len(_left(options.rows, clones, PARTS))
    text = section(rows_of(options.rows), commits, machine(), missing)
    options.out.write_text(between_markers(options.out.read_text(encoding="utf-8"), text), encoding="utf-8")


def measure_all(options: argparse.Namespace, clones: Mapping[str, Path]) -> None:
    """One row after another into the file of rows."""
    parts = [options.only] if options.only else PARTS
    left = _left(options.rows, clones, parts)[: options.most]
    judge = Judge.load()
    if any(part == "cost" for part, _ in left):
        peer_costs.warm_up(clones)
    for part, job in left:
        if part == "effect":
            found = peer_effects.measure(judge, clones, job)
        else:
            found = peer_costs.measure(clones, job["way"], job["concepts"])
        row = {"part": part, "job": job, "found": found}
        print(row, file=sys.stderr, flush=True)
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _left(rows: Path, clones: Mapping[str, Path], parts: Sequence[str]) -> list[tuple[str, dict]]:
    """What has not been measured yet, by part."""
    plan = {"effect": peer_effects.jobs(clones), "cost": peer_costs.jobs(clones)}
    done = [(row["part"], row["job"]) for row in rows_of(rows)]
    return [(part, job) for part in parts for job in plan[part] if (part, job) not in done]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
