"""What each way of erasing costs at the shapes of Stable Diffusion 1.5, with random weights, all in one process."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

from cases import Case
from families import full_size_model
from measure import now, settle, status
from peer_clones import Request, oce
from peer_effects import ways

FAMILY = "sd15"
COUNTS = (1, 10, 100)
ROUNDS = {1: 3, 10: 2, 100: 1}
ONCE = ("official RECE", "AdaVD")
"""With one concept only, and once: the first takes hours with a hundred; AdaVD records all concepts in one pass, whose
attention alone takes a gigabyte for each."""
LEFT_OUT = ("UCE, expand_prompts", "OCE, scale / 3", "OCE, scale x 3", "AdaVD, token_sim")


def jobs(clones: Mapping[str, Path]) -> list[dict]:
    """All ways after one another in each round, so that what else the machine does falls on all of them."""
    every = [way for way in ways(clones) if way not in LEFT_OUT]
    rounds = [(count, number) for count in COUNTS for number in range(ROUNDS[count])]
    usual = [(way, count, number) for count, number in rounds for way in every if way not in ONCE]
    return [
        {"way": way, "concepts": count, "round": number}
        for way, count, number in [*usual, *((way, 1, 0) for way in every if way in ONCE)]
    ]


def measure(clones: Mapping[str, Path], way: str, count: int) -> dict[str, float]:
    """Seconds, and megabytes at the peak beyond the loaded model and what its way has loaded."""
    clone, load = ways(clones)[way]
    if way == "OCE":  # its statistics, which are made once for a model, do not count
        load = partial(oce, captions=8)
    pipe = _pipe(whole=way == "AdaVD")
    if way in ONCE:  # these change what they are given
        pipe = copy.copy(pipe)
        pipe.unet = copy.deepcopy(pipe.unet)
    erase = load(clone, pipe)
    asked = Request(tuple(concept.name for concept in Case(FAMILY, count).concepts()), "object")
    before = settle()
    began = now()
    edited = erase(asked)
    seconds = now() - began
    del edited
    return {"seconds": seconds, "megabytes": status("VmHWM") - before}


@lru_cache(maxsize=1)
def _pipe(whole: bool):
    return full_size_model(FAMILY, whole=whole).pipe


def warm_up(clones: Mapping[str, Path]) -> None:
    """Let libraries take the time and memory of their first use."""
    way = next(iter(ways(clones)))
    measure(clones, way, 1)
