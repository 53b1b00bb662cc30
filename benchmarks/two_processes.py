"""One process and two that share its prompts, at the same time on the same machine; writes docs/scale.md.

python benchmarks/two_processes.py [--out docs/scale.md] [--concepts 64]

All three read concepts with the same full-size text encoder of Stable Diffusion 1.5 with random weights. They run side
by side, so that other work on the machine slows all alike, and seconds are of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from cases import Case
from families import full_size_model
from measure import ROOT, EncoderPasses, machine, revision

import erasure_core
from erasure_core.closed_form.statistics_file import load_statistics, save_statistics
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE, erase_statistics, gathered
from erasure_core.workers import joined

NAMES, CHECKPOINTS = 100_000, 1_000


def work(count: int, out: Path) -> dict[str, float]:
    """What one process of any number does: its seconds, its passes, the bytes that it exchanges, and the solving."""
    with joined(torch.device("cpu")) as workers:
        model = full_size_model("sd15")
        with torch.no_grad():
            model.pipe.text_encoder(torch.full((2, 77), 7))
        began, clock = time.process_time(), time.perf_counter()
        with EncoderPasses(model.pipe) as passes:
            statistics = gathered(model, Case("sd15", count).concepts(), RECE["several"], workers=workers)
        seconds, wall = time.process_time() - began, time.perf_counter() - clock
    save_statistics(statistics, out)
    exchanged = sum(tensor.nbytes for entry in statistics.entries.values() for tensor in entry.summed().tensors())
    began = time.process_time()
    if workers.leads:
        erase_statistics(model, statistics, RECE["several"])
    solved = time.process_time() - began
    return {"seconds": seconds, "wall": wall, "passes": passes.rows, "exchanged": exchanged, "solve": solved}


def measured(count: int) -> dict:
    """One process and two, started together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        pair = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for name, variables in (("alone", {}), ("0", {**pair, "RANK": "0"}), ("1", {**pair, "RANK": "1"})):
            command = [sys.executable, __file__, "--concepts", str(count), "--work", f"{folder}/{name}.safetensors"]
            environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        ends = [one.communicate()[0] for one in running]
        if any(one.returncode for one in running):
            raise RuntimeError("a process failed; its error is above")
        alone, *both = [json.loads(end.splitlines()[-1]) for end in ends]
        one, other = (load_statistics(f"{folder}/{name}.safetensors") for name in ("alone", "0"))
    pairs = zip(one.entries["context"].tensors(), other.entries["context"].tensors(), strict=True)
    difference = max(float((mine - theirs).abs().max() / mine.abs().max().clamp(min=1)) for mine, theirs in pairs)
    return {"alone": alone, "both": both, "difference": difference}


def page(found: dict) -> str:
    alone, both = found["alone"], found["both"]
    spent = sum(one["seconds"] for one in both)
    each = alone["seconds"] / alone["passes"]
    rows = [["one process", f"{alone['passes']}", f"{alone['seconds']:.1f}", "", ""]]
    for number, one in enumerate(both):
        rows.append([
            f"process {number} of two", f"{one['passes']}", f"{one['seconds']:.1f}",
            f"{alone['seconds'] / one['seconds']:.2f}", f"{one['exchanged'] / 1e6:.0f}",
        ])  # fmt: skip
    names, checkpoints = NAMES * each / 3600, CHECKPOINTS * alone["solve"] / 3600
    megabytes = f"{both[0]['exchanged'] / 1e6:.0f} MB"
    plan = [
        [
            f"read {NAMES:,} names once", f"the list to each process; {megabytes} of sums from each",
            f"{each:.2f} s a name: {names:.1f} core hours, {60 * names / 64:.0f} minutes on 64 cores",
        ],
        ["keep the sums (`--save-statistics`)", f"one file of {megabytes}", ""],
        [
            "each checkpoint with the same text encoder", "its file, and the sums",
            f"{alone['solve']:.1f} s: {checkpoints:.1f} core hours for {CHECKPOINTS:,}, "
            f"{60 * checkpoints / 64:.0f} minutes on 64 cores; and reading the file",
        ],
        ["more names, or names taken back (`--restore`)", "the new names only", "as above, for these alone"],
    ]  # fmt: skip
    return PAGE.format(
        count=found["count"], machine=found["machine"], revision=found["revision"], difference=found["difference"],
        efficiency=100 * alone["seconds"] / spent, exchanged=both[0]["exchanged"] / 1e6,
        table=table(("", "passes", "seconds", "times as fast", "MB exchanged"), rows),
        plan=table(("step", "what moves", "what it costs"), plan),
    )  # fmt: skip


