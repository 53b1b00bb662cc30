"""What each way of erasing does to the embedded model: the same captions, noise and judge for all."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from peer_clones import PEERS, STEPS, Edited, Erase, Load, Request

from erasure_core import Concept, from_diffusers
from erasure_core import rece as our_rece
from erasure_core.methods.rece import PUBLISHED, RECE, ReceSettings
from erasure_core.toy import COLOURS, OBJECTS, STYLES, Judge, load_pipeline
from erasure_core.toy.evaluation import CROSS, accuracy, deal, draw

OURS = {"general": "ours, general", "several": "ours, several", "published": "ours, published"}
UNEDITED = "unedited"
COLUMNS = ("UA", "IRA", "CRA", "colour")
PICTURES = 24, 24  # of the erased concepts, and of the others
TWENTY, SEED = 20, 100
NOTHING, HALF = "nothing", "half"
TAKE_NO_LIST = ("AdaVD", "AdaVD, token_sim")
VARIANTS = {
    "many": ("ours, published", "UCE, expand_prompts", "AdaVD, token_sim"),
    "single": ("ours, several", "UCE, expand_prompts", "OCE, scale / 3", "OCE, scale x 3", "AdaVD, token_sim"),
}
"""What is measured last, of many concepts and of one."""


def twenty(name: str) -> tuple[str, ...]:
    return tuple(random.Random(f"peers/{name}").sample(OBJECTS, TWENTY))


def group_of(names: Sequence[str]) -> str:
    """``object`` or ``style``, or ``many`` for several names."""
    return "many" if len(names) > 1 else kind_of(names)


def kind_of(names: Sequence[str]) -> str:
    return "style" if names[0] in STYLES else "object"


def request(names: tuple[str, ...], listed: str = NOTHING) -> Request:
    """With half listed, every second of the model's other concepts of the same kind is preserved."""
    kind = kind_of(names)
    others = [name for name in (STYLES if kind == "style" else OBJECTS) if name not in names]
    return Request(names, kind, tuple(others[::2]) if listed == HALF else ())


def ours(preset: str, clone: Path | None, pipe) -> Erase:
    """A way of erasing like those of ``PEERS``."""
    model = from_diffusers(pipe)

    def erase(asked: Request) -> Edited:
        settings: ReceSettings = PUBLISHED[asked.kind] if preset == "published" else RECE[preset]
        erasure = our_rece(model, [Concept(name) for name in asked.names], settings, preserve=asked.preserve)
        return lambda: erasure.over(model)

    return erase


def unedited(clone: Path | None, pipe) -> Erase:
    return lambda asked: lambda: from_diffusers(pipe)


def ways(clones: Mapping[str, Path]) -> dict[str, tuple[Path | None, Load]]:
    """By name, each with its clone: ours first, then those of the clones that are there."""
    found: dict[str, tuple] = {title: (None, partial(ours, preset)) for preset, title in OURS.items()}
    for name, clone in clones.items():
        found |= {title: (clone, load) for title, load in PEERS[name].ways.items()}
    return found


def cases() -> list[tuple[tuple[str, ...], str]]:
    """What is erased at once, and what is listed: styles and objects by turns, and sets of twenty."""
    many = twenty("1")
    order: list[tuple[str, ...]] = [("twemoji",), many, ("dog",), ("blob",), ("penguin",), ("fluent",), ("rose",)]
    return [*((names, NOTHING) for names in order), (many, HALF)]


def variants(names: Sequence[str]) -> tuple[str, ...]:
    return VARIANTS["many" if len(names) > 1 else "single"]


def jobs(clones: Mapping[str, Path]) -> list[dict]:
    """Each case by all ways, and then the variants of ways in each case."""
    every = [
        (way, names, listed)
        for names, listed in cases()
        for way in (UNEDITED, *ways(clones))
        if listed == NOTHING or way not in TAKE_NO_LIST
    ]
    last = [one for one in every if one[0] in variants(one[1])]
    first = [one for one in every if one not in last]
    return [{"way": way, "erased": list(names), "listed": listed} for way, names, listed in [*first, *last]]


def measure(judge: Judge, clones: Mapping[str, Path], job: dict) -> dict[str, float]:
    """UA, IRA, CRA and colour as shares."""
    names = tuple(job["erased"])
    clone, load = {UNEDITED: (None, unedited), **ways(clones)}[job["way"]]
    model = load(clone, load_pipeline())(request(names, job["listed"]))()
    kind, (erased, others) = kind_of(names), PICTURES
    every = {"object": OBJECTS, "style": STYLES, "colour": tuple(COLOURS)}
    rest = {**every, kind: tuple(name for name in every[kind] if name not in names)}
    cards = random.Random(f"peers/{names[0]}")
    captions = [*deal({**rest, kind: names}, erased, cards), *deal(rest, others, cards)]
    gallery, after = draw(model, judge, captions, seed=SEED, steps=STEPS), range(erased, erased + others)
    return {
        "UA": 1 - accuracy(gallery, kind, range(erased)), "IRA": accuracy(gallery, kind, after),
        "CRA": accuracy(gallery, CROSS[kind], after), "colour": accuracy(gallery, "colour", after),
    }  # fmt: skip
