"""The erasures that a MODEL carries, read from its patches, so that they are known after clones and merges too."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.weight_adapter

from ...erasure_core import Erasure, LowRank
from ...erasure_core.erasures.low_rank import Delta

Shares = dict[int, tuple[Erasure, float]]
"""Each erasure that a weight has patches of, by its identity, and its total strength there."""


class LowRankPatch(comfy.weight_adapter.LoRAAdapter):
    """A LoRA that knows of which erasure it is a part; ``None`` for any other LoRA."""

    erasure: Erasure | None = None


class DensePatch(tuple):
    """A patch ``("diff", (change,))`` that knows of which erasure it is a part."""

    erasure: Erasure | None = None


def patch(delta: Delta, record: Erasure) -> LowRankPatch | DensePatch:
    """Return the change of one weight as a patch for ``ModelPatcher.add_patches``.

    ``record`` is the erasure that the change is a part of, as ``Erasure.carried`` returns it; ``erasures_of`` reads it
    from the patch again.
    """
    adapter: LowRankPatch | DensePatch
    if isinstance(delta, LowRank):
        adapter = LowRankPatch(set(), (delta.up, delta.down, None, None, None, None))
    else:
        adapter = DensePatch(("diff", (delta.change,)))
    adapter.erasure = record
    return adapter


def erasures_of(model) -> tuple[Erasure, ...]:
    """Return the erasures that this pack's nodes put into a MODEL, or into the patcher of a CLIP.

    Each is a record without changes, as strong as it still is there. A node that merges MODELs takes a share of each of
    them for every layer; where the shares of layers differ, the largest counts.
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
    """Return the sum of the shares of checkpoints in a weight with these ``patches``, and the strength of each erasure.

    They are added up as by ``comfy.lora.calculate_weight``: a merge patches a weight with that of another MODEL and its
    patches, as a list.
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
