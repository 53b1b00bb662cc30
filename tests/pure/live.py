"""Counts the tensors that are alive, to see that what has been done leaves none behind."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace

import torch
from pure.test_methods import concept_of, given

from erasure_core import Erasure
from erasure_core.methods import METHODS

FEW = 2  # steps, pictures and whatever else presets count


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


def small_run(name: str, model, images: torch.Tensor, **more) -> Erasure:
    """An entry of METHODS in as few steps as it gets, with all that it may take."""
    method = METHODS[name]
    preset = next(iter(method.toy_presets.values()))
    few = {one: min(value, FEW) for one, value in vars(preset).items() if type(value) is int}
    settings = replace(preset, **few | ({"warm_up": 0.4} if hasattr(preset, "warm_up") else {}))
    inputs = {one: values[0] for one, values in given(method).items()}
    largest = {"images": images, "gradient_checkpointing": True}
    inputs |= {one: value for one, value in largest.items() if one in inputs}
    return method.run(model, concept_of(name), settings, **inputs | more)
