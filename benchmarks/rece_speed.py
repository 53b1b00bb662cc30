"""Time and memory of RECE on a full-size Stable Diffusion 1.5 with random weights, against the floor of its work.

python benchmarks/rece_speed.py [--out docs/bench.md] [--cases 0 1]

The floor, measured beside it in the same run, is what no implementation can leave out: the text encoder's bare passes
over the distinct prompts, ``W^T W`` of every cross-attention weight and ``W U`` for every change, in the weights' type.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from erasure_core import Concept, Erasure, common_concepts, from_diffusers, rece
from erasure_core.model import CONTEXT
from erasure_core.table import table
from erasure_core.toy.tokenizer import clip_tokenizer
from erasure_core.vocabulary import COMMON

LOOPS, BATCH = 3, 32
MOST_RATIO, MOST_MEGABYTES = 1.5, 300
PHASES = ("encode", "Gram", "maps", "deltas")
BEGINNINGS = ("encoding prompts", "gathering weights", "erasing", "forming the changes", "done")


@dataclass(frozen=True)
class Case:
    """What is erased and how often it is measured."""

    name: str
    concepts: tuple[Concept, ...]
    preserve: tuple[str, ...] = ()
    repeats: int = 1

    def run(self, model, callback=None) -> Erasure:
        return rece(model, self.concepts, preserve=self.preserve, loops=LOOPS, callback=callback)

    def prompts(self) -> list[str]:
        """Everything that has to be encoded: concepts, targets and what is preserved."""
        pairs = [text for concept in self.concepts for text in (concept.name, concept.instead or " ")]
        return [*pairs, *(self.preserve or [""])]


ONE = (Concept("van gogh"),)
CASES = (
    Case("1 concept", ONE, repeats=5),
    Case("1 concept, common concepts preserved", ONE, tuple(common_concepts(ONE))),
    Case("10 concepts", tuple(map(Concept, COMMON[:10])), repeats=3),
    Case("100 concepts", tuple(map(Concept, COMMON[:100]))),
)


def full_size_model(whole: bool = False, side: int = 64):
    """The architectures of Stable Diffusion 1.5 in float32 with random weights, for latents ``side`` wide.

    Of the UNet only the cross-attention keys and values are filled, which is all that RECE reads, unless the ``whole``
    of it is wanted. The autoencoder is small.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=side, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
        )
    unet.to_empty(device="cpu")
    for name, weight in unet.named_parameters():
        if whole or name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            weight.data.uniform_(-0.05, 0.05)
    parts = {"feature_extractor": None, "safety_checker": None, "requires_safety_checker": False}
    return from_diffusers(
        StableDiffusionPipeline(
            vae=AutoencoderKL(), text_encoder=CLIPTextModel(text).eval(), tokenizer=clip_tokenizer(),
            unet=unet.eval(), scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), **parts,
        )
    )  # fmt: skip


def now() -> float:
    """Seconds: of the wall clock, or with a single thread of processor time, which a shared core leaves alone."""
    return time.perf_counter() if torch.get_num_threads() > 1 else time.process_time()


def timed_rece(model, case: Case) -> tuple[dict[str, float], Erasure]:
    """Seconds of each phase, as ``rece`` reports their beginnings, and what it made."""
    began: dict[str, float] = {}
    erasure = case.run(model, lambda done, total, what: began.setdefault(what, now()))
    marks = [began[beginning] for beginning in BEGINNINGS]
    return {phase: marks[i + 1] - marks[i] for i, phase in enumerate(PHASES)}, erasure


@torch.no_grad()
def timed_floor(encoder, ids: Tensor, weights: list[Tensor], up: Tensor) -> dict[str, float]:
    """Seconds of the bare work: encode the token ids, multiply every weight with itself and with ``up``."""
    began = now()
    encoded = [encoder(part)[0] for part in ids.split(BATCH)]
    gram = now()
    for weight in weights:
        weight.T @ weight
    deltas = now()
    changes = [weight @ up for weight in weights]
    done = now()
    del encoded, changes
    return {"encode": gram - began, "Gram": deltas - gram, "maps": 0.0, "deltas": done - deltas}


