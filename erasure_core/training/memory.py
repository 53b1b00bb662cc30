"""Estimating the memory that training needs beyond the model, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..conditioning import Conditioning
from ..model import Callback, DiffusionModel
from .loop import TrainingError

ADAM = 4  # numbers for each trained weight: itself, its gradient, and Adam's two moments
SIDES = (8, 16)  # height and width of the small latents on which passes are counted
GB = 1e9
Forward = Callable[[int, int], Tensor]
"""A function that makes a pass with its graph, on latents of a given height and width."""


class OutOfRoomError(TrainingError):
    """Less memory is free than training needs beyond the model, so it was not begun; ``needed`` is in bytes."""

    def __init__(self, needed: float, message: str):
        super().__init__(message)
        self.needed = needed


def check_room(
    what: str,
    model: DiffusionModel,
    parameters: Sequence[Tensor],
    conditioning: Conditioning,
    size: Sequence[int],
    latents: int,
    callback: Callback | None = None,
) -> None:
    """Report how much memory training needs and how much is free; raise ``OutOfRoomError`` if that is too little.

    ``what`` names the training in messages. ``parameters`` are the trained weights, of ``model`` or of what computes
    the ``conditioning`` of one prompt. ``size`` is a shape that ends in the height and width of the latents, and
    ``latents`` is how many of them are in memory at once, at least 1. ``callback`` gets the report. Where the free
    memory is unknown, nothing is raised.
    """
    trained = ADAM * sum(weight.numel() * weight.element_size() for weight in parameters)
    needed = trained + latents * activation_bytes_at(_one_pass(model, conditioning), *size[-2:])
    free = model.free_memory()
    free_text = "" if free is None else f", {free / GB:.1f} GB are free"
    if callback:
        callback(0, 1, f"{what} needs about {needed / GB:.1f} GB beyond the model{free_text}")
    if free is not None and needed > free:
        raise OutOfRoomError(
            needed,
            f"{what} needs about {needed / GB:.1f} GB beyond the model and {free / GB:.1f} GB are free; nothing was "
            "begun. Set a rank, a smaller batch_size or gradient_checkpointing, or free memory",
        )


def _one_pass(model: DiffusionModel, conditioning: Conditioning) -> Forward:
    channels, device = model.latent_shape()[0], model.device

    def forward(height: int, width: int) -> Tensor:
        latents = torch.zeros(1, channels, height, width, device=device)
        return model.predict_noise(latents, torch.ones(1, dtype=torch.long, device=device), conditioning)

    return forward


def activation_bytes_at(forward: Forward, height: int, width: int) -> float:
    """Return the bytes of activations that a pass on latents of ``height`` and ``width`` keeps for its backward pass.

    They are extrapolated from two small sizes, in proportion to the area. This is right if attention keeps no matrix
    of its weights, as PyTorch's own attention does not.
    """
    if max(height, width) <= max(SIDES):
        return activation_bytes(lambda: forward(height, width))
    few, many = (activation_bytes(partial(forward, side, side)) for side in SIDES)
    small, large = (side**2 for side in SIDES)
    return few + (many - few) * (height * width - small) / (large - small)


def activation_bytes(forward: Callable[[], Tensor]) -> int:
    """Return the bytes of activations that autograd keeps for a backward pass of ``forward``.

    Each storage counts once; weights and inputs, which are there anyway, do not count.
    """
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        whole = tensor if tensor._base is None else tensor._base  # a layer keeps a view of its weight
        if not whole.is_leaf:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it, for good

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, _never_read):
        output = forward()
    del output
    return sum(storages.values())


def _never_read(tensor: Tensor) -> Tensor:
    raise RuntimeError("what autograd keeps was only to be counted; no backward pass reads it")
