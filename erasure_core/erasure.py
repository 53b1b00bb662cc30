"""The result of every method: named changes of weights, and what made them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .closed_form import LowRank
from .concepts import Concept
from .model import TextToImageModel, fingerprint

__version__ = "0.1.0"


@dataclass(frozen=True)
class Dense:
    """A change of a weight of any shape, stored whole."""

    change: Tensor

    def dense(self) -> Tensor:
        return self.change


Delta = LowRank | Dense


@dataclass(frozen=True)
class Origin:
    """What made an erasure."""

    method: str
    concepts: tuple[Concept, ...]
    settings: Mapping[str, Any]
    fingerprint: str
    """Of the cross-attention weights that it was computed on."""
    version: str = __version__
    losses: tuple[float, ...] = ()
    """One a training step, where the method trains."""


@dataclass(frozen=True)
class Erasure:
    """Changes to weights, by the weight's name; nothing in it refers to a model.

    ``context_map`` is the ``E`` of ``W' = W (I + E)`` where a closed form made the erasure: with it the same erasure
    can be had for any model that shares the text encoder. ``error`` is the relative Frobenius error that
    compression has left, 0 for none.
    """

    deltas: Mapping[str, Delta]
    origins: tuple[Origin, ...]
    context_map: LowRank | None = None
    error: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", MappingProxyType(dict(self.deltas)))

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return tuple(concept for origin in self.origins for concept in origin.concepts)

    @property
    def rank(self) -> int:
        """The largest rank of a low-rank change, 0 when all are dense."""
        return max((delta.rank for delta in self.deltas.values() if isinstance(delta, LowRank)), default=0)

    def scaled(self, strength: float) -> Erasure:
        """The same erasure, ``strength`` times as strong."""
        if not math.isfinite(strength):
            raise ValueError(f"strength must be a finite number, got {strength}")
        deltas = {name: _scaled(delta, strength) for name, delta in self.deltas.items()}
        context_map = self.context_map and _scaled(self.context_map, strength)
        return replace(self, deltas=deltas, context_map=context_map)

    def __add__(self, other: Erasure) -> Erasure:
        """Both changes at once. What each was computed on stays in ``origins``.

        Two erasures computed on the same model are added as they are; to erase the second on top of the first, compute
        it on the model that has the first.
        """
        if not isinstance(other, Erasure):
            return NotImplemented
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = _sum(name, deltas[name], delta) if name in deltas else delta
        both = self.context_map and other.context_map
        context_map = _sum("context_map", self.context_map, other.context_map) if both else None
        return Erasure(deltas, self.origins + other.origins, context_map, max(self.error, other.error))

    def compressed(self, *, max_rank: int | None = None, tolerance: float = 0.0) -> Erasure:
        """The best approximation of rank at most ``max_rank``, or with a relative error of at most ``tolerance``.

        ``error`` of the result says what was lost. Changes that share one ``down`` still do.
        """
        if max_rank is not None and max_rank < 1:
            raise ValueError(f"max_rank must be at least 1, got {max_rank}")
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance must be from 0 to less than 1, got {tolerance}")
        if self.context_map is not None:
            deltas, context_map = self._compressed_together(tolerance, max_rank)
        else:
            deltas = {name: _compressed(delta, tolerance, max_rank) for name, delta in self.deltas.items()}
            context_map = None
        lost = sum(float((deltas[n].dense() - d.dense()).square().sum()) for n, d in self.deltas.items())
        whole = sum(float(d.dense().square().sum()) for d in self.deltas.values())
        error = (lost / whole) ** 0.5 if whole else 0.0
        return replace(self, deltas=deltas, context_map=context_map, error=max(self.error, error))

    def _compressed_together(self, tolerance: float, max_rank: int | None):
        """All layers at once: the best shared ``down`` for the changes stacked on one another."""
        names = list(self.deltas)
        stack = LowRank(torch.cat([self.deltas[name].up.double() for name in names]), self.context_map.down.double())
        best = stack.recompressed(tolerance, max_rank)
        turn = stack.down @ best.down.T
        down = best.down.to(self.context_map.down.dtype)

        def turned(up: Tensor) -> LowRank:
            return LowRank((up.double() @ turn).to(up.dtype), down)

        return {name: turned(self.deltas[name].up) for name in names}, turned(self.context_map.up)

    @contextmanager
    def applied_to(self, model: TextToImageModel) -> Iterator[TextToImageModel]:
        """The model with this erasure inside a ``with`` block; as it was afterwards, whatever happens in it."""
        with model.patched({name: delta.dense() for name, delta in self.deltas.items()}):
            yield model

    def over(self, model: TextToImageModel) -> TextToImageModel:
        """A view of ``model`` with this erasure, beside the model itself; its passes are differentiable.

        Raises what ``model.with_weights`` raises, among others for weights in float16.
        """
        changed = {}
        for scope in ("unet", "text_encoder"):
            own = model.weights_of(scope)
            for name in [name for name in self.deltas if name.startswith(f"{scope}.")]:
                delta = self.deltas[name].dense()
                if name not in own or own[name].shape != delta.shape:
                    shape = tuple(delta.shape)
                    raise ValueError(f"the erasure changes {name} as {shape}; it was made for another model")
                changed[name] = own[name] + delta.to(own[name])
        return model.with_weights(changed)

    def rebased_on(self, model: TextToImageModel) -> Erasure:
        """The same erasure for another model with the same text encoder.

        Raises ``ValueError`` when no closed form made this erasure, or the model's context has another width.
        """
        if self.context_map is None:
            made = ", ".join(origin.method for origin in self.origins)
            raise ValueError(f"an erasure made by {made} keeps no context map and cannot be rebased; make it anew")
        width = self.context_map.down.shape[1]
        if width != model.context_dim:
            raise ValueError(f"the erasure is for contexts {width} wide, the model reads {model.context_dim}")
        weights = model.cross_attention_weights()
        made_on = fingerprint(weights)
        origins = tuple(replace(origin, fingerprint=made_on) for origin in self.origins)
        return Erasure(deltas_of(self.context_map, weights), origins, self.context_map, self.error)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a safetensors file that stock LoRA loaders read; see ``files.save``."""
        from .files import save

        return save(self, path, overwrite=overwrite)

    @staticmethod
    def load(path: str | Path) -> Erasure:
        """Read a file that ``save`` wrote; see ``files.load``."""
        from .files import load

        return load(path)


