"""``Erasure``, the result of every method: apply, scale, add, compress, move to another model, save and load."""

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
from ..devices import Scratch, on_cpu
from ..model import (
    DiffusionModel,
    LazyWeights,
    TextEntry,
    TextReader,
    UnsupportedModelError,
    clip_skip_of,
    entry_weights,
    fingerprint,
    weights_of,
)
from ..quoting import quoted
from . import erasure_file
from .clip_skip import warn_of_clip_skip
from .erasure_record import ContextMap, ErasureRecord
from .low_rank import Delta, Dense, LowRank

SCOPES = ("unet", "text_encoder")
AT_ONCE = 2**24  # numbers of a dense change that are computed at once
MOST_BYTES = 2**30
"""The size of all changes in float32, counted as if layers were square, above which they are stored in float16; they
lose less by it than the model's own weights do."""
MOST_WAITING_BYTES = 2**28
"""The most bytes of changes that wait on a GPU to come back together."""
MOST_STRENGTH = 100.0  # far more than any model can take


@dataclass(frozen=True, repr=False, eq=False)
class Erasure(ErasureRecord):
    """The changes of weights that erase concepts, with the operations on them; see ``ErasureRecord`` for its data."""

    def __repr__(self) -> str:
        made = "; ".join(f"{one.method} of {quoted(list(map(str, one.concepts)))}" for one in self.origins)
        form = f"rank {self.rank}" if self.rank else "whole weights"
        return f"<Erasure: {made}; changes {len(self.deltas)} weights, {form}>"

    @checked
    def scaled(self, strength: float) -> Erasure:
        """Return this erasure ``strength`` times as strong; raise ``ValueError`` outside of -100 to 100."""
        if not abs(strength) <= MOST_STRENGTH:
            raise ValueError(f"strength must be from -{MOST_STRENGTH:g} to {MOST_STRENGTH:g}, got {strength}")
        if strength == 1:
            return self  # of many concepts on SDXL a copy takes 700 MB
        deltas = {name: delta.scaled(strength) for name, delta in self.deltas.items()}
        maps = {entry: replace(one, change=one.change.scaled(strength)) for entry, one in self.maps.items()}
        return replace(self, deltas=deltas, maps=maps)

    def carried(self, strength: float = 1.0) -> Erasure:
        """Return the record that a model with this erasure carries: origins and maps, without the changes."""
        return replace(self, deltas={}).scaled(strength)

    def __add__(self, other: Erasure) -> Erasure:
        """Return an erasure with the changes of both.

        The two may have been computed on the same model, or the second on the model that has the first; in the latter
        case the sum has no context maps, since those of the second are for other weights. ``origins`` says what each
        was computed on. Raises ``ValueError`` for erasures of different models, and for a concept that both erase from
        the same weights.
        """
        if not isinstance(other, Erasure):
            return NotImplemented
        double = counts_twice(self, other)
        if double:
            raise ValueError(
                f"both erasures take '{double}' from the same weights, so it would count twice; leave one of them out, "
                "or compute the second on the model that has the first"
            )
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = _sum(name, deltas[name], delta) if name in deltas else delta
        same = {origin.fingerprint for origin in self.origins} == {origin.fingerprint for origin in other.origins}
        maps = _both_maps(self.maps, other.maps) if same else {}
        return Erasure(deltas, self.origins + other.origins, maps, max(self.error, other.error))

    def __radd__(self, other: object) -> Erasure:
        """Return the erasure for ``0 + erasure``, with which Python's ``sum`` begins."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, strength: float) -> Erasure:
        """Return ``scaled(strength)``."""
        return self.scaled(strength) if isinstance(strength, int | float) else NotImplemented

    __rmul__ = __mul__

    @checked
    def compressed(self, *, max_rank: int | None = None, tolerance: float = 0.0) -> Erasure:
        """Return the best approximation of lower rank, for a smaller file.

        The rank is at most ``max_rank`` (at least 1, by default without limit) and the smallest with a relative error
        of at most ``tolerance`` (0 to less than 1, by default 0). The result's ``error`` is the relative Frobenius
        error. Changes that share one ``down`` still share one. Raises ``ValueError`` for settings out of range.
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

    @checked
    @contextmanager
    def applied_to(self, model: DiffusionModel) -> Iterator[DiffusionModel]:
        """Change the weights of ``model`` inside a ``with`` block, and restore them after it, whatever happens in it.

        Raises ``ValueError`` for an erasure that was made for another model, and for a concept that the model has lost
        already.
        """
        self._check_shapes(model)
        warn_of_clip_skip(self, clip_skip_of(model))
        before = model.erasures
        check_applied_once(self, before)
        with model.patched(LazyWeights({name: delta.dense for name, delta in self.deltas.items()})):
            try:
                model.erasures = (*before, self.carried())
                yield model
            finally:
                model.erasures = before

    @checked
    def over(self, model: DiffusionModel) -> DiffusionModel:
        """Return a model with this erasure that can be used beside ``model`` itself, which is not changed.

        Its passes are differentiable. Raises the errors of ``applied_to`` and of ``model.with_weights``, which refuses
        weights in float16, among others.
        """
        check_applied_once(self, model.erasures)
        warn_of_clip_skip(self, clip_skip_of(model))
        changed = {}
        for scope in SCOPES:
            own = model.weights_of(scope)
            for name in [name for name in self.deltas if name.startswith(scope)]:
                _check_shape(name, self.deltas[name], own)
                changed[name] = own[name] + self.deltas[name].dense().to(own[name])
        view = model.with_weights(changed)
        view.erasures = (*model.erasures, self.carried())
        return view

    def _check_shapes(self, model: DiffusionModel) -> None:
        """Raise ``ValueError`` for a change of another shape than its weight.

        This comes before any product, since that of two factors from a file may be larger than the memory.
        """
        entries = entry_weights(model)
        for name in self.deltas.keys() & entries.keys():
            _check_shape(name, self.deltas[name], entries)
        for scope in SCOPES:
            changed = {name for name in self.deltas.keys() - entries.keys() if name.startswith(scope)}
            own = model.weights_of(scope) if changed else {}
            for name in changed & own.keys():
                _check_shape(name, self.deltas[name], own)

    @checked
    def rebased_on(self, model: TextReader) -> Erasure:
        """Return the same erasure for another model with the same text encoder.

        Raises ``ValueError`` when no closed form made this erasure, or when text enters ``model`` in another width.
        """
        return rebased(self, model.text_entries())

    def save(self, path: str | Path, *, overwrite: bool = False, modelspec: Mapping[str, str] | None = None) -> Path:
        """Write a safetensors file that common LoRA loaders read, and return its path; see ``erasure_file.save``."""
        return erasure_file.save(self, path, overwrite=overwrite, modelspec=modelspec)

    @staticmethod
    def load(path: str | Path) -> Erasure:
        """Read a file that ``save`` wrote; see ``erasure_file.load``."""
        record = erasure_file.load(path)
        return Erasure(record.deltas, record.origins, record.maps, record.error)


