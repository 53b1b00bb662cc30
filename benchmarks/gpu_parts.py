"""The parts of ``gpu_check``: each measures one thing on a device and returns numbers, or raises what went wrong."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cases import Case
from device_calls import DeviceCalls
from families import FAMILIES, pipeline_of
from learned_cost import BATCH, METHODS, bare, steps_of
from measure import ROOT, settle, status
from torch import Tensor

from erasure_core import from_diffusers, rece
from erasure_core.methods.rece import RECE
from erasure_core.model import CONTEXT, TextEntry, TextRows, UnsupportedModelError
from erasure_core.toy import Judge, load_pipeline, load_toy

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SMALL = {
    "block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 64, "norm_num_groups": 8, "sample_size": 8,
    "attention_head_dim": 4, "layers_per_block": 1,
}  # fmt: skip
SMALL_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
BOUND_EDIT, BOUND_PICTURE, BOUND_JUDGED = 1e-3, 0.02, 0.95
BOUND_REPEATED = 1_000_000  # bytes that five more runs may leave on a GPU
BOUND_RESIDENT = 30_000_000  # the same of a process on the CPU, whose heap has holes


class NotHere(Exception):
    """A part cannot run here; the message says why. It is listed with its reason."""


@dataclass(frozen=True)
class Setting:
    """Where and at what size the parts run; ``deadline`` is a moment of ``time.monotonic``."""

    device: torch.device
    small: bool
    comfyui: Path | None
    deadline: float

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def need_gpu(self, why: str) -> None:
        if not self.on_gpu:
            raise NotHere(f"{why} needs a GPU")

    def now(self) -> float:
        """Seconds, once the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def counts(self) -> tuple[int, ...]:
        return (1, 10, 60) if self.small else (1, 100, 1000)


@dataclass
class Peak:
    """The most memory inside a ``with`` block beyond that before it, in megabytes."""

    setting: Setting
    megabytes: float = 0.0
    _before: float = field(default=0.0, init=False)

    def __enter__(self) -> Peak:
        gc.collect()
        if self.setting.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.setting.device)
            self._before = torch.cuda.memory_allocated(self.setting.device) / 1e6
        else:
            self._before = settle()
        return self

    def __exit__(self, *failure) -> None:
        peak = torch.cuda.max_memory_allocated(self.setting.device) / 1e6 if self.setting.on_gpu else status("VmHWM")
        self.megabytes = peak - self._before


def toy(setting: Setting) -> dict[str, Any]:
    """The embedded model by the device against the CPU: the edit, the pictures, and what the judge sees in them."""
    from erasure_core.sampling.ddim import generate

    prompts = ["a cat on a blue background", "a dog in the style of noto", "an owl on a red background", "a lion"]
    seeds, steps = range(len(prompts)), 4 if setting.small else 15
    edits, pictures, verdicts = [], [], []
    for device in (torch.device("cpu"), setting.device):
        model = load_toy()
        model.pipe.to(device)
        erasure = rece(model, ["cat", "dog"], RECE["several"])
        with erasure.applied_to(model):
            drawn = generate(model, prompts, list(seeds), steps=steps)
        edits.append({name: delta.dense() for name, delta in erasure.deltas.items()})
        pictures.append(drawn)
        verdicts.append(Judge.load().judge(drawn))
    edit = max(float((edits[1][name] - one).norm() / one.norm()) for name, one in edits[0].items())
    picture = float((pictures[0] - pictures[1]).abs().mean())
    pairs = [
        one == other
        for kind in ("objects", "styles", "colours")
        for one, other in zip(getattr(verdicts[0], kind), getattr(verdicts[1], kind), strict=True)
    ]
    judged = sum(pairs) / len(pairs)
    return {
        "edit": edit, "picture": picture, "judged": judged,
        "within": edit <= BOUND_EDIT and picture <= BOUND_PICTURE and judged >= BOUND_JUDGED,
    }  # fmt: skip


