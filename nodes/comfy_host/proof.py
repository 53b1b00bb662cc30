"""A check, after erasures are added as patches, that ComfyUI computes with the changed weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ...erasure_core import LowRank, UnsupportedModelError
from ...erasure_core.erasures.low_rank import Delta
from .weights import stored

OFF, ROUNDED = 0.01, 1e-6  # of the change, and of the weight, that float32 may lose


@torch.no_grad()
def check_acts(before, after, key: str, delta: Delta, strength: float, what: str) -> None:
    """Raise ``UnsupportedModelError`` unless ComfyUI computes with one changed weight as it should.

    ``before`` and ``after`` are the patchers of a MODEL or CLIP (``what``) without and with the change ``delta`` of the
    weight ``key``, as a patch of this ``strength``. One row is multiplied by the weight of each, with its patches as
    ComfyUI adds them up, and the layer that holds the weight must be the one that computes. Raises ``ValueError`` for a
    change that is not finite.
    """
    _check_in_place(after, key, what)
    row = _test_row(delta)
    weight, changed = (stored(patcher, key).merged(torch.device("cpu")) for patcher in (before, after))
    actual, expected = _through(changed - weight, row), strength * _response(delta, row)
    if not expected.isfinite().all():
        raise ValueError(f"the erasure changes {key} of {what} by what is not a finite number; make it anew")
    off = float((actual - expected).norm())
    if not off <= OFF * float(expected.norm()) + ROUNDED * float(weight.norm() * row.norm()):
        raise UnsupportedModelError(
            f"the erasure would not act as it should on {key} of {what}: ComfyUI's patches change what it gives by "
            f"{float(actual.norm()):.3g}, not by {float(expected.norm()):.3g}; its log, or another pack, may tell why"
        )


def _check_in_place(patcher, key: str, what: str) -> None:
    layer = stored(patcher, key).layer
    for place, other in patcher.object_patches.items():
        within = isinstance(other, torch.nn.Module) and any(module is layer for module in other.modules())
        if f"{key}.".startswith(f"{place}.") and not within:
            raise UnsupportedModelError(
                f"another node has put a module of its own in the place of {place} of {what}, which patches do not "
                f"reach, so the erasure would not act; connect a {what} without it"
            )


def _test_row(delta: Delta) -> Tensor:
    """Return a row, ``[in]``, that the change acts on."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(delta, LowRank):
        return delta.down.float().T @ torch.randn(delta.rank, generator=generator)
    return torch.randn(delta.change[0].numel(), generator=generator)


def _response(delta: Delta, row: Tensor) -> Tensor:
    if isinstance(delta, LowRank):
        return delta.up.float() @ (delta.down.float() @ row)
    return _through(delta.change.float(), row)


def _through(weight: Tensor, row: Tensor) -> Tensor:
    return weight.reshape(len(weight), -1) @ row
