"""The result of every method: named changes of weights, and what made them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..arguments import checked
from ..concepts.names import key
from ..concepts.parse import Concept
from ..model import (
    DiffusionModel,
    LazyWeights,
    TextEntry,
    TextReader,
    UnsupportedModelError,
    entry_weights,
    fingerprint,
)
from ..quoting import quoted
from . import erasure_file
from .low_rank import Delta, Dense, LowRank
from .record import ContextMap, ErasureRecord

SCOPES = ("unet", "text_encoder")
AT_ONCE = 2**24  # numbers of a product of factors
MOST_BYTES = 2**30
"""Of changes in float32, counted as if layers were square; more are kept in float16, in which they lose less than the
model's own weights."""
MOST_STRENGTH = 100.0  # far more than any model bears


@dataclass(frozen=True, repr=False)
class Erasure(ErasureRecord):
    """An ``ErasureRecord``, and what can be done with it."""

    def __repr__(self) -> str:
        made = "; ".join(f"{one.method} of {quoted(list(map(str, one.concepts)))}" for one in self.origins)
        form = f"rank {self.rank}" if self.rank else "whole weights"
        return f"<Erasure: {made}; changes {len(self.deltas)} weights, {form}>"

    def scaled(self, strength: float) -> Erasure:
        """The same erasure, ``strength`` times as strong."""
        if not abs(strength) <= MOST_STRENGTH:
            raise ValueError(f"strength must be from -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}, got {strength}")
        if strength == 1:
            return self  # of many concepts on SDXL a copy takes 700 MB
        deltas = {name: delta.scaled(strength) for name, delta in self.deltas.items()}
        maps = {entry: replace(one, change=one.change.scaled(strength)) for entry, one in self.maps.items()}
        return replace(self, deltas=deltas, maps=maps)

    scaled = checked(scaled)

    def carried(self, strength: float = 1.0) -> Erasure:
        """What is known of this erasure in a model that has it: what made it and its maps, without the changes."""
        return replace(self, deltas={}).scaled(strength)

    def __add__(self, other: Erasure) -> Erasure:
        """Both changes at once. What each was computed on stays in ``origins``.

        Two erasures computed on the same model are added as they are; to erase the second on top of the first, compute
        it on the model that has the first; their sum keeps no context maps, since the second's is of other weights.
        Raises ``ValueError`` for erasures of different models, and for a concept that both take from the same weights.
        """
        if not isinstance(other, Erasure):
            return NotImplemented
        found = counts_twice(self, other)
        if found:
            raise ValueError(
                f"both erasures take '{found}' from the same weights, so it would count twice; leave one of them out, "
                "or compute the second on the model that has the first"
            )
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = _sum(name, deltas[name], delta) if name in deltas else delta
        same = {origin.fingerprint for origin in self.origins} == {origin.fingerprint for origin in other.origins}
        maps = _both_maps(self.maps, other.maps) if same else {}
        return Erasure(deltas, self.origins + other.origins, maps, max(self.error, other.error))

    def __radd__(self, other: object) -> Erasure:
        """``sum`` begins with 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, strength: float) -> Erasure:
        """See ``scaled``."""
        return self.scaled(strength) if isinstance(strength, int | float) else NotImplemented

    __rmul__ = __mul__

    def compressed(self, *, max_rank: int | None = None, tolerance: float = 0.0) -> Erasure:
        """The best approximation of rank at most ``max_rank``, or with a relative error of at most ``tolerance``.

        ``error`` of the result says what was lost. Changes that share one ``down`` still do.
        """
        if max_rank is not None and max_rank < 1:
            raise ValueError(f"max_rank must be at least 1, got {max_rank}")
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance must be from 0 to less than 1, got {tolerance}")
        deltas, maps = dict(self.deltas), {}
        for entry, one in self.maps.items():
            factors = {name: delta for name in one.names if isinstance(delta := self.deltas[name], LowRank)}
            if len(factors) == len(one.names):
                small, maps[entry] = _compressed_together(one, factors, tolerance, max_rank)
                deltas.update(small)
        together = {name for one in maps.values() for name in one.names}
        deltas |= {
            name: _compressed(delta, tolerance, max_rank) for name, delta in deltas.items() if name not in together
        }
        lost = sum(_squares(delta, deltas[name]) for name, delta in self.deltas.items())
        whole = sum(_squares(delta) for delta in self.deltas.values())
        error = (lost / whole) ** 0.5 if whole else 0.0
        return replace(self, deltas=deltas, maps=maps, error=max(self.error, error))

    compressed = checked(compressed)

    @checked
    @contextmanager
    def applied_to(self, model: DiffusionModel) -> Iterator[DiffusionModel]:
        """The model with this erasure inside a ``with`` block; as it was afterwards, whatever happens in it.

        Raises ``ValueError`` for an erasure of another model, and for a concept that the model has lost already.
        """
        self._check_shapes(model)
        before = model.erasures
        check_applied_once(self, before)
        with model.patched(LazyWeights({name: delta.dense for name, delta in self.deltas.items()})):
            try:
                model.erasures = (*before, self.carried())
                yield model
            finally:
                model.erasures = before

    def over(self, model: DiffusionModel) -> DiffusionModel:
        """A view of ``model`` with this erasure, beside the model itself; its passes are differentiable.

        Raises what ``applied_to`` and ``model.with_weights`` raise, among others for weights in float16.
        """
        check_applied_once(self, model.erasures)
        changed = {}
        for scope in SCOPES:
            own = model.weights_of(scope)
            for name in [name for name in self.deltas if name.startswith(scope)]:
                _check_shape(name, self.deltas[name], own)
                changed[name] = own[name] + self.deltas[name].dense().to(own[name])
        view = model.with_weights(changed)
        view.erasures = (*model.erasures, self.carried())
        return view

    over = checked(over)

    def _check_shapes(self, model: DiffusionModel) -> None:
        """Before a product is formed: that of factors from a file may be larger than any memory."""
        for scope in SCOPES:
            changed = {name: delta for name, delta in self.deltas.items() if name.startswith(scope)}
            own = model.weights_of(scope) if changed else {}
            for name, delta in changed.items():
                if name in own:
                    _check_shape(name, delta, own)

    def rebased_on(self, model: TextReader) -> Erasure:
        """The same erasure for another model with the same text encoder.

        Raises ``ValueError`` when no closed form made this erasure, or text enters the model in other ways.
        """
        if not self.maps:
            made = ", ".join(origin.method for origin in self.origins)
            raise ValueError(f"an erasure made by {made} keeps no context map and cannot be rebased; make it anew")
        entries = model.text_entries()
        own, theirs = _widths(self.maps), {name: _width(entry) for name, entry in entries.items()}
        if own != theirs:
            raise ValueError(f"the erasure is for text read as {_told(own)}, the model reads it as {_told(theirs)}")
        deltas: dict[str, Delta] = {}
        maps, error = {}, self.error
        for name, entry in entries.items():
            change = self.maps[name].change
            formed, lost = deltas_of(change, entry)
            deltas.update(formed)
            error = max(error, lost)
            maps[name] = ContextMap(change, tuple(entry.weights), entry.columns)
        made_on = fingerprint(entry_weights(model))
        origins = tuple(replace(origin, fingerprint=made_on) for origin in self.origins)
        return Erasure(deltas, origins, maps, error)

    rebased_on = checked(rebased_on)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a safetensors file that stock LoRA loaders read; see ``erasure_file.save``."""
        return erasure_file.save(self, path, overwrite=overwrite)

    @staticmethod
    def load(path: str | Path) -> Erasure:
        """Read a file that ``save`` wrote; see ``erasure_file.load``."""
        found = erasure_file.load(path)
        return Erasure(found.deltas, found.origins, found.maps, found.error)


