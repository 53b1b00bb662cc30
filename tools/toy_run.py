"""One resumable training run: seeds, checkpoints every few minutes, an averaged copy, a log."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch


class Run:
    """Checkpoints live in ``folder``; ``log`` is a file of JSON lines, appended to.

    A checkpoint holds the optimiser's state and so is a torch file, read back with ``weights_only``.
    """

    def __init__(self, folder: Path, log: Path, seed: int, save_every: float = 120):
        self.folder, self.log_file, self.seed, self.save_every = folder, log, seed, save_every
        folder.mkdir(parents=True, exist_ok=True)
        self.stage, self.seconds, self.ema = "", 0.0, None
        self.generator = torch.Generator()

    def steps(self, stage: str, module, optimiser, total: int, ema: float | None = None) -> Iterator[int]:
        """Count from where the stage stopped to ``total``; after each step keep the average, and save."""
        path = self.folder / f"{stage}.running.pt"
        self.stage, self.seconds, start = stage, 0.0, 0
        self.ema = None if ema is None else copy.deepcopy(module).eval()
        if self.done(stage):
            module.load_state_dict(self.load(stage))
            return
        if path.exists():
            state = self._read(path)
            start, self.seconds = state["step"], state["seconds"]
            module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
            if ema is not None:
                self.ema.load_state_dict(state["ema"])
        torch.manual_seed(self.seed + start)
        self.generator.manual_seed(self.seed * 1_000_003 + start)
        began, saved, before = time.monotonic(), time.monotonic(), self.seconds
        for step in range(start + 1, total + 1):
            yield step
            if ema is not None:
                self._average(module, min(ema, step / (step + 10)))
            self.seconds = before + time.monotonic() - began
            if time.monotonic() - saved > self.save_every or step == total:
                saved = time.monotonic()
                state = {"step": step, "seconds": self.seconds, "module": module.state_dict()}
                state["optimiser"] = optimiser.state_dict()
                state["ema"] = None if ema is None else self.ema.state_dict()
                self._write(path, state)

    def averaged(self, module):
        return module if self.ema is None else self.ema

    @torch.no_grad()
    def _average(self, module, keep: float) -> None:
        for kept, new in zip(self.ema.parameters(), module.parameters(), strict=True):
            kept.lerp_(new, 1 - keep)

    def done(self, stage: str) -> bool:
        return (self.folder / f"{stage}.pt").exists()

    def finish(self, stage: str, module) -> None:
        """Put the average in the module and write it, once."""
        if self.done(stage):
            return
        if self.ema is not None:
            module.load_state_dict(self.ema.state_dict())
        self.save(stage, module)

    def save(self, stage: str, module) -> None:
        self._write(self.folder / f"{stage}.pt", module.state_dict())

    def load(self, stage: str) -> dict:
        return self._read(self.folder / f"{stage}.pt")

    def begun(self, stage: str) -> bool:
        return (self.folder / f"{stage}.running.pt").exists()

    def average(self, stage: str) -> dict:
        """The averaged weights of a stage that has not ended."""
        return self._read(self.folder / f"{stage}.running.pt")["ema"]

    def log(self, **values) -> None:
        row = {"stage": self.stage, "seconds": round(self.seconds), **values}
        row = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
        with self.log_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    @staticmethod
    def _read(path: Path):
        return torch.load(path, weights_only=True)

    @staticmethod
    def _write(path: Path, value) -> None:
        partial = path.with_suffix(".partial")
        torch.save(value, partial)
        partial.replace(path)
