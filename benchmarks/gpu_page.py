"""docs/gpu.md, from what ``gpu_check`` wrote.

python benchmarks/gpu_page.py gpu.json [--out docs/gpu.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erasure_core.drawing.table import table

TITLES = {"sd15": "SD 1.5", "sdxl": "SDXL", "T5-XXL": "SD 3's T5-XXL"}
TARGETS = (
    ("sd15", "1", "seconds", 0.1), ("sd15", "1", "solve", 0.05), ("sd15", "100", "seconds", 1.0),
    ("sdxl", "1", "seconds", 1.0),
)  # fmt: skip
"""Of float32 on a card of the class of an H100: family, concepts, what is measured, and the most seconds."""
MOST_RATIO = 1.5
Parts = Mapping[str, Mapping[str, Any]]


def page(found: Mapping[str, Any]) -> str:
    """The page; that of a rehearsal on a CPU says that nothing has run on a GPU yet."""
    parts, device = found["parts"], found["device"]
    states = [[name, row["state"], row.get("why", "")[:90]] for name, row in parts.items()]
    if device["type"] != "cuda":
        return REHEARSAL.format(
            torch=device["torch"], targets="\n".join(_goals()), waits=_waits(parts),
            states=table(("part", "rehearsed", "reason"), states),
        )  # fmt: skip
    return PAGE.format(
        card=device["name"], memory=device["gigabytes"], torch=device["torch"], cuda=device["cuda"],
        version=device["version"], targets="\n".join(_verdicts(parts)), rece=table(HEAD, _rece(parts)),
        steps=table(("", "seconds", "bare passes", "times", "MB", "their MB"), _steps(parts)),
        states=table(("part", "state", "reason"), states), toy=_toy(parts), waits=_waits(parts),
    )  # fmt: skip


HEAD = (
    "", "concepts", "seconds", "encode", "solve", "floor", "times the floor", "MB beyond the weights", "first call",
)  # fmt: skip


def _goals() -> list[str]:
    what = {"seconds": "", "solve": ", the solve alone"}
    lines = [
        f"- {TITLES[family]}, {count} concept{'s' if count != '1' else ''}{what[key]}: at most {most:g} s"
        for family, count, key, most in TARGETS
    ]
    return [*lines, f"- never more than {MOST_RATIO:g} times the floor"]


def _verdicts(parts: Parts) -> list[str]:
    lines = []
    for goal, (family, count, key, most) in zip(_goals(), TARGETS, strict=False):
        value = parts.get(f"rece, {family}, fp32", {}).get(count, {}).get(key)
        lines.append(f"{goal}: {_verdict(value, most, 's')}")
    ratios = [row["ratio"] for _, _, row in _measured(parts)]
    return [*lines, f"{_goals()[-1]}: {_verdict(max(ratios, default=None), MOST_RATIO, 'times')}"]


def _verdict(value: float | None, most: float, unit: str) -> str:
    if value is None:
        return "**not measured**"
    return f"**{'met' if value <= most else 'missed'}** ({value:.3g} {unit})"


def _measured(parts: Parts) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [
        (name, count, row)
        for name, part in parts.items()
        if name.startswith("rece, ")
        for count, row in part.items()
        if count.isdecimal() and "ratio" in row
    ]


def _rece(parts: Parts) -> list[Sequence[str]]:
    lines = []
    for name, count, row in _measured(parts):
        _, family, precision = name.split(", ")
        seconds = [f"{row[key]:.3f}" for key in ("seconds", "encode", "solve")]
        lines.append([
            f"{TITLES[family]}, {precision}", f"{int(count):,}", *seconds, f"{sum(row['floor'].values()):.3f}",
            f"{row['ratio']:.2f}", f"{row['megabytes']:,.0f}", f"{row['first']:.3f}",
        ])  # fmt: skip
    return lines


def _steps(parts: Parts) -> list[Sequence[str]]:
    lines = []
    for name, row in parts.items():
        if name.startswith("step, ") and "floor" in row:
            floor = f"{row['floor']:.3f}"
            if "refused" in row:
                lines.append([name.removeprefix("step, "), "refused", floor, "", "", ""])
                continue
            memory = [f"{row[key]:,.0f}" for key in ("megabytes", "floor_megabytes")]
            lines.append([
                name.removeprefix("step, "), f"{row['seconds']:.3f}", floor, f"{row['ratio']:.2f}", *memory
            ])  # fmt: skip
    return lines


def _toy(parts: Parts) -> str:
    row = parts["toy"]
    if "edit" not in row:
        return f"Not measured: {row.get('why', '')}"
    return (
        f"The edit differs by {row['edit']:.1e} of its norm, pictures by {row['picture']:.1e} a channel in the mean, "
        f"and the judge sees the same in {100 * row['judged']:.0f} %."
    )


def _waits(parts: Parts) -> str:
    row = {count: one for count, one in parts["waits"].items() if count.isdecimal()}
    told = [f"{one['reads']} reads and {one['transfers']} transfers for {count} concepts" for count, one in row.items()]
    return "; ".join(told) or f"Not measured: {parts['waits'].get('why', '')}"


CHECKED = """## What it checks

