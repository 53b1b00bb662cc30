"""Time and memory of a training step on a full-size Stable Diffusion 1.5 with random weights, against bare passes.

python benchmarks/learned_cost.py [--out docs/bench-learned.md] [--only few-shot]

The bare passes are the forward and backward passes that a step of the method cannot do without, through the same
modules without anything of ours. Each case is measured in a process of its own, and kept: run it again to resume.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from families import FAMILIES, full_size_model
from measure import machine, now, settle, status
from torch.optim.optimizer import register_optimizer_step_post_hook

from erasure_core import Concept
from erasure_core.drawing.table import table
from erasure_core.methods.abo import AbOSettings, abo
from erasure_core.methods.doco import DoCoSettings, doco
from erasure_core.methods.few_shot import FewShotSettings, few_shot, trained_weights
from erasure_core.training.memory import OutOfRoomError

SIDE = FAMILIES["sd15"].unet["sample_size"]
STEPS = 2  # the second step has Adam's moments beside the activations
BATCH = {"few-shot": 2, "DoCo": 2, "AbO": 1}
MOST_RATIO = 1.15
PAIR = Concept("parachute", "airplane")
ALONE = Concept("parachute")
SETTINGS = {
    "few-shot": FewShotSettings(steps=STEPS, batch_size=BATCH["few-shot"]),
    "DoCo": DoCoSettings(steps=STEPS, batch_size=BATCH["DoCo"], warm_up=0.0),
    "AbO": AbOSettings(steps=STEPS, batch_size=BATCH["AbO"], trajectories=2, sampling_steps=1),
}
METHODS: dict[str, Callable] = {
    "few-shot": lambda model, **more: few_shot(model, ALONE, SETTINGS["few-shot"], images=None, **more),
    "DoCo": lambda model, **more: doco(model, PAIR, SETTINGS["DoCo"], anchor_latents=latents(model, 4), **more),
    "AbO": lambda model, **more: abo(model, PAIR, SETTINGS["AbO"], preserve=["a kite"], **more),
}
VARIANTS = {"": {}, "rank 8": {"rank": 8}}
BARE = "bare passes"
CASES = {"few-shot": (BARE, "", "rank 8"), "DoCo": (BARE, ""), "AbO": (BARE, "")}
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576"}  # glibc returns what is freed at once, so that no holes are counted


def latents(model, count: int) -> torch.Tensor:
    return torch.randn(count, *model.latent_shape(), generator=torch.Generator().manual_seed(0))


Clock = Callable[[], float]


def steps_of(model, method: str, variant: str, clock: Clock = now) -> list[float]:
    """Seconds of each step but the first."""
    marks: dict[int, list[float]] = {}  # by optimiser: DoCo's discriminator has one too

    def mark(optimiser: torch.optim.Optimizer, arguments: tuple, keywords: dict) -> None:
        marks.setdefault(id(optimiser), []).append(clock())

    hook = register_optimizer_step_post_hook(mark)
    try:
        METHODS[method](model, **VARIANTS[variant])
    finally:
        hook.remove()
    ends = next(iter(marks.values()))
    return [later - earlier for earlier, later in zip(ends, ends[1:], strict=False)]


def ours(model, method: str, variant: str) -> tuple[list[float], float]:
    """Seconds of each step but the first, and the megabytes that training says it needs."""
    seconds = steps_of(model, method, variant)
    model.free_memory = lambda: 0
    try:
        METHODS[method](model, **VARIANTS[variant])
    except OutOfRoomError as error:
        return seconds, error.needed / 1e6
    raise RuntimeError(f"{method} trained where no memory is free")


def bare(model, method: str, clock: Clock = now) -> list[float]:
    """The same of the passes alone."""
    unet, encoder = model.pipe.unet, model.pipe.text_encoder
    unet.requires_grad_(False)
    encoder.requires_grad_(False)
    batch = BATCH[method]
    ids = torch.full((batch, model.tokens), 7, device=model.device)
    context = encoder(ids)[0]
    noisy = latents(model, batch).to(model.device, unet.dtype)
    times = torch.full((batch,), 500, device=model.device)
    trained = _trained(model, method)
    for weight in trained:
        weight.requires_grad_(True)

    def both_ways(many: int, context: torch.Tensor) -> list[torch.Tensor]:
        output = unet(noisy.repeat(many, 1, 1, 1), times.repeat(many), context.repeat(many, 1, 1)).sample
        return torch.autograd.grad(output.square().mean(), trained)

    def forward(many: int) -> None:
        with torch.no_grad():
            unet(noisy.repeat(many, 1, 1, 1), times.repeat(many), context.repeat(many, 1, 1))

    def passes() -> list[torch.Tensor]:
        if method == "few-shot":
            return both_ways(1, encoder(ids)[0])
        forward(1 if method == "DoCo" else 3)
        if method == "AbO":
            return both_ways(3, context)
        both_ways(1, context)
        return both_ways(1, context)

    seconds = []
    for _ in range(STEPS):
        began = clock()
        passes()
        seconds.append(clock() - began)
    for weight in trained:
        weight.requires_grad_(False)
    return seconds[1:]


def _trained(model, method: str) -> list[torch.Tensor]:
    if method != "few-shot":
        ends = ("attn2.to_k.weight", "attn2.to_v.weight")
        return [weight for name, weight in model.pipe.unet.named_parameters() if name.endswith(ends)]
    names = {name.partition(".")[2] for name in trained_weights(model.weights_of("text_encoder"))}
    return [weight for name, weight in _named(model.pipe.text_encoder).items() if name in names]


def _named(encoder) -> dict[str, torch.Tensor]:
    return {
        name if name.startswith("text_model.") else f"text_model.{name}": weight
        for name, weight in encoder.named_parameters()
    }


def measure(method: str, variant: str) -> dict[str, float]:
    """Seconds of a step, and the peak of what is resident beyond the loaded model, in megabytes."""
    model = full_size_model("sd15", whole=True)
    before = settle()
    seconds, told = (bare(model, method), 0.0) if variant == BARE else ours(model, method, variant)
    return {"seconds": mean(seconds), "megabytes": status("VmHWM") - before, "told": told}


def in_a_fresh_process(method: str, variant: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", method, variant]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **GIVE_BACK})
    return json.loads(done.stdout)


def report(found: dict[tuple[str, str], dict[str, float]]) -> str:
    """The page, from what was found by method and variant."""
    lines = []
    for (method, variant), row in found.items():
        ratios = [row[key] / found[method, BARE][key] for key in ("seconds", "megabytes")]
        told = f"{row['told']:.0f}" if row["told"] else ""
        cells = [f"{row['seconds']:.1f}", f"{row['megabytes']:.0f}", told, *(f"{ratio:.2f}" for ratio in ratios)]
        lines.append([f"{method}, {variant}" if variant else f"**{method}**", *cells])
    slowest, largest = (
        max(found[method, ""][key] / found[method, BARE][key] for method in METHODS) for key in ("seconds", "megabytes")
    )
    head = ("", "seconds of a step", "MB", "MB told before", "times the passes' time", "their memory")
    return PAGE.format(
        machine=machine(), side=SIDE, ratio=MOST_RATIO, time=_verdict(slowest), memory=_verdict(largest),
        table=table(head, lines),
    )  # fmt: skip


def _verdict(found: float) -> str:
    return f"{'met' if found <= MOST_RATIO else 'missed'}, {found:.2f} at most"


PAGE = """# Time and memory of a training step on a full-size model

