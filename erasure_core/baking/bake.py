"""``bake``: write a checkpoint again with an erasure in its weights, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..arguments import checked
from ..erasures.erasure import Erasure, rebased
from ..erasures.erasure_file import check_target
from ..erasures.low_rank import Delta
from ..erasures.rounding import acting_squares, orthonormal_rows
from ..files.atomic import write_whole
from ..files.outputs import same_place
from ..files.tensor_file import TensorFile
from ..model import Callback, fingerprint, weights_of
from ..quoting import excerpt
from .folder import check_folder_target, files_to_copy, write_folder
from .open import open_checkpoint
from .places import Checkpoint, Place
from .record import check_not_baked, with_erasure
from .stored_weights import StoredWeight

Changes = dict[str, list[tuple[Place, Delta]]]
"""What is added to the tensors of a file, by their keys."""
ITS_OWN, IN_PART, REBASED, ANOTHER = "its own", "in part its own", "rebased", "another"
NOTES = {
    ITS_OWN: "",
    IN_PART: "part of the erasure was computed on other weights, or on top of the rest of it; in the first case it may "
    "erase less or harm more",
    REBASED: "the erasure was made on other weights and was formed anew for these, which is right where both "
    "checkpoints have the same text encoder",
    ANOTHER: "the erasure was computed on other weights, could not be formed anew for these, and was added as it "
    "is; it may erase less or harm more",
}
LOSES_MUCH = 0.1
"""The share of the change that rounding loses, above which a user is warned."""


@dataclass(frozen=True)
class BakedCheckpoint:
    """What ``bake`` has written."""

    path: Path
    changed: int
    """How many tensors have changed, in all files together."""
    rounding: float
    """The error of rounding to the checkpoint's precision where the changes act, relative to these (Frobenius norm)."""
    weights: str
    """``its own`` where the erasure was computed on this checkpoint's weights, ``in part its own`` where only part of a
    sum was, ``rebased`` where it was formed anew for them, and ``another`` where it was computed on other weights and
    could not be formed anew: it was trained, or is a sum of erasures one on top of the other."""
    left_out: tuple[str, ...] = ()
    """What a new folder lacks of the old one, because it may hold the model without the erasure."""

    @property
    def note(self) -> str:
        """What a user should know of ``weights``; empty if nothing."""
        return NOTES[self.weights]


@checked
def bake(
    erasure: Erasure,
    checkpoint: str | Path,
    out: str | Path,
    *,
    strength: float = 1.0,
    overwrite: bool = False,
    callback: Callback | None = None,
) -> BakedCheckpoint:
    """Write ``checkpoint`` to ``out`` with an erasure added to its weights, ``strength`` times as strong.

    ``checkpoint`` is a ``.safetensors`` file (a whole model or a denoiser alone) in fp32, fp16, bf16 or fp8, with or
    without scales, or a diffusers folder. Tensors that the erasure does not change keep their bytes; names, types,
    order and metadata stay too, and the metadata also say what was erased (``erasure_baked``). An erasure that was
    computed on other weights is formed anew from its context maps, if it has these. What is written appears whole or
    not at all; ``overwrite`` replaces a file, a folder is never replaced. ``callback`` counts bytes, and may cancel.

    Raises ``ValueError`` for an erasure of another kind of model, one that the checkpoint has already, and a value that
    the precision cannot hold; ``UnsupportedModelError`` for other quantised weights; and ``OSError``.
    """
    source, target = Path(checkpoint), Path(out)
    if source.exists() and same_place(source, target):
        raise ValueError(
            f"{excerpt(target, 300)} is the checkpoint itself, which is never written; choose another name"
        )
    if source.is_dir():
        check_folder_target(target)
    else:
        check_target(target, overwrite, "a checkpoint is")
    opened = open_checkpoint(source)
    for file in opened.files:
        check_not_baked(file.metadata, erasure)
    fitting, weights = fitted(erasure, opened)
    work = _Work(opened, fitting.scaled(strength), strength, callback or (lambda done, total, what: None))
    left_out: tuple[str, ...] = ()
    if source.is_dir():
        left_out = write_folder(source, target, work.writers(), work.report)
    else:
        (write,) = work.writers().values()
        write_whole(target, write, overwrite)
    return BakedCheckpoint(target, work.changed, work.rounding(), weights, left_out)


