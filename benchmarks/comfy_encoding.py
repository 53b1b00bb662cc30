"""What encoding many windows at once would save in ComfyUI on this machine; a section of docs/bench-encoding.md.

python benchmarks/comfy_encoding.py --comfyui FOLDER [--cases sd15 sdxl t5xxl]

The text encoders are full-size with random weights, in ComfyUI's own classes; of T5-XXL two of its blocks. Each case
becomes a line of build/bench-comfy-encoding.jsonl: run it again to resume.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, machine, now

from erasure_core.drawing.table import table

ROWS = ROOT / "build" / "bench-comfy-encoding.jsonl"
T5_BLOCKS = {
    "d_ff": 10240, "d_kv": 64, "d_model": 4096, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True,
    "model_type": "t5", "num_heads": 64, "num_layers": 2, "vocab_size": 32128, "pad_token_id": 0,
}  # fmt: skip
END_OF_TEXT = 49407


@dataclass(frozen=True)
class Case:
    """A text encoder, the windows that are encoded, and how many tokens each has."""

    title: str
    windows: int
    tokens: int


CASES = {
    "sd15": Case("Stable Diffusion 1.5", 16, 77),
    "sdxl": Case("SDXL, both encoders, contexts only", 8, 77),
    "t5xxl": Case("T5-XXL, two of its 24 blocks", 8, 256),
}


def measure(name: str) -> dict:
    """Seconds for one window, encoded alone and with the others, and how far the contexts differ."""
    case, names, encode = CASES[name], *_encoder(name)
    generator = torch.Generator().manual_seed(0)
    windows = [_window(case.tokens, generator) for _ in range(case.windows)]
    with torch.inference_mode():
        encode({one: windows[:2] for one in names})  # once, so that memory is there
        began = now()
        alone = [encode({one: [window] for one in names}) for window in windows]
        between = now()
        together = encode({one: windows for one in names})
        done = now()
    expected = torch.cat(alone, 1)
    return {
        "case": name, "alone": (between - began) / len(windows), "together": (done - between) / len(windows),
        "difference": float((together - expected).abs().max() / expected.abs().max()), "machine": machine(),
        "comfyui": importlib.import_module("comfyui_version").__version__,
    }  # fmt: skip


def _window(tokens: int, generator: torch.Generator) -> list[tuple[int, float]]:
    words = torch.randint(1000, 30000, (12,), generator=generator).tolist()
    return [(word, 1.0) for word in [*words, *[END_OF_TEXT if tokens == 77 else 0] * (tokens - len(words))]]


def _encoder(name: str) -> tuple[tuple[str, ...], Callable[[dict[str, list]], torch.Tensor]]:
    """The names of a CLIP's text encoders, and a function that makes contexts of windows, side by side in one row."""
    sd, sd1_clip = (importlib.import_module(f"comfy.{one}") for one in ("sd", "sd1_clip"))
    if name == "t5xxl":
        t5 = importlib.import_module("comfy.text_encoders.t5")
        model = sd1_clip.SDClipModel(
            textmodel_json_config=T5_BLOCKS, model_class=t5.T5, special_tokens={"end": 1, "pad": 0}, dtype=torch.float32
        )
        _fill(model)
        return ("t5xxl",), lambda windows: model.encode_token_weights(windows["t5xxl"])[0]
    tokenizer, kind, names = _of_family(name, sd1_clip)
    target = importlib.import_module("comfy.supported_models_base").ClipTarget(tokenizer, kind)
    clip = sd.CLIP(target, model_options={"dtype": torch.float32})
    _fill(clip.cond_stage_model)
    return names, clip.encode_from_tokens


def _of_family(name: str, sd1_clip: Any) -> tuple[type, type, tuple[str, ...]]:
    if name == "sd15":
        return sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel, ("l",)
    sdxl = importlib.import_module("comfy.sdxl_clip")
    return sdxl.SDXLTokenizer, sdxl.SDXLClipModel, ("g", "l")


def _fill(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.uniform_(-0.03, 0.03, generator=generator) if weight.ndim > 1 else weight.fill_(1.0)


def section(rows: Mapping[str, dict]) -> str:
    """The part of the page about ComfyUI."""
    if not rows:
        return ""
    head = ("", "seconds a prompt, alone", "with the others", "windows", "times as fast", "difference")
    lines = [
        [
            CASES[name].title, f"{row['alone']:.2f}", f"{row['together']:.2f}", str(CASES[name].windows),
            f"{row['alone'] / row['together']:.2f}", f"{row['difference']:.0e}",
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    one = next(iter(rows.values()))
    return SECTION.format(table=table(head, lines), version=one["comfyui"], machine=one["machine"])


SECTION = """
## In ComfyUI

The nodes encode prompts with the CLIP that is connected, by ComfyUI's own function. For Stable Diffusion 1.x and 2.x
they give it 32 windows at once. All other prompts go one at a time, because ComfyUI cannot give the same rows for many:

- of several windows it returns the pooled vector of the first only, and SDXL, Flux and SD3 read that of each prompt;
- it adds all 77 places to what CLIP reads, so that no window can be cut behind its last word, which makes `many` fast
  above;
- T5 reads in both directions, padding included, so that a shorter window would have other rows; and what ComfyUI cuts
  from the output of language models it finds in the first window alone.

What that costs on a CPU, in ComfyUI {version} on {machine}; seconds of processor time, by
`benchmarks/comfy_encoding.py`:

{table}

It was not measured on a GPU. `tests/host/inside/check_sdxl.py` holds the first two points on ComfyUI 0.3.75 and 0.33.0,
so that it will show when they change.
"""


def measured() -> dict[str, dict]:
    """The rows so far, by the names of their cases."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    by_case = {row["case"]: row for row in map(json.loads, lines)}
    return {name: by_case[name] for name in CASES if name in by_case}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", type=Path, required=True, metavar="FOLDER", help="ComfyUI's own folder")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="all by default")
    options = parser.parse_args()
    sys.path.insert(0, str(options.comfyui))
    sys.argv = ["main.py", "--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    rows = measured()
    for name in options.cases:
        if name not in rows:
            rows[name] = measure(name)
            print(rows[name], file=sys.stderr, flush=True)
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[name]) + "\n")


if __name__ == "__main__":
    main()
