"""Reading concepts by today's code and by an earlier commit's, in turns in one process; writes docs/bench-encoding.md.

python benchmarks/encoding.py [--before 63e2f6b] [--out docs/bench-encoding.md] [--cases general-1 many-100]

Both read the same full-size Stable Diffusion 1.5 with random weights. Each case becomes a line of
build/bench-encoding.jsonl: run it again to resume.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from types import ModuleType

import comfy_encoding
import context_cache
import torch
from cases import Case
from families import full_size_model
from measure import ROOT, EncoderPasses, machine, now, revision

import erasure_core
from erasure_core.concepts.common import built_in_prompts
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE

BEFORE = "63e2f6b"
NOW, THEN = "erasure_core", "erasure_core_before"
FIELDS = ("preserve_gram", "exactly_gram")


@dataclass(frozen=True)
class Reading:
    """Concepts that are read for a preset, in turns as many times as ``runs`` says; ``aliases`` are ranked before.

    ``compared`` says whether the earlier commit reads them too.
    """

    preset: str
    count: int
    runs: int
    aliases: bool = False
    compared: bool = True

    @property
    def name(self) -> str:
        return f"{self.preset}-{self.count}{'-aliases' if self.aliases else ''}"

    def preserve(self) -> list[str]:
        """The empty prompt and the built-in captions of the preset, which the earlier commit does not add by itself."""
        captions = RECE[self.preset].everyday_captions
        return ["", *built_in_prompts(Case("sd15", self.count).concepts(), common=False, captions=captions)[1:]]

    @property
    def title(self) -> str:
        many = f"{self.count:,} concept{'s' if self.count > 1 else ''}, preset `{self.preset}`"
        return many + (", with aliases" if self.aliases else "")


CASES = {
    case.name: case
    for case in (
        Reading("general", 1, 5), Reading("general", 1, 1, aliases=True), Reading("general", 100, 1),
        Reading("general", 2000, 1, compared=False), Reading("many", 100, 1), Reading("many", 2000, 1, compared=False),
    )
}  # fmt: skip


def check_under_test() -> None:
    """Raise ``RuntimeError`` unless the package that is installed is that of this checkout."""
    place = Path(erasure_core.__file__).resolve().parent.parent
    if place != ROOT.resolve():
        raise RuntimeError(f"erasure_core is that of {place}; set PYTHONPATH to {ROOT} to measure this checkout")


def package_at(commit: str, folder: Path) -> ModuleType:
    """Import ``erasure_core`` of a commit under another name."""
    if not folder.exists():
        command = ["git", "-C", str(ROOT), "archive", commit, "erasure_core"]
        files = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        with tarfile.open(fileobj=BytesIO(files)) as archive:
            archive.extractall(folder, filter="data")
    start = folder / "erasure_core" / "__init__.py"
    spec = importlib.util.spec_from_file_location(THEN, start, submodule_search_locations=[str(start.parent)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[THEN] = module
    spec.loader.exec_module(module)
    return module


def read(package: str, pipe, case: Reading) -> tuple[float, float, int, float, list[torch.Tensor]]:
    """Seconds of reading a case by a package, those inside the text encoder, its rows, seconds of all, and the sums."""
    part = importlib.import_module
    model = part(f"{package}.diffusers.model").from_diffusers(pipe)
    rece = part(f"{package}.methods.rece")
    names = [concept.name for concept in Case("sd15", case.count).concepts()]
    concepts = part(f"{package}.concepts.parse").as_concepts(names)
    ends: list[float] = []
    original = rece.gather

    def gather(*arguments):
        ends.append(now())
        return original(*arguments)

    rece.gather = gather
    try:
        with EncoderPasses(pipe) as passes:
            began = now()
            if case.aliases:
                model, concepts = with_aliases(part, package, model, concepts)
            _, statistics = rece.rece_with_statistics(model, concepts, rece.RECE[case.preset], preserve=case.preserve())
            done = now()
    finally:
        rece.gather = original
    return ends[0] - began, passes.seconds, passes.rows, done - began, sums(statistics)


def with_aliases(part: Callable[[str], ModuleType], package: str, model, concepts):
    """Add the aliases as the command ``erase --aliases`` does; random weights read nothing alike, so take the first."""
    if importlib.util.find_spec(f"{package}.concepts.remembered"):
        model = part(f"{package}.concepts.remembered").RememberedRows(model)
    suggest = part(f"{package}.concepts.suggest").suggest
    near = part(f"{package}.concepts.aliases").with_aliases
    return model, near(concepts, lambda name: suggest(model, name, minimum=-1.0, limit=10))


def sums(statistics) -> list[torch.Tensor]:
    """All sums of statistics, in one order."""
    found: list[torch.Tensor] = []
    for entry in statistics.entries.values():
        entry = entry.summed()
        found += [*vars(entry.edited).values(), *vars(entry.derived).values(), *(getattr(entry, one) for one in FIELDS)]
    return found


def measure(case: Reading, commit: str) -> dict:
    """Both packages in turns, and the largest difference of their sums relative to each sum's largest number.

    Where a case is not compared, the earlier one has no runs, and the difference is 0.
    """
    check_under_test()
    if case.compared:
        package_at(commit, ROOT / "build" / "before" / commit)
    pipe = full_size_model("sd15").pipe
    with torch.no_grad():
        pipe.text_encoder(torch.full((2, 77), 7))
    runs: dict[str, list[tuple[float, float, int, float]]] = {THEN: [], NOW: []}
    for turn in range(case.runs):
        found = {}
        both = (THEN, NOW) if turn % 2 == 0 else (NOW, THEN)
        for package in both if case.compared else (NOW,):
            *spent, found[package] = read(package, pipe, case)
            runs[package].append(tuple(spent))
    differences = [
        float((one - other).abs().max() / one.abs().max().clamp(min=1e-300))
        for one, other in zip(found.get(THEN, found[NOW]), found[NOW], strict=True)
    ]
    return {
        "case": case.name, "before": runs[THEN], "now": runs[NOW], "difference": max(differences), "commit": commit,
        "machine": machine(), "revision": revision(),
    }  # fmt: skip


def page(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        later = _medians(row["now"])
        ratio = seconds = passes = difference = ""
        if row["before"]:
            before = _medians(row["before"])
            ratio = f"{median(one[0] / other[0] for one, other in zip(row['before'], row['now'], strict=True)):.2f}"
            seconds, passes, difference = _short(before[0]), f"{before[2]:,.0f}", f"{row['difference']:.0e}"
        lines.append([
            CASES[row["case"]].title, ratio, seconds, _short(later[0]), _short(later[0] - later[1]), _short(later[3]),
            passes, f"{later[2]:,.0f}", difference, str(len(row["now"])),
        ])  # fmt: skip
    head = (
        "", "times as fast", "seconds before", "seconds now", "of them outside the encoder",
        "the whole erasure now", "passes before", "passes now", "difference", "runs",
    )  # fmt: skip
    missing = [name for name in CASES if name not in {row["case"] for row in rows}]
    page = PAGE.format(
        before=rows[0]["commit"], machine=rows[0]["machine"], table=table(head, lines),
        revision=" and ".join(dict.fromkeys(row["revision"] for row in rows)),
        missing=f"Not measured: {', '.join(missing)}." if missing else "Every case was measured.",
    )  # fmt: skip
    return page + context_cache.section(context_cache.measured()) + comfy_encoding.section(comfy_encoding.measured())


def _medians(runs: list[list[float]]) -> list[float]:
    return [median(run[place] for run in runs) for place in range(4)]


def _short(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


PAGE = """# Reading concepts: before and now