def rebased(erasure: Erasure, entries: Mapping[str, TextEntry]) -> Erasure:
    """Return the same erasure for the weights of ``entries``, where text enters another model.

    Raises ``ValueError`` when no closed form made this erasure, or when text enters the other model in another width.
    """
    if not erasure.maps:
        made = ", ".join(origin.method for origin in erasure.origins)
        raise ValueError(f"an erasure made by {made} keeps no context map and cannot be rebased; make it anew")
    own, theirs = _widths(erasure.maps), {name: _width(entry) for name, entry in entries.items()}
    if own != theirs:
        raise ValueError(
            f"the erasure is for text read as {_width_list(own)}, the model reads it as {_width_list(theirs)}"
        )
    deltas: dict[str, Delta] = {}
    maps, error = {}, erasure.error
    for name, entry in entries.items():
        change = erasure.maps[name].change
        formed, lost = deltas_of(change, entry)
        deltas.update(formed)
        error = max(error, lost)
        maps[name] = ContextMap(change, tuple(entry.weights), entry.columns)
    made_on = fingerprint(weights_of(entries))
    origins = tuple(replace(origin, fingerprint=made_on) for origin in erasure.origins)
    return Erasure(deltas, origins, maps, error)


def counts_twice(one: Erasure, other: Erasure) -> Concept | None:
    """Return the first concept of ``one`` that both erasures erase from the same weights, or ``None``.

    Each was then computed as if there were no other. The layers of erasures that are only ``carried`` are those of
    their maps. Erasures with an origin in common are the same.
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
    """Raise ``ValueError`` if a model with the erasures ``known`` has lost a concept of ``erasure`` in this way."""
    for other in known:
        double = counts_twice(erasure, other)
        if double:
            raise ValueError(
                f"the model has an erasure of '{double}' already that was computed on the same weights, so it would "
                "count twice; leave this one out, or compute it on the model that has the other"
            )


def _layers(erasure: Erasure) -> set[str]:
    return {*erasure.deltas, *(name for one in erasure.maps.values() for name in one.names)}


def deltas_of(change: LowRank, entry: TextEntry) -> tuple[dict[str, LowRank], float]:
    """Return the change ``W E`` of every weight of a text entry, and the relative Frobenius error of rounding.

    ``change`` is ``E``, ``[d, d]``. The changes are low-rank and share one ``down``. They are in float32, with an error
    of 0; above ``MOST_BYTES``, ``up`` is in float16 and ``down`` has values that float16 can hold. Raises
    ``UnsupportedModelError`` for changes that are out of the range of float16.
    """
    if 4 * change.down.numel() * len(entry.weights) > MOST_BYTES:
        return _half_deltas(change, entry)
    ups = dict(_ups(change, entry))
    shared = widened(change.down.float(), entry.columns, _whole_width(entry))
    return {name: LowRank(up, shared) for name, up in ups.items()}, 0.0


def _half_deltas(change: LowRank, entry: TextEntry) -> tuple[dict[str, LowRank], float]:
    """Do what ``deltas_of`` says, in float16.

    All ``up`` are parts of one tensor, and all products that they are rounded from are formed in the same memory, since
    hundreds of allocations would leave a gigabyte of holes in the heap.
    """
    exact = change.down.float()
    down = exact.half().float()
    rows, width = [len(weight) for weight in entry.weights.values()], _whole_width(entry)
    ups = torch.empty(sum(rows), change.rank, dtype=torch.float16).split(rows)
    whole = lost = 0.0
    for kept, (_, up) in zip(ups, _ups(change, entry, Scratch()), strict=True):
        kept.copy_(up)
        whole, lost = whole + float(up.norm()) ** 2, lost + float(up.sub_(kept).norm()) ** 2
    if not math.isfinite(lost):
        raise UnsupportedModelError("the changes are too large for float16 (above 65,504); the model may be damaged")
    moved = float((change.up.float() @ (down - exact)).norm() / change.up.float().norm())
    shared = widened(down, entry.columns, width)
    deltas = {name: LowRank(up, shared) for name, up in zip(entry.weights, ups, strict=True)}
    return deltas, (lost / whole + moved**2) ** 0.5


def _ups(change: LowRank, entry: TextEntry, scratch: Scratch | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each weight of a text entry with ``W up``, float32 on the CPU.

    The factor goes to a GPU once, and results come back many layers at a time. With ``scratch``, the product of a
    weight on the CPU is formed there and stays until the next is asked for.
    """
    factors: dict[tuple[torch.device, torch.dtype], Tensor] = {}
    waiting: dict[str, Tensor] = {}
    for name, weight in entry.weights.items():
        where = weight.device, weight.dtype
        if where not in factors:
            factors[where] = change.up.to(*where)
        on_cpu_already = weight.device.type == "cpu"
        multiply = scratch.product if scratch and on_cpu_already else torch.matmul
        waiting[name] = multiply(entry.part(weight), factors[where]).float()
        if on_cpu_already or sum(one.nbytes for one in waiting.values()) > MOST_WAITING_BYTES:
            yield from zip(waiting, on_cpu(list(waiting.values())), strict=True)
            waiting = {}
    yield from zip(waiting, on_cpu(list(waiting.values())), strict=True)