def counts_twice(one: Erasure, other: Erasure) -> Concept | None:
    """The first concept of ``one`` that both take from the same weights, each as if there were no other erasure.

    Of erasures that are only ``carried`` the layers are known by their maps; those of one origin are the same.
    """
    layers = bool(_layers(one) & _layers(other))
    for own in one.origins:
        for theirs in other.origins:
            names = {key(concept.name) for concept in theirs.concepts}
            alike = [concept for concept in own.concepts if key(concept.name) in names]
            if own == theirs or (alike and layers and own.fingerprint == theirs.fingerprint):
                return alike[0]
    return None


def check_applied_once(erasure: Erasure, known: Iterable[Erasure]) -> None:
    """Raise ``ValueError`` when a model that carries ``known`` has lost one of the concepts in the same way already."""
    for other in known:
        found = counts_twice(erasure, other)
        if found:
            raise ValueError(
                f"the model has an erasure of '{found}' already that was computed on the same weights, so it would "
                "count twice; leave this one out, or compute it on the model that has the other"
            )


def _layers(erasure: Erasure) -> set[str]:
    return {*erasure.deltas, *(name for one in erasure.maps.values() for name in one.names)}


def deltas_of(change: LowRank, entry: TextEntry) -> tuple[dict[str, LowRank], float]:
    """``W E`` for every weight of a text entry as a low-rank change with one shared ``down``.

    In float32; above ``MOST_BYTES`` ``up`` is float16 and ``down`` has values that float16 can hold. Second comes the
    relative Frobenius error that this leaves, else 0. Raises ``UnsupportedModelError`` for changes that are out of
    float16's range.
    """
    if 4 * change.down.numel() * len(entry.weights) > MOST_BYTES:
        return _half_deltas(change, entry)
    ups, width = {}, 0
    for name, weight in entry.weights.items():
        ups[name], width = _up(change, entry, weight), weight.shape[1]
    shared = widened(change.down.float(), entry.columns, width)
    return {name: LowRank(up, shared) for name, up in ups.items()}, 0.0