- **The embedded model**: the edit, the pictures and what the judge sees in them, by CUDA and by the CPU, within bounds.
- **RECE** on Stable Diffusion 1.5 and SDXL in full size, and on SD 3's text entry with T5-XXL, all with random weights,
  in float32, float16 and bfloat16, for 1, 100 and 1,000 concepts: seconds and memory, against the floor of the work
  beside it (the text encoder's bare passes, `W^T W` of each weight, and `W U`).
- **A step of each learned method** on Stable Diffusion 1.5 against its bare passes. float16 is refused, and says so.
- **Waits**: how often RECE reads a number from the device or moves a tensor. It must grow with batches of prompts, not
  with concepts.
- **Pipelines** that are compiled or offloaded, and memory that repeated runs leave behind.
- **ComfyUI on CUDA**, where its tree is carried along: normal, `--lowvram` and `--novram`. Whether weights are
  streamed, as 0.33 does, is left to its own settings.
"""

HOW = """## How to run it

On a machine with a CUDA GPU, PyTorch, transformers and accelerate; it needs no network and takes at most six minutes:

    python benchmarks/gpu_check.py --out gpu.json --wheels FOLDER --comfyui FOLDER
    python benchmarks/gpu_page.py gpu.json

`make gpu-check` runs both. `--wheels` is a folder with the wheels of what the machine lacks, diffusers for example;
`--comfyui` is optional. Every part is listed as ok, failed or not run, with the reason.
"""

REHEARSAL = f"""# On a GPU

**Nothing here has run on a GPU yet.** No GPU was at hand when the check was written. What follows is a rehearsal of it
on a CPU with layers of a few numbers (PyTorch {{torch}}): it shows that the check itself works, and no time.

The targets, for a card of the class of an H100, in float32, none of them measured:

{{targets}}

{CHECKED}
{HOW}
## The rehearsal

{{states}}

What a GPU would be waited for in RECE: {{waits}}.

What was read from the code without a GPU, and mended with tests (`tests/pure/test_encoding.py`,
`tests/pure/test_gpu_check.py`): numbers are read from the device once for a batch of prompts or for all layers, and not
for each concept or layer; float64 products are made of many rows at once, and rows that UCE and RECE share are
multiplied once; the factor of an edit goes to the device once, and changes come back many layers at a time; on Apple's
devices, which lack float64, a batch of text goes to the CPU once, and Gram matrices are added up in two float32
numbers. Left as it is: a learned method reads its loss once a step, to stop at NaN and to show it.
"""

PAGE = f"""# On a GPU

Measured by `benchmarks/gpu_check.py` on one **{{card}}** ({{memory}} GB), PyTorch {{torch}}, CUDA {{cuda}}, version
{{version}}.

{{targets}}

{{rece}}

Seconds are wall-clock, with the device waited for; medians of three runs for one concept. *Floor* is measured beside
each run.

{{steps}}

**The embedded model.** {{toy}}

**Waits.** {{waits}}.

{{states}}

{CHECKED}
{HOW}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("found", type=Path, help="what gpu_check wrote")
    docs = Path(__file__).resolve().parent.parent / "docs"
    parser.add_argument("--out", type=Path, default=docs / "gpu.md")
    options = parser.parse_args()
    options.out.write_text(page(json.loads(options.found.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
