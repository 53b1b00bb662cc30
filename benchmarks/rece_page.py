"""The page on RECE's speed, from the rows that were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from erasure_core.drawing.table import table

PICTURE = "bench.png"
PHASES = ("encode", "Gram", "maps", "deltas")
GROWTH_FROM = 10  # concepts; below, what does not depend on them hides how the rest grows

Row = Mapping


@dataclass(frozen=True)
class Target:
    """At most ``limit`` of ``measure``; for one concept, or for all numbers of them that were measured."""

    family: str
    measure: str
    limit: float
    only_one: bool


TARGETS = (Target("sd15", "ratio", 1.5, True), Target("sd15", "MB", 300, True), Target("sdxl", "MB", 1500, False))


def ratio(row: Row) -> float:
    """Times the floor: the median of the runs' ratios."""
    return median(sum(run["rece"].values()) / sum(run["floor"].values()) for run in row["runs"])


def seconds(row: Row, *phases: str, of: str = "rece") -> float:
    """The median of the runs' seconds in these phases, all of them when none are named."""
    return median(sum(run[of].get(phase, 0.0) for phase in phases or PHASES) for run in row["runs"])


def encoding(row: Row) -> float:
    return seconds(row, "encode")


def the_rest(row: Row) -> float:
    return seconds(row, *PHASES[1:])


def memory(row: Row) -> float:
    return row["megabytes"]


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of the line through ``(log n, log value)`` that fits best; None of fewer than two points.

    A value that is proportional to n has 1, one that does not depend on it 0.
    """
    if len(points) < 2:
        return None
    xs, ys = ([math.log(point[axis]) for point in points] for axis in (0, 1))
    middle, height = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - middle) * (y - height) for x, y in zip(xs, ys, strict=True)) / sum((x - middle) ** 2 for x in xs)


def panels(rows: Sequence[Row], titles: Mapping[str, str]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """What the picture shows: by its panels' titles and the families', points of concepts and value."""
    shown = {"encoding, seconds": encoding, "the rest, seconds": the_rest, "MB beyond the weights": memory}
    lines = {title: _plain(rows, family) for family, title in titles.items()}
    return {
        heading: {title: [(row["concepts"], value(row)) for row in found] for title, found in lines.items() if found}
        for heading, value in shown.items()
    }


def page(rows: Sequence[Row], titles: Mapping[str, str], missing: Sequence[str]) -> str:
    """The page of at least one row; ``missing`` are the cases that were not measured."""
    clocks = {row["clock"] for row in rows}
    return PAGE.format(
        loops=_listed(row["loops"] for row in rows if row["published"]) or "three",
        machine=_listed(row["machine"] for row in rows),
        revision=_listed(row["revision"] for row in rows),
        clock=" of processor time" if clocks == {"processor"} else "",
        models=_models(rows, titles), targets="\n".join(_verdict(target, rows, titles, missing) for target in TARGETS),
        missing=f"Not measured: {', '.join(missing)}." if missing else "Every case was measured.",
        summary=_summary(rows, titles), growth=_growth(rows, titles), splits=_splits(rows, titles),
        picture=PICTURE, start=GROWTH_FROM, common=_common(rows),
    )  # fmt: skip


def _plain(rows: Sequence[Row], family: str) -> list[Row]:
    return [row for row in rows if row["family"] == family and not row["common"] and not row["published"]]


def _listed(values) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _name(row: Row, titles: Mapping[str, str]) -> str:
    many = f"{row['concepts']:,} concept{'s' if row['concepts'] > 1 else ''}"
    variant = ", common concepts preserved" if row["common"] else ", as published" if row["published"] else ""
    return f"{titles[row['family']]}, {many}{variant}"


def _models(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    firsts = {row["family"]: row for row in reversed(rows)}
    told = [[titles[name], str(firsts[name]["layers"]), f"{firsts[name]['weights']:,.0f}"] for name in titles
            if name in firsts]  # fmt: skip
    return table(("", "layers that read text", "MB of the process before"), told)


def _verdict(target: Target, rows: Sequence[Row], titles: Mapping[str, str], missing: Sequence[str]) -> str:
    found = [row for row in _plain(rows, target.family) if row["concepts"] == 1 or not target.only_one]
    what = "times the floor" if target.measure == "ratio" else "MB beyond the weights"
    goal = f"- {titles[target.family]}, {'one concept' if target.only_one else 'any number of concepts'}: at most "
    goal += f"{target.limit:,} {what}: "
    if not found:
        return f"{goal}not measured."
    value = ratio if target.measure == "ratio" else memory
    worst = max(found, key=value)
    told = f"{value(worst):,.2f}" if target.measure == "ratio" else f"{value(worst):,.0f}"
    counts = ", ".join(f"{row['concepts']:,}" for row in found)
    where = "" if target.only_one else f" with {worst['concepts']:,}; measured with {counts}"
    verdict = "met" if value(worst) <= target.limit else "missed"
    if verdict == "met" and not target.only_one and any(case.startswith(target.family) for case in missing):
        verdict = "met so far"
    return f"{goal}**{verdict}** ({told}{where})."


def _summary(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    head = (
        "", "times the floor", "seconds", "of them encoding", "first call", "MB beyond the weights",
        "of them the result", "rank", "lost to float16", "runs",
    )  # fmt: skip
    cells = [
        [
            _name(row, titles), f"{ratio(row):.2f}", _short(seconds(row)), _short(encoding(row)), _short(row["first"]),
            f"{memory(row):,.0f}", f"{row['result']:,.0f}", f"{row['rank']:,}",
            f"{100 * row['error']:.3f} %" if row["error"] else "", str(len(row["runs"])),
        ]
        for row in rows
    ]  # fmt: skip
    return table(head, cells)


def _growth(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    lines = []
    for family, title in titles.items():
        found = [row for row in _plain(rows, family) if row["concepts"] >= GROWTH_FROM]
        cells = [exponent([(row["concepts"], value(row)) for row in found]) for value in (encoding, the_rest, memory)]
        if cells[0] is not None:
            counts = [row["concepts"] for row in found]
            between = f"{title}, {min(counts)} to {max(counts):,} concepts"
            lines.append([between, *(f"{cell:.2f}" for cell in cells)])
    return table(("", "encoding", "the rest", "memory"), lines) if lines else "Too few numbers of concepts measured."


def _splits(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    lines = []
    for row in rows:
        for label, of in ((_name(row, titles), "rece"), ("its floor", "floor")):
            parts = [seconds(row, phase, of=of) for phase in PHASES]
            lines.append([label, *(_short(part) if part else "-" for part in parts), _short(seconds(row, of=of))])
    return table(("seconds", *PHASES, "total"), lines)


def _common(rows: Sequence[Row]) -> str:
    counts = [row["prompts"] - row["concepts"] for row in rows if row["common"]]
    if not counts:
        return ""
    needed = "The common concepts are those that the preset `object` needs, and `general` does not"
    return f"\n{needed}: {counts[0]} prompts to encode.\n"


def _short(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


PAGE = """# Time and memory on full-size models