def deltas_of(context_map: LowRank, weights: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """``W E`` for every weight as a low-rank change in float32 with one shared ``down``."""
    down = context_map.down.float()
    deltas: dict[str, LowRank] = {}
    for name, weight in weights.items():
        up = context_map.up.to(weight.device, weight.dtype)
        deltas[name] = LowRank((weight @ up).float().cpu(), down)
    return deltas


def _scaled(delta: Delta, strength: float) -> Delta:
    if isinstance(delta, LowRank):
        return LowRank(delta.up * strength, delta.down)
    return Dense(delta.change * strength)


def _sum(name: str, one: Delta, other: Delta) -> Delta:
    shapes = [tuple(delta.dense().shape) if isinstance(delta, Dense) else _shape(delta) for delta in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"these erasures are for different models: {name} is {shapes[0]} in one, {shapes[1]} in the other"
        )
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        return LowRank(torch.cat([one.up, other.up], 1), torch.cat([one.down, other.down]))
    return Dense(one.dense() + other.dense())


def _shape(delta: LowRank) -> tuple[int, int]:
    return delta.up.shape[0], delta.down.shape[1]


def _compressed(delta: Delta, tolerance: float, max_rank: int | None) -> Delta:
    """A low-rank change; a dense one only where that makes it smaller, biases and convolutions not at all."""
    if isinstance(delta, Dense):
        change = delta.change
        if change.ndim != 2:
            return delta
        whole = LowRank(change.double(), torch.eye(change.shape[1], dtype=torch.float64))
    else:
        whole = LowRank(delta.up.double(), delta.down.double())
    best = whole.recompressed(tolerance, max_rank)
    small = LowRank(best.up.float(), best.down.float())
    if isinstance(delta, Dense) and small.rank * sum(delta.change.shape) >= delta.change.numel():
        return delta
    return small
