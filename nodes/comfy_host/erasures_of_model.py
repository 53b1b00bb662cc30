"""The erasures that a MODEL carries, read from its patches, so that they are known after clones and merges too."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.weight_adapter

from ...erasure_core import Erasure, LowRank
from ...erasure_core.erasures.low_rank import Delta

Shares = dict[int, tuple[Erasure, float]]
"""By identity, each erasure that a weight has patches of, and how many times."""


class LowRankPatch(comfy.weight_adapter.LoRAAdapter):
    """A LoRA that says which erasure it is of."""

    erasure: Erasure | None = None


class DensePatch(tuple):
    """A patch ``("diff", (change,))`` that knows its erasure."""

    erasure: Erasure | None = None


def patch(delta: Delta, carried: Erasure) -> LowRankPatch | DensePatch:
    """A change as ``add_patches`` takes it; what ``carried`` tells is read again by ``erasures_of``."""
    made: LowRankPatch | DensePatch
    if isinstance(delta, LowRank):
        made = LowRankPatch(set(), (delta.up, delta.down, None, None, None, None))
    else:
        made = DensePatch(("diff", (delta.change,)))
    made.erasure = carried
    return made


def erasures_of(model) -> tuple[Erasure, ...]:
    """Those that this pack's nodes put into a MODEL, as strong as they are there still, without the changes.

    A merge takes each layer's share of the MODELs that it merges; where layers differ the strongest counts.
    """
    strongest: Shares = {}
    for patches in model.patches.values():
        whole, shares = _shares(patches)
        for name, (erasure, share) in shares.items():
            strength = share / whole if whole else share
            if name not in strongest or strength > strongest[name][1]:
                strongest[name] = erasure, strength
    return tuple(erasure.scaled(strength) for erasure, strength in strongest.values() if strength)


def _shares(patches: Sequence[tuple]) -> tuple[float, Shares]:
    """How many times a weight has the weights of checkpoints, and each erasure, after its patches.

    As ``comfy.lora.calculate_weight`` adds them up: a merge patches a weight with another and its patches, as a list.
    """
    whole = 1.0
    shares: Shares = {}
    for strength, value, scale, *_ in patches:
        whole, shares = whole * scale, _times(shares, scale)
        if isinstance(value, list):
            other, more = _shares(value[1:])
            whole, shares = whole + strength * other, _sum(shares, _times(more, strength))
        elif isinstance(value, LowRankPatch | DensePatch) and value.erasure is not None:
            shares = _sum(shares, {id(value.erasure): (value.erasure, strength)})
        elif isinstance(value, tuple) and value[0] == "set":
            whole, shares = 1.0, {}
    return whole, shares


def _times(shares: Shares, factor: float) -> Shares:
    return {name: (erasure, factor * share) for name, (erasure, share) in shares.items()}


def _sum(one: Shares, other: Shares) -> Shares:
    return one | {name: (erasure, share + one.get(name, (erasure, 0.0))[1]) for name, (erasure, share) in other.items()}