def fitted(erasure: Erasure, checkpoint: Checkpoint) -> tuple[Erasure, str]:
    """Return the erasure for the weights of ``checkpoint``, and what ``BakedCheckpoint.weights`` says of them."""
    entries = checkpoint.text_entries(erasure)
    found = fingerprint(weights_of(entries))
    own = [origin.fingerprint == found for origin in erasure.origins]
    if any(own):
        return erasure, ITS_OWN if all(own) else IN_PART
    return (rebased(erasure, entries), REBASED) if erasure.maps else (erasure, ANOTHER)


class _Work:
    """One run of ``bake``: what changes in which file, how far it is, and what rounding has lost."""

    def __init__(self, checkpoint: Checkpoint, erasure: Erasure, strength: float, callback: Callback):
        self.files = {file.path: file for file in checkpoint.files}
        self.plan: dict[Path, Changes] = {path: {} for path in self.files}
        for name, delta in erasure.deltas.items():
            for place in checkpoint.places(name):
                _check_shape(name, place, delta)
                self.plan[place.file.path].setdefault(place.key, []).append((place, delta))
        self.plan = {path: changes for path, changes in self.plan.items() if changes}
        self.erasure, self.strength, self.callback = erasure, strength, callback
        self.folder = checkpoint.path if checkpoint.path.is_dir() else None
        self.done, self.total = 0, self._size()
        self.lost = self.acted = 0.0
        self.basis = lru_cache(4)(orthonormal_rows)  # layers share a factor

    @property
    def changed(self) -> int:
        return sum(map(len, self.plan.values()))

    def rounding(self) -> float:
        return (self.lost / self.acted) ** 0.5 if self.acted else 0.0

    def report(self, size: int, what: str) -> None:
        self.callback(self.done, self.total, what)
        self.done += size

    def writers(self) -> dict[Path, Callable[[BinaryIO], None]]:
        """Return for each file that changes the function that writes it."""
        return {path: partial(self._write, self.files[path], changes) for path, changes in self.plan.items()}

    def _write(self, file: TensorFile, changes: Changes, target: BinaryIO) -> None:
        metadata = with_erasure(file.metadata, self.erasure, self.strength)
        changed = {key: partial(self._tensors, StoredWeight(file, key), several) for key, several in changes.items()}
        file.copy(target, metadata, changed, self.report)

    @torch.no_grad()
    def _tensors(self, stored: StoredWeight, changes: list[tuple[Place, Delta]]) -> Mapping[str, Tensor]:
        """Return the tensors of a file that keep a weight with its changes."""
        value = stored.value()
        for place, delta in changes:
            part = place.part(value)
            part += delta.dense().to(value.dtype).reshape(part.shape)
        tensors = stored.rounded(value)
        error = stored.value(tensors).sub_(value)
        for place, delta in changes:
            lost, acted = acting_squares(delta, place.part(error).reshape(delta.shape).float(), self.basis)
            self.lost, self.acted = self.lost + lost, self.acted + acted
        return tensors

    def _size(self) -> int:
        """Return the bytes to copy and those to compute."""
        size = sum(
            self.files[path].data_size + sum(map(self.files[path].size_of, changes))
            for path, changes in self.plan.items()
        )
        if self.folder is not None:
            taken, _ = files_to_copy(self.folder, set())
            size += sum(path.stat().st_size for path in taken if path not in self.plan)
        return size


def _check_shape(name: str, place: Place, delta: Delta) -> None:
    """Raise ``ValueError`` for a change of another shape than its weight; a 1 x 1 convolution is a matrix too."""
    shape = place.shape
    if _matrix(shape) != _matrix(delta.shape):
        raise ValueError(
            f"the erasure changes {excerpt(name, 200)} as {delta.shape}, in {place.file.path.name} that is {shape}; "
            "it was made for another kind of model"
        )


def _matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[2:] == (1, 1) else tuple(shape)
