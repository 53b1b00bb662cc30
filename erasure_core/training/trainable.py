"""Trainable copies of a model's weights, whole or as a LoRA (arXiv 2106.09685)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..devices import on_cpu
from ..erasures.low_rank import Delta, Dense, LowRank
from ..model import UnsupportedModelError
from .loop import TrainingError, check_rank

LEAST_CHANGED = 1e-7  # relative to the weight: about the precision of float32


class StandIns:
    """Trainable copies of named weights in float32, which a model uses in place of its own (``with_weights``).

    With a ``rank``, at least 1, every matrix is frozen and gets a trainable change ``up @ down`` that starts at zero
    (LoRA, arXiv 2106.09685, eq. 3); other weights are trained whole, as all are with ``None``. ``generator`` draws the
    start of ``down``. Raises ``UnsupportedModelError`` for weights that are not finite, and ``ValueError`` for a rank
    below 1.
    """

    def __init__(self, weights: Mapping[str, Tensor], rank: int | None, generator: torch.Generator):
        check_rank(rank)
        self._frozen: dict[str, Tensor] = {}
        self._whole: dict[str, Tensor] = {}
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        for name, weight in weights.items():
            frozen = self._frozen[name] = weight.detach().float()
            if rank is None or frozen.ndim != 2:
                self._whole[name] = frozen.clone().requires_grad_()
            else:
                self._factors[name] = _factors(frozen, min(rank, *frozen.shape), generator)
        finite = on_cpu([torch.isfinite(frozen).all() for frozen in self._frozen.values()])
        for name, one in zip(self._frozen, finite, strict=True):
            if not one:
                raise UnsupportedModelError(f"{name} holds NaN or infinite values; the checkpoint is damaged")

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that an optimiser trains."""
        return [*self._whole.values(), *(factor for pair in self._factors.values() for factor in pair)]

    def weights(self) -> dict[str, Tensor]:
        """Return the weights for the model to use, by name, differentiable in ``parameters``."""
        changed = {name: self._frozen[name] + up @ down for name, (up, down) in self._factors.items()}
        return {**self._whole, **changed}

    def deltas(self) -> dict[str, Delta]:
        """Return the changes so far, by the weight's name, in float32 on the CPU.

        Raises ``TrainingError`` if no weight has changed by more than ``LEAST_CHANGED`` of its norm.
        """
        whole = {name: Dense((new.detach() - self._frozen[name]).cpu()) for name, new in self._whole.items()}
        low = {name: LowRank(up.detach().cpu(), down.detach().cpu()) for name, (up, down) in self._factors.items()}
        deltas: dict[str, Delta] = {**whole, **low}
        if not any(self._changed(name, delta) for name, delta in deltas.items()):
            raise TrainingError("training changed nothing; raise the learning rate, or steps")
        return {name: deltas[name] for name in self._frozen}

    def _changed(self, name: str, delta: Delta) -> bool:
        return float(delta.dense().norm()) > LEAST_CHANGED * float(self._frozen[name].norm())


def layers_of(names: Iterable[str]) -> int:
    """Return the number of a text encoder's layers, one more than the highest number in its weights' names.

    Raises ``UnsupportedModelError`` for names without ``.layers.`` and a number.
    """
    numbers = [int(match[1]) for name in names if (match := re.search(r"\.layers\.(\d+)\.", name))]
    if not numbers:
        raise UnsupportedModelError("the text encoder has no layers that can be told by their names")
    return max(numbers) + 1


def _factors(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    down = torch.randn(rank, weight.shape[1], generator=generator) / math.sqrt(weight.shape[1])
    up = torch.zeros(weight.shape[0], rank, device=weight.device)
    return up.requires_grad_(), down.to(weight.device).requires_grad_()