def _half_deltas(change: LowRank, entry: TextEntry) -> tuple[dict[str, LowRank], float]:
    """All ``up`` are in one block: hundreds of allocations would leave a gigabyte of holes in the heap."""
    exact = change.down.float()
    down = exact.half().float()
    rows = [len(weight) for weight in entry.weights.values()]
    ups = torch.empty(sum(rows), change.rank, dtype=torch.float16).split(rows)
    whole = lost = 0.0
    for kept, weight in zip(ups, entry.weights.values(), strict=True):
        up = _up(change, entry, weight)
        kept.copy_(up)
        whole, lost = whole + float(up.norm()) ** 2, lost + float(up.sub_(kept).norm()) ** 2
    if not math.isfinite(lost):
        raise UnsupportedModelError("the changes are too large for float16 (above 65,504); the model may be damaged")
    moved = float((change.up.float() @ (down - exact)).norm() / change.up.float().norm())
    shared = widened(down, entry.columns, weight.shape[1])
    deltas = {name: LowRank(up, shared) for name, up in zip(entry.weights, ups, strict=True)}
    return deltas, (lost / whole + moved**2) ** 0.5


def _up(change: LowRank, entry: TextEntry, weight: Tensor) -> Tensor:
    return (entry.part(weight) @ change.up.to(weight.device, weight.dtype)).float().cpu()


def widened(down: Tensor, columns: tuple[int, int] | None, width: int) -> Tensor:
    """``down`` ``[rank, d]`` in its ``columns`` of a matrix ``[rank, width]``, zero in the others."""
    if columns is None:
        return down
    return torch.nn.functional.pad(down, (columns[0], width - columns[1]))


def _width(entry: TextEntry) -> int:
    return entry.part(next(iter(entry.weights.values()))).shape[1]


def _widths(maps: Mapping[str, ContextMap]) -> dict[str, int]:
    return {name: one.change.down.shape[1] for name, one in maps.items()}


def _told(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {width} wide" for name, width in widths.items())


def _both_maps(one: Mapping[str, ContextMap], other: Mapping[str, ContextMap]) -> dict[str, ContextMap]:
    """The sums of both, or none unless both have maps of the same layers."""
    layers = [{name: (found.names, found.columns) for name, found in maps.items()} for maps in (one, other)]
    if layers[0] != layers[1]:
        return {}
    return {name: replace(one[name], change=_low_rank_sum(name, one[name].change, other[name].change)) for name in one}


def _sum(name: str, one: Delta, other: Delta) -> Delta:
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        return _low_rank_sum(name, one, other)
    _check_same_shape(name, one, other)
    return Dense(one.dense() + other.dense())


def _low_rank_sum(name: str, one: LowRank, other: LowRank) -> LowRank:
    _check_same_shape(name, one, other)
    return LowRank(torch.cat([one.up, other.up], 1), torch.cat([one.down, other.down]))


def _check_same_shape(name: str, one: Delta, other: Delta) -> None:
    if one.shape != other.shape:
        raise ValueError(
            f"these erasures are for different models: {name} is {one.shape} in one, {other.shape} in the other"
        )


def _check_shape(name: str, delta: Delta, own: Mapping[str, Tensor]) -> None:
    if name not in own or own[name].shape != delta.shape:
        raise ValueError(f"the erasure changes {name} as {delta.shape}; it was made for another model")


def _squares(delta: Delta, other: Delta | None = None) -> float:
    """The sum of the squares of a change, or of what another differs by; of low-rank ones some rows at a time."""
    rows = max(1, AT_ONCE // max(1, math.prod(delta.shape[1:])))
    total = 0.0
    for start in range(0, delta.shape[0], rows):
        part = _rows(delta, start, rows)
        total += float((part if other is None else _rows(other, start, rows) - part).square().sum())
    return total


def _rows(delta: Delta, start: int, count: int) -> Tensor:
    rows = slice(start, start + count)
    return LowRank(delta.up[rows], delta.down).dense() if isinstance(delta, LowRank) else delta.change[rows]


def _compressed_together(
    one: ContextMap, factors: Mapping[str, LowRank], tolerance: float, max_rank: int | None
) -> tuple[dict[str, LowRank], ContextMap]:
    """All layers of an entry at once: the best shared ``down`` for the changes stacked on one another."""
    own = one.change.down
    stack = LowRank(torch.cat([factor.up.double() for factor in factors.values()]), own.double())
    best = stack.recompressed(tolerance, max_rank)
    turn = stack.down @ best.down.T
    down = best.down.to(own.dtype)

    def turned(up: Tensor) -> Tensor:
        return (up.double() @ turn).to(up.dtype)

    width = factors[one.names[0]].down.shape[1]
    whole = widened(down, one.columns, width)
    deltas = {name: LowRank(turned(factor.up), whole) for name, factor in factors.items()}
    return deltas, replace(one, change=LowRank(turned(one.change.up), down))


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