def model_of(family: str, setting: Setting, precision: str, whole: bool = False):
    """A pipeline with random weights on the device: in full size, or with layers of a few numbers."""
    torch.manual_seed(0)
    kind = FAMILIES[family]
    if setting.small:
        encoders = tuple(
            replace(one, config={**one.config, **SMALL_TEXT, "projection_dim": 64}) for one in kind.encoders
        )
        unet = {**kind.unet, **SMALL, "cross_attention_dim": 64 * len(encoders)}
        unet["block_out_channels"] = SMALL["block_out_channels"][: len(kind.unet["block_out_channels"])]
        if "transformer_layers_per_block" in unet:
            unet["transformer_layers_per_block"] = 1
            unet["projection_class_embeddings_input_dim"] = 64 + 6 * unet["addition_time_embed_dim"]
        kind = replace(kind, encoders=encoders, unet=unet)
    pipe = pipeline_of(kind, setting.device, PRECISIONS[precision])
    model = from_diffusers(pipe)
    read = {name for entry in model.text_entries().values() for name in entry.weights}
    for name, weight in model.pipe.unet.named_parameters():
        if whole or f"unet.{name}" in read:
            weight.data.uniform_(-0.05, 0.05)
    return model


def closed_form(setting: Setting, family: str, precision: str) -> dict[str, Any]:
    """RECE's seconds and memory for several numbers of concepts, against the floor of its work beside it."""
    model = model_of(family, setting, precision)
    return _against_floor(setting, model, lambda prompts: _encode_bare(model, prompts))


def _encode_bare(model, prompts: Sequence[str]) -> None:
    """Send distinct prompts through the bare text encoders, 32 at a time."""
    text = model._text
    windows, _ = text._windows(list(dict.fromkeys(prompts)))
    for part in windows.unique(dim=0).split(32):
        for module, ids in zip(text._encoders, part.unbind(1), strict=True):
            module(ids.to(model.device))


def transformer(setting: Setting, precision: str) -> dict[str, Any]:
    """The same for the text entry of SD 3: T5-XXL with random weights, and the layer that reads its rows."""
    if precision == "fp16":
        raise NotHere("T5-XXL overflows in float16; it is used in bfloat16 or float32")
    model = RandomT5(setting, PRECISIONS[precision])
    return _against_floor(setting, model, model.encode_bare)


class RandomT5:
    """A ``TextReader``: a T5 encoder with random weights that masks padding, and one layer that reads its rows."""

    def __init__(self, setting: Setting, dtype: torch.dtype):
        from transformers import T5Config, T5EncoderModel

        size = {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 2, "d_kv": 32}
        if not setting.small:
            size = {"d_model": 4096, "d_ff": 10_240, "num_layers": 24, "num_heads": 64, "d_kv": 64}
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(setting.device):
                self.encoder = T5EncoderModel(
                    T5Config(vocab_size=32_128, feed_forward_proj="gated-gelu", **size)
                ).eval()
                self.layer = torch.empty(64 if setting.small else 1536, size["d_model"]).uniform_(-0.05, 0.05)
        finally:
            torch.set_default_dtype(before)
        self.device, self.erasures = setting.device, ()

    def reads(self, prompt: str) -> tuple[int, ...]:
        """Return a token for each word, and the end of text."""
        import zlib

        return (*(2 + zlib.crc32(word.encode()) % 32_000 for word in prompt.casefold().split()), 1)

    def text_entries(self) -> Mapping[str, TextEntry]:
        return {CONTEXT: TextEntry({"unet.context_embedder.weight": self.layer.float()})}

    def text_rows(self, prompts: Sequence[str]) -> list[Mapping[str, tuple[TextRows, ...]]]:
        """Encode prompts of about the same length together; padding is masked, so its rows are not kept."""
        ids = [self.reads(prompt) for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        rows: dict[int, Tensor] = {}
        for places in torch.tensor(order).split(64):
            rows.update(zip(places.tolist(), self._encode([ids[place] for place in places.tolist()]), strict=True))
        return [{CONTEXT: (TextRows(rows[place], max(0, len(ids[place]) - 2)),)} for place in range(len(ids))]

    def encode_bare(self, prompts: Sequence[str]) -> None:
        ids = sorted({self.reads(prompt) for prompt in prompts}, key=len)
        for start in range(0, len(ids), 64):
            self._encode(ids[start : start + 64])

    def _encode(self, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        longest = max(map(len, ids))
        padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], device=self.device)
        hidden = self.encoder(input_ids=padded, attention_mask=(padded != 0).long()).last_hidden_state
        return iter([one[: len(row)] for one, row in zip(hidden, ids, strict=True)])