def measure_time(model, case: Case) -> dict:
    """Median seconds by phase and in all, of RECE and of its floor, taken in turns; the median of the ratios."""
    tokenizer, encoder = model.pipe.tokenizer, model.pipe.text_encoder
    ids = tokenizer(case.prompts(), padding="max_length", return_tensors="pt")["input_ids"].unique(dim=0)
    weights = list(model.text_entries()[CONTEXT].weights.values())
    ours, bare = [], []
    for _ in range(case.repeats):
        seconds, erasure = timed_rece(model, case)
        ours.append(seconds)
        bare.append(timed_floor(encoder, ids, weights, erasure.maps[CONTEXT].change.up))
    ratio = median(sum(one.values()) / sum(other.values()) for one, other in zip(ours, bare, strict=True))
    return {"rece": _medians(ours), "floor": _medians(bare), "ratio": ratio}


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    by_phase = {phase: median(run[phase] for run in runs) for phase in PHASES}
    return {**by_phase, "total": median(sum(run.values()) for run in runs)}


def settle() -> float:
    """Let go of what is free and forget the peak; returns the resident memory in megabytes. Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def measure_first(case: Case) -> dict[str, float]:
    """The peak memory beyond the weights and the seconds of a process's first ``rece``. Linux only.

    Nothing has warmed up: what libraries allocate and page in on first use counts too.
    """
    model = full_size_model()
    before = settle()
    began = now()
    case.run(model)
    return {"seconds": now() - began, "megabytes": status("VmHWM") - before}


def status(field: str) -> float:
    """A field of /proc/self/status in megabytes (10^6)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":")]
    return int(line.split()[1]) * 1024 / 1e6


def in_a_fresh_process(index: int) -> dict[str, float]:
    """``measure_first`` of a case where no other case has run."""
    command = [sys.executable, __file__, "--first", str(index)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def report(cases: list[Case], times: list[dict], firsts: list[dict]) -> str:
    """The page; the verdict is on the first case."""
    head = ("seconds", *PHASES, "total")
    splits = []
    for case, found in zip(cases, times, strict=True):
        for label, row in ((case.name, found["rece"]), ("its floor", found["floor"])):
            splits.append([label, *(f"{row[column]:.2f}" if row[column] else "-" for column in head[1:])])
    summary = [
        [case.name, f"{found['ratio']:.2f}", f"{first['megabytes']:.0f}", f"{first['seconds']:.2f}", str(case.repeats)]
        for case, found, first in zip(cases, times, firsts, strict=True)
    ]
    met = times[0]["ratio"] <= MOST_RATIO and firsts[0]["megabytes"] <= MOST_MEGABYTES
    return PAGE.format(
        verdict="met" if met else "missed", ratio=MOST_RATIO, megabytes=MOST_MEGABYTES, loops=LOOPS,
        clock=" of processor time" if torch.get_num_threads() == 1 else "",
        prompts=len(CASES[1].preserve), machine=machine(), splits=table(head, splits),
        summary=table(("", "times the floor", "MB beyond the weights", "first call, seconds", "runs"), summary),
    )  # fmt: skip


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' if count > 1 else ''}"
    return f"{cpu}, {threads} of {os.cpu_count()} cores, no GPU; torch {torch.__version__}, {platform.system()}"


PAGE = """# Time and memory on a full-size model

Made by `make bench`: {loops} loops of RECE on the architectures of Stable Diffusion 1.5 (UNet and CLIP-L text encoder,
float32, random weights) on {machine}.

The floor is what no implementation can leave out, measured in turns with RECE in the same run: the text encoder's bare
passes over the distinct prompts, `W^T W` of each of the 32 cross-attention weights for the Gram matrix, and `W U` for
their changes. Times are medians{clock}, ratios medians of the ratios of neighbouring runs.
Memory and the first call are measured in a process of their own in which nothing has warmed up: the peak of the
resident memory, less what was resident with the model loaded. Of the UNet only the cross-attention weights are filled;
nothing else of it is read. A case of a single run is a rough figure: its ratio may even fall below 1.

Target for one concept: at most {ratio} times the floor and {megabytes} MB beyond the weights: **{verdict}**.

{summary}

Where the time goes:

{splits}

The common concepts are the {prompts} prompts that the nodes preserve by default: one text encoding each, which is
nearly all of the time.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs" / "bench.md")
    every = range(len(CASES))
    parser.add_argument("--cases", type=int, nargs="+", choices=every, default=every, help="all by default")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first is not None:
        print(json.dumps(measure_first(CASES[options.first])))
        return
    firsts, times = [], []
    for index in options.cases:
        firsts.append(in_a_fresh_process(index))
        print(CASES[index].name, firsts[-1], file=sys.stderr, flush=True)
    model = full_size_model()
    for index in options.cases:
        times.append(measure_time(model, CASES[index]))
        print(CASES[index].name, times[-1], file=sys.stderr, flush=True)
    page = report([CASES[index] for index in options.cases], times, firsts)
    options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