How long it takes to read concepts, prompts to preserve and other names into sums, before anything is solved. Today's
code ({revision}) and that of {before} took turns in one process on the same model (Stable Diffusion 1.5 in full size,
float32, random weights), so that other work on the machine slows both alike.
On {machine}. `benchmarks/encoding.py` makes this page. {missing}

{table}

*Passes* are prompts that went through the text encoder. *Difference* is the largest one between the two sums of the
same kind, relative to the largest number in it. Seconds are of processor time, and medians where there are several
runs; the ratio is the median of each turn's ratio. Two thousand concepts were timed for today's code alone.

- `general` needs all 77 rows of a name, because what is read behind it is edited too. So each name is a whole pass, and
  the floor of [bench.md](bench.md) is near. Its built-in captions, which the earlier code did not have, were given
  to it as prompts to preserve. What is gained: the prompt that identifies the text encoder is no longer encoded a
  second time, and rows are summed up many at a time.
- `many` edits what is read for a name's last token alone. CLIP reads from left to right, so that what comes behind the
  name cannot change this row: names of about the same length share short windows of a few tokens.
- With aliases, names that were ranked are not encoded again when they are erased. Weights are random, so nothing is
  alike: the first ten other names are erased.
"""


def in_a_fresh_process(case: str, commit: str) -> dict:
    command = [sys.executable, __file__, "--measure", case, "--before", commit]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench-encoding.md")
    parser.add_argument("--rows", type=Path, default=ROOT / "build" / "bench-encoding.jsonl")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="all by default")
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(CASES[options.measure], options.before)))
        return
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = options.rows.read_text(encoding="utf-8").splitlines() if options.rows.exists() else []
    rows = {row["case"]: row for row in map(json.loads, lines)}
    for name in options.cases:
        if name not in rows:
            rows[name] = in_a_fresh_process(name, options.before)
            print(rows[name], file=sys.stderr, flush=True)
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[name]) + "\n")
    options.out.write_text(page([rows[name] for name in CASES if name in rows]), encoding="utf-8")


if __name__ == "__main__":
    main()