@torch.no_grad()
def _against_floor(setting: Setting, model, encode_bare: Callable[[Sequence[str]], None]) -> dict[str, Any]:
    """Run RECE for each number of concepts beside its floor: text passes, Gram matrix and changes."""
    found = {}
    rece(model, ["warm up"], RECE["general"])
    for count in setting.counts():
        if time.monotonic() > setting.deadline:
            found[str(count)] = {"not run": "no time was left"}
            continue
        case = Case("sd15", count)
        concepts, runs = case.concepts(), []
        with Peak(setting) as peak:
            began = setting.now()
            erasure = rece(model, concepts, RECE["general"])
            first = setting.now() - began
        for _ in range(3 if count == 1 else 1):
            marks: dict[str, float] = {}

            def note(done: int, total: int, what: str, marks=marks) -> None:
                marks.setdefault(what, setting.now())

            began = setting.now()
            erasure = rece(model, concepts, RECE["general"], callback=note)
            ended = setting.now()
            floor = _floor(setting, model, case, erasure, encode_bare)
            solving = marks["forming the changes"] - marks["erasing"]
            encoding = marks["gathering weights"] - began
            runs.append({"seconds": ended - began, "encode": encoding, "solve": solving, "floor": floor})
        found[str(count)] = {
            "first": first, "megabytes": peak.megabytes, "rank": erasure.rank,
            **{key: median(run[key] for run in runs) for key in ("seconds", "encode", "solve")},
            "floor": {key: median(run["floor"][key] for run in runs) for key in runs[0]["floor"]},
            "ratio": median(run["seconds"] / sum(run["floor"].values()) for run in runs),
        }  # fmt: skip
        del erasure
    return found


def _floor(setting: Setting, model, case: Case, erasure, encode_bare) -> dict[str, float]:
    began = setting.now()
    encode_bare(case.prompts())
    encoded = setting.now()
    pairs = [
        (entry.part(entry.weights[name]), erasure.maps[kind].change.up.to(setting.device))
        for kind, entry in model.text_entries().items()
        for name in entry.weights
    ]
    read = setting.now()
    for weight, _ in pairs:
        weight.T @ weight
    gram = setting.now()
    for weight, up in pairs:
        weight @ up.to(weight)
    done = setting.now()
    return {"encode": encoded - began, "weights": read - encoded, "Gram": gram - read, "deltas": done - gram}


def learned(setting: Setting, method: str, precision: str) -> dict[str, Any]:
    """The second step of a learned method against its bare passes, in seconds and in memory."""
    model = model_of("sd15", setting, precision, whole=True)
    with Peak(setting) as passes:
        floor = median(bare(model, method, setting.now))
    with Peak(setting) as ours:
        try:
            seconds = median(steps_of(model, method, "", setting.now))
        except UnsupportedModelError as error:
            if precision != "fp16":
                raise
            return {"refused": str(error), "floor": floor}
    return {
        "seconds": seconds, "floor": floor, "ratio": seconds / floor, "megabytes": ours.megabytes,
        "floor_megabytes": passes.megabytes, "batch": BATCH[method],
    }  # fmt: skip


def waits(setting: Setting) -> dict[str, Any]:
    """How often RECE reads a number from the device or moves a tensor, for few and for many concepts."""
    model = model_of("sd15", setting, "fp32")
    found: dict[str, Any] = {}
    for count in (8, 40):
        with DeviceCalls() as calls:
            rece(model, Case("sd15", count).concepts(), RECE["general"])
        found[str(count)] = {"reads": calls.reads, "transfers": calls.transfers}
    batches = (40 - 8) // 16 + 1
    for kind in ("reads", "transfers"):
        grown = found["40"][kind] - found["8"][kind]
        if grown > 8 * batches:
            raise RuntimeError(f"32 more concepts took {grown} more {kind}, more than 8 for each batch of 16")
    return found