def _whole_width(entry: TextEntry) -> int:
    return next(iter(entry.weights.values())).shape[1]


def widened(down: Tensor, columns: tuple[int, int] | None, width: int) -> Tensor:
    """Return a matrix ``[rank, width]`` with ``down`` ``[rank, d]`` in its ``columns`` and zero in the others."""
    if columns is None:
        return down
    return torch.nn.functional.pad(down, (columns[0], width - columns[1]))


def _width(entry: TextEntry) -> int:
    return entry.part(next(iter(entry.weights.values()))).shape[1]


def _widths(maps: Mapping[str, ContextMap]) -> dict[str, int]:
    return {name: one.change.down.shape[1] for name, one in maps.items()}


def _width_list(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {width} wide" for name, width in widths.items())


def _both_maps(one: Mapping[str, ContextMap], other: Mapping[str, ContextMap]) -> dict[str, ContextMap]:
    """Return the sums of the context maps of both; none unless both have maps for the same layers."""
    layers = [{name: (entry.names, entry.columns) for name, entry in maps.items()} for maps in (one, other)]
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
    """Return the sum of squares of a change, or of its difference from ``other``, without forming it as a whole."""
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
    """Compress all layers of a text entry together, to the best ``down`` that they can share."""
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
    """Compress a single change; a dense one stays if its factors were no smaller, as do biases and convolutions."""
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
