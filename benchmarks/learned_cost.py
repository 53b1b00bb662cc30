"""Time and memory of a training step on a full-size Stable Diffusion 1.5 with random weights, against bare passes.

python benchmarks/learned_cost.py [--out docs/bench-learned.md]

The bare passes are the forward and backward passes that a step of the method cannot do without, through the same
modules without anything of ours. Each case is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from rece_speed import full_size_model, machine, now, settle, status

from erasure_core import Concept
from erasure_core.methods.abo import abo
from erasure_core.methods.doco import doco
from erasure_core.methods.few_shot import few_shot, trained_weights
from erasure_core.table import table

SIDE, STEPS, BATCH = 32, 4, 2
MOST_RATIO = 1.15
PAIR = Concept("parachute", "airplane")
ALONE = Concept("parachute")
METHODS: dict[str, Callable] = {
    "few-shot": lambda model, **more: few_shot(model, ALONE, None, batch_size=BATCH, **more),
    "DoCo": lambda model, **more: doco(
        model, PAIR, anchor_latents=latents(model, 4), batch_size=BATCH, warm_up=0.0, **more
    ),
    "AbO": lambda model, **more: abo(
        model, PAIR, preserve=["a kite"], batch_size=BATCH, trajectories=2, sampling_steps=1, **more
    ),
}
VARIANTS = {"": {}, "rank 8": {"rank": 8}, "gradient checkpointing": {"gradient_checkpointing": True}}
BARE = "bare passes"


def latents(model, count: int) -> torch.Tensor:
    return torch.randn(count, *model.latent_shape(), generator=torch.Generator().manual_seed(0))


def ours(model, method: str, variant: str) -> list[float]:
    """Seconds of each step but the first."""
    marks: list[float] = []

    def mark(done: int, total: int, what: str) -> None:
        if "loss" in what:
            marks.append(now())

    METHODS[method](model, steps=STEPS, callback=mark, **VARIANTS[variant])
    return [later - earlier for earlier, later in zip(marks, marks[1:], strict=False)]


def bare(model, method: str) -> list[float]:
    """The same of the passes alone."""
    unet, encoder = model.pipe.unet, model.pipe.text_encoder
    unet.requires_grad_(False)
    encoder.requires_grad_(False)
    ids = torch.full((BATCH, model.tokens), 7)
    context = encoder(ids)[0]
    noisy, times = latents(model, BATCH), torch.full((BATCH,), 500)
    if method == "few-shot":
        names = {name.partition(".")[2] for name in trained_weights(model.weights_of("text_encoder"))}
        trained = [weight for name, weight in _named(encoder).items() if name in names]
    else:
        ends = ("attn2.to_k.weight", "attn2.to_v.weight")
        trained = [weight for name, weight in unet.named_parameters() if name.endswith(ends)]
    for weight in trained:
        weight.requires_grad_(True)

    def both_ways(copies: int, context: torch.Tensor) -> None:
        output = unet(noisy.repeat(copies, 1, 1, 1), times.repeat(copies), context.repeat(copies, 1, 1)).sample
        torch.autograd.grad(output.square().mean(), trained)

    def forward(copies: int) -> None:
        with torch.no_grad():
            unet(noisy.repeat(copies, 1, 1, 1), times.repeat(copies), context.repeat(copies, 1, 1))

    def step() -> None:
        if method == "few-shot":
            both_ways(1, encoder(ids)[0])
        elif method == "DoCo":
            forward(1), both_ways(1, context), both_ways(1, context)
        else:
            forward(3), both_ways(3, context)

    seconds = []
    for _ in range(STEPS):
        began = now()
        step()
        seconds.append(now() - began)
    return seconds[1:]


def _named(encoder) -> dict[str, torch.Tensor]:
    return {
        name if name.startswith("text_model.") else f"text_model.{name}": weight
        for name, weight in encoder.named_parameters()
    }


def measure(method: str, variant: str) -> dict[str, float]:
    """Median seconds a step, and the peak of the resident memory beyond the loaded model."""
    model = full_size_model(whole=True, side=SIDE)
    before = settle()
    seconds = bare(model, method) if variant == BARE else ours(model, method, variant)
    return {"seconds": median(seconds), "megabytes": status("VmHWM") - before}


def in_a_fresh_process(method: str, variant: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", method, variant]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def report(found: dict[tuple[str, str], dict[str, float]]) -> str:
    """The page, from what was found by method and variant."""
    lines, most = [], 0.0
    for (method, variant), row in found.items():
        floor = found[method, BARE]
        time, memory = (row[key] / floor[key] for key in ("seconds", "megabytes"))
        if not variant:
            most = max(most, time, memory)
        name = f"{method}, {variant}" if variant else f"**{method}**"
        cells = [f"{row['seconds']:.1f}", f"{row['megabytes']:.0f}", f"{time:.2f}", f"{memory:.2f}"]
        lines.append([name, *cells])
    head = ("", "seconds a step", "MB beyond the model", "times the time", "times the memory")
    verdict = "met" if most <= MOST_RATIO else f"missed: {most:.2f}"
    return PAGE.format(
        machine=machine(), side=SIDE, batch=BATCH, ratio=MOST_RATIO, steps=STEPS - 1, verdict=verdict,
        table=table(head, lines),
    )  # fmt: skip


PAGE = """# Time and memory of a training step on a full-size model

Made by `make bench-learned` on the architectures of Stable Diffusion 1.5 (float32, random weights) with latents of
{side} x {side} and a batch of {batch}, on {machine}.

The bare passes are those that a step cannot do without, through the same modules with nothing of ours. Few-shot: text
encoder and UNet, forward and backward. DoCo: the frozen UNet forward, the trained one twice forward and backward. AbO
with something preserved: the frozen and the trained UNet on three contexts at once, the trained one backward too.
Times are medians of {steps} steps after a first, each case in a process of its own; memory is the peak of what is
resident less what the loaded model takes.

Target for each method as it is by default: at most {ratio} times the time and the memory of its bare passes:
**{verdict}**.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    docs = Path(__file__).resolve().parent.parent / "docs"
    parser.add_argument("--out", type=Path, default=docs / "bench-learned.md")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(*options.case)))
        return
    found = {}
    for method in METHODS:
        for variant in (BARE, *VARIANTS):
            found[method, variant] = in_a_fresh_process(method, variant)
            print(method, variant, found[method, variant], file=sys.stderr, flush=True)
    page = report(found)
    options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
