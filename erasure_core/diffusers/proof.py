"""A check that a layer computes with its changed weight: rows are sent through it in the way that the model does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..model import UnsupportedModelError
from .weight_slots import Slot, device_of

COARSEST = 2**-11
"""The relative rounding error of a product in TensorFloat-32, in which GPUs may multiply float32."""


def can_be_proven(slot: Slot) -> bool:
    """Return whether ``slot`` is the weight of a linear layer, which is what can be checked."""
    return slot.leaf == "weight" and isinstance(slot.owner, nn.Linear)


def prove_held(name: str, slot: Slot, old: Tensor) -> None:
    """Raise ``UnsupportedModelError`` unless a layer computes with the value in its slot, in place of another.

    ``name`` is what the message calls the weight, ``slot`` holds its new value, and ``old`` is the value before, of the
    same shape ``[out, in]``.
    """
    new = slot.value
    rows = _most_changed(old, new)
    after = _output(slot, rows)
    with slot.holding(old):
        before = _output(slot, rows)
    _check(name, rows, (old, new), (before, after))


def prove_replaced(name: str, slot: Slot, stand_ins: Mapping[str, Tensor]) -> None:
    """Do the same for a ``functional_call``.

    ``name`` is what the message calls the weight and ``slot`` holds its old value. ``stand_ins`` are the weights of the
    call by their paths within the part of the pipeline; that of the slot is among them.
    """
    old, new = slot.value, stand_ins[slot.path]
    rows = _most_changed(old, new)
    _check(name, rows, (old, new), (_output(slot, rows), _output(slot, rows, stand_ins)))


def _check(name: str, rows: Tensor, weights: tuple[Tensor, Tensor], outputs: tuple) -> None:
    """Raise an error unless the outputs for ``rows`` changed as the weights did, within the outputs' precision."""
    before, after = outputs
    if before is not None and after is not None:
        old, new = (weight.detach().double().cpu() for weight in weights)
        expected = rows @ (new - old).T
        rounding = 4 * max(torch.finfo(after.dtype).eps, COARSEST) * float(after.double().norm())
        if float((after.double() - before.double() - expected).norm()) <= max(rounding, 0.1 * float(expected.norm())):
            return
    raise UnsupportedModelError(
        f"{name} was changed, but the model does not compute with it; undo what was done to the pipeline since it was "
        "loaded (its attention processors, compiled or fused layers) and erase again"
    )


@torch.no_grad()
def _most_changed(old: Tensor, new: Tensor) -> Tensor:
    """Return a row ``[1, in]`` that the change of a weight affects strongly, of the size of a normalised one."""
    change = new.detach().double().cpu() - old.detach().double().cpu()
    direction = torch.randn(len(change), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    row = (direction @ change @ change.T @ change)[None]
    if not bool(row.any()):
        row = torch.ones_like(row)
    return (row * row.shape[1] ** 0.5 / row.norm()).to(old.dtype).double()


@torch.no_grad()
def _output(slot: Slot, rows: Tensor, stand_ins: Mapping[str, Tensor] | None = None) -> Tensor | None:
    """Return the layer's output for ``rows`` when its attention is called; ``None`` if that skips the layer."""
    outputs: list[Tensor] = []
    handle = slot.layer.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    caller = slot.owner if slot.attention is None else slot.attention
    arguments, named = _arguments(slot, rows)
    try:
        if stand_ins is None:
            caller(*arguments, **named)
        else:
            prefix = f"{slot.caller_path}."
            inside = {path.removeprefix(prefix): one for path, one in stand_ins.items() if path.startswith(prefix)}
            functional_call(caller, inside, arguments, named)
    finally:
        handle.remove()
    return outputs[0][..., slot.rows].reshape(1, -1).cpu() if outputs else None


def _arguments(slot: Slot, rows: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Return the arguments with which the attention, or the layer itself, makes the layer read ``rows``."""
    rows = rows.to(device_of(slot.owner), slot.value.dtype)[None]
    attention: Any = slot.attention
    if ".attn2." not in f".{slot.path}" or attention is None:
        return (rows,), {}
    if ".to_q." in slot.path:
        return (rows,), {"encoder_hidden_states": rows.new_zeros(1, 1, attention.to_k.in_features)}
    return (rows.new_zeros(1, 1, attention.to_q.in_features),), {"encoder_hidden_states": rows}
