"""Counts the tensors that are alive, to see that what has been done leaves none behind."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import fields, replace

import torch

from erasure_core import Erasure
from erasure_core.methods import METHODS

SMALL = {"steps": 2, "loops": 2, "batch_size": 2, "trajectories": 2, "sampling_steps": 2, "warm_up": 0.4}


def alive() -> tuple[int, int]:
    """How many tensors the garbage collector knows, and the bytes of their storages."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return len(tensors), sum(storages.values())


def leaves_nothing(act: Callable[[], object], repeats: int = 3) -> None:
    """Fails when ``act``, repeated after a warm-up, leaves more tensors alive than before."""
    gc.collect()
    gc.freeze()  # what is there already need not be looked through again and again, in later tests neither
    act()
    before = alive()
    for _ in range(repeats):
        act()
    after = alive()
    more, larger = after[0] - before[0], after[1] - before[1]
    assert more <= 0 and larger <= 0, f"{more} tensors and {larger} bytes were left alive by {repeats} repeats"


def small_run(method: str, model, images: torch.Tensor, **more) -> Erasure:
    """An entry of METHODS in as few steps as it gets, with all that it may take."""
    found = METHODS[method]
    preset = next(iter(found.toy_presets.values()))
    settings = replace(preset, **{name: value for name, value in SMALL.items() if hasattr(preset, name)})
    taken = [one.name for kind in found.takes for one in fields(kind)]
    extra = {"preserve": ["fish"], "exactly": ["bird"], "images": images, "gradient_checkpointing": True}
    inputs = {name: value for name, value in extra.items() if name in taken}
    return found.run(model, "cat" if method == "few_shot" else "cat -> dog", settings, **inputs | more)
