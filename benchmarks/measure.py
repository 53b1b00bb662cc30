"""Clocks and memory of this process, and what it runs on. Linux only."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

from erasure_core.closed_form.collect import ENCODING
from erasure_core.methods.rece import ERASING, FORMING, GATHERING

ROOT = Path(__file__).resolve().parent.parent


def now() -> float:
    """Seconds: of the wall clock, or with a single thread of processor time, which a shared core leaves alone."""
    return time.perf_counter() if torch.get_num_threads() > 1 else time.process_time()


def settle() -> float:
    """Let go of what is free and forget the peak; returns the resident memory in megabytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(field: str) -> float:
    """A field of /proc/self/status in megabytes (10^6)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":")]
    return int(line.split()[1]) * 1024 / 1e6


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' if count > 1 else ''}"
    return f"{cpu}, {threads} of {os.cpu_count()} cores, no GPU; torch {torch.__version__}, {platform.system()}"


def revision() -> str:
    """The last commit that touched the library."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", "erasure_core"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Phases:
    """A callback for ``rece`` that adds up the seconds of its phases; other reports belong to the phase before."""

    NAMES = {ENCODING: "encode", GATHERING: "Gram", ERASING: "maps", FORMING: "deltas"}

    def __init__(self):
        self.seconds = dict.fromkeys(self.NAMES.values(), 0.0)
        self._phase, self._since = "encode", now()

    def __call__(self, done: int, total: int, what: str) -> None:
        moment = now()
        self.seconds[self._phase] += moment - self._since
        self._since = moment
        self._phase = self.NAMES.get(what, self._phase)


class EncoderPasses:
    """The seconds of the bare passes through a pipeline's text encoders inside a ``with`` block, and of how many rows.

    A prompt is one row, however many encoders read it.
    """

    def __init__(self, pipe):
        found = (getattr(pipe, part, None) for part in ("text_encoder", "text_encoder_2"))
        self._encoders = [encoder for encoder in found if encoder is not None]
        self.seconds, self.rows = 0.0, 0

    def __enter__(self) -> EncoderPasses:
        self._hooks = [encoder.register_forward_pre_hook(self._begin) for encoder in self._encoders]
        self._hooks += [encoder.register_forward_hook(self._end) for encoder in self._encoders]
        return self

    def __exit__(self, *failure) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, encoder, given) -> None:
        self._since = now()

    def _end(self, encoder, given, output) -> None:
        self.seconds += now() - self._since
        if encoder is self._encoders[0]:
            self.rows += len(output[0])
