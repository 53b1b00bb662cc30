"""Erasing again and again in one ComfyUI: its memory does not grow."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from comfy_server import ComfyServer
from test_learned_nodes import METHOD, prompt_of

NODES = ("ErasureFewShot", "ErasureDoCo", "ErasureAbO")
WARM_UP, RUNS = 9, 30
MOST = 1.0  # megabytes a run: 0.1 was measured, and 6.6 where each training left its forward graph behind


def training(node: str, seed: int) -> dict[str, Any]:
    """One node's training on four steps of noise, without pictures before or after."""
    prompt = prompt_of(node, seed=seed)
    kept = {"2", "5", METHOD, "62"} | ({"8", "7", "3", "4"} & set(prompt))
    return {name: body for name, body in prompt.items() if name in kept}


def test_memory_over_thirty_trainings(comfy_path: Path, tmp_path: Path) -> None:
    with ComfyServer(comfy_path, tmp_path) as server:
        seen = []
        for seed, node in zip(range(WARM_UP + RUNS), cycle(NODES), strict=False):
            server.queue(training(node, seed))
            seen.append(server.megabytes())
    found = seen[WARM_UP:]
    growth = np.polyfit(range(len(found)), found, 1)[0]
    assert growth < MOST, f"{growth:.1f} MB a run: {[round(one) for one in found]}"
