"""The training loop, with its budget and its checks of the loss, and single updates."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..model import Callback

EXPLODED, RISEN = 1e3, 2.0
log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training failed, for example with a loss that is not finite; no model was changed."""


@dataclass(frozen=True)
class Budget:
    """The limits of a training: ``steps`` updates, at least 1, and ``seconds``, above 0.

    By default there is no limit of time, so that the result does not depend on the machine's speed. Raises
    ``ValueError`` for other numbers.
    """

    steps: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {self.steps!r}")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, or None for no limit, got {self.seconds!r}")


def train(
    update: Callable[[int], Tensor],
    budget: Budget,
    *,
    what: str = "training",
    enough: Callable[[], bool] | None = None,
    callback: Callback | None = None,
    look: Callable[[Sequence[float]], None] | None = None,
) -> tuple[float, ...]:
    """Call ``update(step)`` until the budget is used up or ``enough()`` returns true, and return the losses.

    ``update`` makes update ``step``, from 0, and returns its loss, a scalar. ``what`` names the training in messages.
    ``enough`` is asked after each update; by default all steps are made. ``callback`` gets the progress,
    and ``look`` the losses so far, both after each update; by default there are none. An exception that one of them
    raises ends the training and reaches the caller. Logs a warning when time ends the training. Raises
    ``TrainingError`` for a loss that is not finite, or that is beyond a thousand times the first, or a thousand where
    the first is below 1.
    """
    losses: list[float] = []
    began = time.monotonic()
    with torch.enable_grad():
        for step in range(budget.steps):
            if budget.seconds is not None and step and time.monotonic() - began > budget.seconds:
                log.warning(
                    "%s: ended after %d of %d steps, when %g seconds had passed; it may have found too little.",
                    what, step, budget.steps, budget.seconds,
                )  # fmt: skip
                break
            losses.append(float(update(step).detach()))
            _guard(losses)
            if callback:
                callback(step + 1, budget.steps, f"{what}, loss {losses[-1]:.4g}")
            if look:
                with torch.no_grad():
                    look(losses)
            if enough and enough():
                break
    return tuple(losses)


def check_rank(rank: int | None, weights: Mapping[str, Tensor] = MappingProxyType({})) -> None:
    """Raise ``ValueError`` for a rank below 1, or above the rank that a change of any of ``weights`` can have.

    ``None`` stands for changes of full rank, and passes. By default there are no weights, and no rank is too high.
    """
    if rank is None:
        return
    if rank < 1:
        raise ValueError(f"rank must be at least 1, or None for whole weights, got {rank}")
    most = max((min(weight.shape) for weight in weights.values() if weight.ndim == 2), default=rank)
    if rank > most:
        raise ValueError(f"rank must be at most {most}, more than which no change of these weights has, got {rank}")


def check_fell(losses: Sequence[float]) -> None:
    """Raise ``TrainingError`` if a loss has risen that training should have brought towards zero.

    The mean of the last tenth is compared with twice the first loss; fewer than ten steps are not judged.
    """
    if len(losses) < 10:
        return
    tail = losses[-(len(losses) // 10) :]
    last = sum(tail) / len(tail)
    if last > RISEN * losses[0]:
        raise TrainingError(
            f"the loss rose from {losses[0]:.3g} to {last:.3g} in {len(losses)} steps; nothing was changed. "
            "Try a lower learning rate"
        )


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the scalar ``loss`` for each parameter; zeros for one on which it does not depend."""
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, slopes, strict=True)]


def descend(loss: Tensor, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Make one update of ``parameters`` with the gradient of ``loss``; no other gradients are computed."""
    take_step(gradients(loss, parameters), parameters, optimiser)


def take_step(slopes: Sequence[Tensor], parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Make one update of ``parameters`` with their gradients ``slopes``, and free these."""
    for parameter, gradient in zip(parameters, slopes, strict=True):
        parameter.grad = gradient
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _guard(losses: Sequence[float]) -> None:
    last, step = losses[-1], len(losses)
    if not math.isfinite(last):
        raise TrainingError(f"the loss is {last} at step {step}; nothing was changed. Try a lower learning rate")
    if abs(last) > EXPLODED * max(1.0, abs(losses[0])):
        raise TrainingError(
            f"the loss went from {losses[0]:.3g} to {last:.3g} in {step} steps; nothing was changed. "
            "Try a lower learning rate"
        )