PAGE = """# Many names, many checkpoints, many machines

## Reading prompts in several processes

    torchrun --nproc-per-node 2 -m erasure_core erase \\
        --model model.safetensors --concepts list.txt --out no-list.safetensors

Each process opens the model, encodes its share of the concepts and prompts, and adds up their rows. One `all_reduce`
(gloo on CPUs, nccl with `--device cuda`) gives all of them the sums of all. The first process solves and writes;
`--save-statistics` keeps the sums. On several machines, start `torchrun` on each as its own manual says (`--nnodes`,
`--rdzv-endpoint`); only the first process needs to see the folder of `--out`. Lists of fewer than 16 texts for each
process are not shared, because sending the sums would take longer. Methods that train refuse `torchrun`.

Measured with {count} concepts on Stable Diffusion 1.5 in full size (random weights): one process, and beside it two
that share the list, all three at the same time. On {machine}; code as of {revision}.

{table}

- **Efficiency of two processes: {efficiency:.0f} %** of the processor time of one (both read the prompt that stands for
  nothing, and both hold their own sums).
- **The sums are the same**: they differ by {difference:.0e} at most, relative to the largest number in each.
- What is exchanged does not depend on the number of concepts: {exchanged:.0f} MB from each process, once.

## Reports, attacks and results as jobs

    torchrun --nproc-per-node 2 -m erasure_core report --each \\
        --model model.safetensors --erasure no-list.safetensors --out audit
    torchrun --nproc-per-node 2 tools/make_results.py --only many

`report --each` and `attack --each` make a report on every concept of an erasure, each in a folder of its own. A process
claims a concept by a lock on a file in `audit/.claims`; the system frees the lock when the process ends, however it
ends, and another one takes the concept up. What is there is kept, so the same command goes on where it was stopped. The
processes need not be started together or by `torchrun`: the same command in a second terminal, by `accelerate launch`,
or on a second machine with the same folder (NFS 4, whose locks all machines see) helps the first. `torchrun` itself
ends all processes of a machine when one fails; with `--max-restarts 3` it starts them again, and they go on.
`tools/make_results.py` shares its rows in the same way.

## A plan for a hundred thousand names and a thousand checkpoints

The numbers are for Stable Diffusion 1.5 and one core of the machine above, which other work slowed down; of a GPU
nothing is known yet ([gpu.md](gpu.md)). [bench.md](bench.md) has SDXL.

{plan}

1. Group the checkpoints by text encoder. Sums belong to one: the file knows a row of it, and another one is refused.
2. For each text encoder read the names once, by `torchrun`, with `--save-statistics`.
3. For each checkpoint run `erase --statistics sums.safetensors` without any `--concept`. These are independent jobs:
   give them to the scheduler that you have, or to `xargs -P`.
4. Judge a sample of names on a sample of checkpoints by `report --each`.

What limits the number of names is not time but what is lost: the edit has as many directions as the text is wide (768
in Stable Diffusion 1.5), and a hundred thousand names use up all of them. [method.md](method.md#many-concepts) and
[results-many.md](results-many.md) say what was measured, with up to twenty concepts.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "scale.md")
    parser.add_argument("--found", type=Path, default=ROOT / "build" / "two-processes.json", help="kept between runs")
    parser.add_argument("--concepts", type=int, default=64)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if Path(erasure_core.__file__).resolve().parent.parent != ROOT.resolve():
        raise SystemExit(f"error: another erasure_core is installed; set PYTHONPATH to {ROOT}")
    if options.work:
        print(json.dumps(work(options.concepts, options.work)))
        return
    if not options.found.exists():
        options.found.parent.mkdir(parents=True, exist_ok=True)
        found = {**measured(options.concepts), "count": options.concepts, "revision": revision(), "machine": machine()}
        options.found.write_text(json.dumps(found), encoding="utf-8")
    options.out.write_text(page(json.loads(options.found.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