def repeated(setting: Setting) -> dict[str, Any]:
    """Memory that five more runs leave behind, in bytes: allocated on a GPU, resident on a CPU."""
    model = model_of("sd15", setting, "fp32")

    def left() -> int:
        gc.collect()
        if setting.on_gpu:
            return torch.cuda.memory_allocated(setting.device)
        return int(1e6 * settle())

    kept = []
    for _ in range(7):
        rece(model, ["cat", "dog"], RECE["several"])
        kept.append(left())
    if kept[-1] - kept[1] > (BOUND_REPEATED if setting.on_gpu else BOUND_RESIDENT):
        raise RuntimeError(f"five more runs left {kept[-1] - kept[1]:,} bytes")
    return {"left": kept[-1] - kept[1]}


def pipelines(setting: Setting, kind: str) -> dict[str, Any]:
    """RECE on a compiled or offloaded pipeline of the embedded model, against the plain one."""
    setting.need_gpu(kind)
    pipe = load_pipeline()
    expected = rece(load_toy(), ["cat"], RECE["general"])
    if kind == "torch.compile":
        pipe.to(setting.device)
        pipe.unet, pipe.text_encoder = torch.compile(pipe.unet), torch.compile(pipe.text_encoder)
    elif kind == "model offload":
        pipe.enable_model_cpu_offload(device=setting.device)
    else:
        pipe.enable_sequential_cpu_offload(device=setting.device)
    model = from_diffusers(pipe)
    found = rece(model, ["cat"], RECE["general"])
    edit = max(
        float((found.deltas[name].dense() - one.dense()).norm() / one.dense().norm())
        for name, one in expected.deltas.items()
    )
    with found.applied_to(model):
        pipe("a cat", num_inference_steps=2, height=64, width=64, output_type="np")
    if edit > BOUND_EDIT:
        raise RuntimeError(f"the edit differs by {edit:.2g}, at most {BOUND_EDIT:g}")
    return {"edit": edit}


CHECKS = ("check_toy.py", "check_sd15.py", "check_sdxl.py")


def comfyui(setting: Setting, option: str) -> dict[str, Any]:
    """The checks inside a real ComfyUI on CUDA."""
    if setting.comfyui is None:
        raise NotHere("ComfyUI's tree was not carried; name it with --comfyui")
    setting.need_gpu("ComfyUI on CUDA")
    host = ROOT / "tests" / "host"
    paths = [setting.comfyui, host / "boot", host / "stubs", *(path for path in sys.path if path)]
    environment = {**os.environ, "COMFYUI_DEVICE": "gpu", "COMFYUI_OPTION": option}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command += ["-c", os.devnull, "--rootdir", str(host / "inside"), "--confcutdir", str(host / "inside")]
    command += [str(host / "inside" / one) for one in CHECKS]
    limit = max(10.0, setting.deadline - time.monotonic())
    done = subprocess.run(command, cwd=setting.comfyui, env=environment, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(f"the checks failed: {done.stdout[-2000:]}{done.stderr[-500:]}")
    return {"passed": done.stdout.strip().splitlines()[-1]}


Part = tuple[str, Callable[[Setting], dict[str, Any]]]


def parts() -> list[Part]:
    """All parts by name, the most important first, since time may run out."""
    found: list[Part] = [("toy", toy), ("waits", waits), ("repeated runs", repeated)]
    for family in ("sd15", "sdxl"):
        for precision in PRECISIONS:
            found.append((f"rece, {family}, {precision}", _bound(closed_form, family, precision)))
    found += [(f"rece, T5-XXL, {precision}", _bound(transformer, precision)) for precision in PRECISIONS]
    for kind in ("torch.compile", "model offload", "sequential offload"):
        found.append((kind, _bound(pipelines, kind)))
    for method in METHODS:
        for precision in PRECISIONS:
            found.append((f"step, {method}, {precision}", _bound(learned, method, precision)))
    for option in ("", "--lowvram", "--novram"):
        found.append((f"ComfyUI {option}".strip(), _bound(comfyui, option)))
    return found


def _bound(function: Callable[..., dict[str, Any]], *values: str) -> Callable[[Setting], dict[str, Any]]:
    return lambda setting: function(setting, *values)


@contextmanager
def freed(setting: Setting) -> Iterator[None]:
    """Let go of everything that a part has held."""
    try:
        yield
    finally:
        gc.collect()
        if setting.on_gpu:
            torch.cuda.empty_cache()