Measured by `make bench-learned` on the architecture of Stable Diffusion 1.5 (float32, random weights), with latents of
{side} x {side} and a batch of 2 (AbO: 1), on {machine}.

A training step is compared with its *bare passes*: the passes that it cannot do without, through the same modules, and
nothing else.

- Few-shot: text encoder and UNet, forward and backward.
- DoCo: the frozen UNet forward, and the trained one twice forward and backward.
- AbO with something preserved: the frozen and the trained UNet on three contexts at once, the trained one backward too.

The method adds a copy of the trained weights, Adam's moments of the copy, and its own work. Few-shot sends one
latent after the other through the UNet and back. "Told before" is the memory that training says it needs before it
starts. Times are those of the second of two steps, and rough, within about ten percent. Memory is the peak resident
memory, minus that of the loaded model. Each case has a process of its own.

Target: at most {ratio} times the bare passes. Time: **{time}**. Memory: **{memory}**.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    docs = Path(__file__).resolve().parent.parent / "docs"
    parser.add_argument("--out", type=Path, default=docs / "bench-learned.md")
    parser.add_argument("--rows", type=Path, default=Path("build/bench-learned.jsonl"), help="what was measured")
    parser.add_argument("--only", choices=list(METHODS), help="measure only one method and write no page")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(*options.case)))
        return
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    found = _kept(options.rows)
    for method in [options.only] if options.only else METHODS:
        for variant in CASES[method]:
            if (method, variant) not in found:
                found[method, variant] = in_a_fresh_process(method, variant)
                with options.rows.open("a") as file:
                    file.write(json.dumps([method, variant, found[method, variant]]) + "\n")
                print(method, variant, found[method, variant], file=sys.stderr, flush=True)
    if not options.only:
        page = report({(method, variant): found[method, variant] for method in METHODS for variant in CASES[method]})
        options.out.write_text(page, encoding="utf-8")
        print(page)


def _kept(rows: Path) -> dict[tuple[str, str], dict[str, float]]:
    lines = rows.read_text().splitlines() if rows.exists() else []
    return {(method, variant): found for method, variant, found in map(json.loads, lines)}


if __name__ == "__main__":
    main()
