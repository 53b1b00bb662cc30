"""Reading prompts with a cache of contexts, for the first time and again; a section of docs/bench-encoding.md.

python benchmarks/context_cache.py [--cases general-1000 many-1000 object-1]

The model is a full-size Stable Diffusion 1.5 with random weights. Each case becomes a line of build/bench-cache.jsonl:
run it again to resume.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cases import Case
from families import full_size_model
from measure import ROOT, EncoderPasses, machine, now, revision

from erasure_core import CachedRows, from_diffusers, gather_statistics
from erasure_core.concepts.common import built_in_prompts
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE

ROWS = ROOT / "build" / "bench-cache.jsonl"


@dataclass(frozen=True)
class Reading:
    """Concepts that are read for a preset, with the everyday list if the preset needs it."""

    preset: str
    count: int

    @property
    def name(self) -> str:
        return f"{self.preset}-{self.count}"

    @property
    def title(self) -> str:
        many = f"{self.count:,} concept{'s' if self.count > 1 else ''}, preset `{self.preset}`"
        return many + (", and the everyday list" if self.listed else "")

    @property
    def listed(self) -> bool:
        return RECE[self.preset].needs_common and not RECE[self.preset].name_only


CASES = {case.name: case for case in (Reading("general", 1000), Reading("many", 1000), Reading("object", 1))}


def measure(case: Reading) -> dict:
    """The seconds of the first reading, of the text encoder in it, of the second, and what the folder then holds."""
    pipe = full_size_model("sd15").pipe
    runs = []
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        for _ in range(2):
            runs.append(read(pipe, case, Path(folder)))
        files = [one.stat().st_size for one in Path(folder).iterdir()]
    (first, inside, passes, _), (again, _, none, digest) = runs
    assert none == 0, f"{none} prompts were encoded again"
    return {
        "case": case.name, "first": first, "encoder": inside, "passes": passes, "again": again, "digest": digest,
        "files": len(files), "bytes": sum(files), "machine": machine(), "revision": revision(),
    }  # fmt: skip


def read(pipe, case: Reading, folder: Path) -> tuple[float, float, int, float]:
    """Seconds of reading a case, those in the text encoder, prompts that went through it, and seconds of its digest."""
    concepts = Case("sd15", case.count).concepts()
    settings = RECE[case.preset]
    built_in = built_in_prompts(concepts, common=case.listed, captions=settings.everyday_captions)
    preserve = ["", *built_in[1:]]
    with EncoderPasses(pipe) as passes:
        began = now()
        model = CachedRows(from_diffusers(pipe), folder)
        digested = now()
        gather_statistics(model, concepts, preserve, name_only=settings.name_only)
        done = now()
    return done - began, passes.seconds, passes.rows, digested - began


def section(rows: Mapping[str, dict]) -> str:
    """The part of the page about the cache."""
    if not rows:
        return ""
    head = ("", "first run", "of it in the encoder", "again", "of it the digest", "times as fast", "MB on disk")
    lines = [
        [
            CASES[name].title, f"{row['first']:,.1f}", f"{row['encoder']:,.1f}", f"{row['again']:,.2f}",
            f"{row['digest']:.2f}", f"{row['first'] / row['again']:.1f}", f"{row['bytes'] / 1e6:,.0f}",
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    one = next(iter(rows.values()))
    return SECTION.format(table=table(head, lines), revision=one["revision"], machine=one["machine"])


SECTION = """
## A cache of contexts on disk

`--context-cache FOLDER` of the command `erase`, and in Python `CachedRows(model, folder)`, keep what the text encoder
makes of each prompt, for later runs. Seconds of processor time to read a request into sums, on the same model; code as
of {revision}, on {machine}. `benchmarks/context_cache.py` measures it.

{table}

- It is off unless you ask for it. It pays on a CPU, where a whole window takes a tenth of a second and more. It was not
  measured on a GPU.
- Each run reads every bit of the text encoder's weights (*digest*), so that no context of another one is taken: half a
  second for Stable Diffusion 1.5. For a few prompts that is longer than to encode them.
- The folder holds at most two gigabytes; the oldest files go first. Files are written whole and have a checksum: a
  damaged one is made anew, with a warning. Several processes may share the folder.
- To go on from a list with other settings, or with more names, `--save-statistics` is better: it takes 28 MB for any
  number of concepts, and reads none of them again ([command-line.md](command-line.md#many-concepts)). The cache is for
  requests that share prompts but not the whole list, such as the everyday list.
- The nodes have no such cache. ComfyUI itself keeps what a node returned; only a node that runs again with another
  number encodes again. By the default preset these are two prompts, which take no longer than the digest. With
  `preserve_common` they are those of the last row; *Erase Concepts (RECE)* gives statistics to go on from.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="all by default")
    options = parser.parse_args()
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    rows = measured()
    for name in options.cases:
        if name not in rows:
            rows[name] = measure(CASES[name])
            print(rows[name], file=sys.stderr, flush=True)
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[name]) + "\n")


def measured() -> dict[str, dict]:
    """The rows so far, by the names of their cases."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    by_case = {row["case"]: row for row in map(json.loads, lines)}
    return {name: by_case[name] for name in CASES if name in by_case}


if __name__ == "__main__":
    main()