How long RECE takes and how much memory it needs, for 1 to 1,000 concepts without a replacement: with the presets
`general` (the default) for one concept and `several` for more, which also read two dozen built-in captions. "As
published" are the paper's settings with {loops} loops and nothing preserved; a thousand concepts by these are refused.
Measured by `make bench` on the architectures of Stable Diffusion 1.5, 2.1 and XL (UNet and text encoders, float32,
random weights), on {machine}. Code as of {revision}.
{missing} [bench-encoding.md](bench-encoding.md) says what reading concepts costs, by preset.

{targets}

![Seconds of encoding, seconds of the rest and memory over the number of concepts]({picture})

{summary}

Seconds are medians{clock}; ratios are medians of each run's ratio. Where there is a single run, it is the first
call of its process; if that takes only a second or two, the number is rough.

How time and memory grow with the number of concepts, as an exponent: 1 is in proportion, 0 is not at all.

{growth}

The exponent is the slope of the line that fits best on logarithmic axes, from {start} concepts on. Below that, most of
the time goes into the weights: they have to be read once, for one concept as for a thousand.

## How it was measured

**The floor** is the time that no implementation can avoid:

- Encoding: each distinct prompt goes once through the bare text encoders (both of SDXL). The seconds for each prompt
  are those that the same run spent inside these modules, so that other work on the machine slows both alike.
- The weights: `W^T W` of each for the Gram matrix, and `W U` for their changes, measured after the run.
- Nothing is counted for `maps`, the solving on matrices that are as wide as the text.

**Memory** is the peak resident memory during the first call, minus the resident memory with the model loaded. Each case
has a process of its own. Nothing has warmed up, so the memory that libraries take on first use counts too. It includes
the result: the changes of all layers, of the rank in the table. Large changes are kept in float16
([method.md](method.md#many-concepts) says which); the table says how much of the change that loses. Of the UNet only
the layers that read text are filled; nothing else of it is read.

{models}

Where the time goes:

{splits}
{common}"""
