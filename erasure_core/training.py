"""What the learned methods share: stand-ins to train, the loop with its guard and budget, noised latents.

A learned method never writes to the model: it trains copies of weights and calls the model with these in the places
of its own (``TextToImageModel.with_weights``). So there is nothing to restore after a cancel, an error or a NaN.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .closed_form import LowRank
from .erasure import Delta, Dense
from .model import Callback, TextToImageModel, UnsupportedModelError
from .sampling import roots

EXPLODED, RISEN = 1e3, 2.0
LEAST_CHANGED = 1e-7  # of a weight: what float32 can hold

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training left the numbers that make sense and was stopped; nothing was changed."""


@dataclass(frozen=True)
class Budget:
    """When to stop: after ``steps`` updates, or earlier once ``seconds`` have passed (None for no limit)."""

    steps: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {self.steps!r}")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, or None for no limit, got {self.seconds!r}")


class StandIns:
    """Trainable stand-ins for named weights, in float32: whole copies, or low-rank changes on frozen ones.

    With ``rank`` the change of every matrix starts at zero as ``up @ down`` (LoRA, arXiv 2106.09685); weights that are
    not matrices are trained whole.
    """

    def __init__(self, weights: Mapping[str, Tensor], rank: int | None, generator: torch.Generator):
        check_rank(rank)
        self._frozen: dict[str, Tensor] = {}
        self._whole: dict[str, Tensor] = {}
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        for name, weight in weights.items():
            frozen = weight.detach().float()
            if not torch.isfinite(frozen).all():
                raise UnsupportedModelError(f"{name} holds NaN or infinite values; the checkpoint is damaged")
            self._frozen[name] = frozen
            if rank is None or frozen.ndim != 2:
                self._whole[name] = frozen.clone().requires_grad_()
            else:
                self._factors[name] = _factors(frozen, min(rank, *frozen.shape), generator)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self._whole.values(), *(factor for pair in self._factors.values() for factor in pair)]

    def weights(self) -> dict[str, Tensor]:
        """What the model should use, differentiable in ``parameters``."""
        changed = {name: self._frozen[name] + up @ down for name, (up, down) in self._factors.items()}
        return {**self._whole, **changed}

    def deltas(self) -> dict[str, Delta]:
        """The changes so far, on the CPU. Raises ``TrainingError`` when there are none to speak of."""
        whole = {name: Dense((new.detach() - self._frozen[name]).cpu()) for name, new in self._whole.items()}
        low = {name: LowRank(up.detach().cpu(), down.detach().cpu()) for name, (up, down) in self._factors.items()}
        found = {**whole, **low}
        if not any(self._changed(name, delta) for name, delta in found.items()):
            raise TrainingError("training changed nothing; raise the learning rate, or steps")
        return {name: found[name] for name in self._frozen}

    def _changed(self, name: str, delta: Delta) -> bool:
        return float(delta.dense().norm()) > LEAST_CHANGED * float(self._frozen[name].norm())


def train(
    update: Callable[[int], Tensor],
    budget: Budget,
    *,
    what: str = "training",
    enough: Callable[[], bool] | None = None,
    callback: Callback | None = None,
) -> tuple[float, ...]:
    """Call ``update(step)``, which makes one update and returns its loss, until the budget ends or ``enough()`` says so
    after an update; returns the losses.

    Raises ``TrainingError`` at a loss that is not finite or a thousand times the first. What ``callback`` raises ends
    the training within one step and reaches the caller.
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
            if enough and enough():
                break
    return tuple(losses)


def predict(
    model: TextToImageModel, latents: Tensor, timesteps: Tensor, context: Tensor, gradient_checkpointing: bool = False
) -> Tensor:
    """The model's output in float32, as ``model.predict_noise`` gives it.

    With ``gradient_checkpointing`` (arXiv 1604.06174) each latent goes through the model on its own and once more
    during the backward pass, so that the activations of one are in memory at a time instead of all.
    """
    if not (gradient_checkpointing and torch.is_grad_enabled()):
        return model.predict_noise(latents, timesteps, context).float()
    each = zip(latents.split(1), timesteps.split(1), context.split(1), strict=True)
    return torch.cat([checkpoint(model.predict_noise, *one, use_reentrant=False) for one in each]).float()


def noised(clean: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """``x_t`` of clean latents ``[n, c, h, w]`` with ``alphas`` ``[n]`` of the signal left."""
    signal, spread = roots(alphas, clean)
    return signal * clean + spread * noise


def denoising_target(kind: str, clean: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """What a perfect model puts out: the noise (``epsilon``) or the velocity (``v_prediction``, arXiv 2202.00512)."""
    if kind == "epsilon":
        return noise
    if kind != "v_prediction":
        raise ValueError(f"prediction type '{kind}' is unknown; known: epsilon, v_prediction")
    signal, spread = roots(alphas, clean)
    return signal * noise - spread * clean


def denoising_error(
    model: TextToImageModel, clean: Tensor, noise: Tensor, timesteps: Tensor, context: Tensor
) -> Tensor:
    """The mean squared error of the model's output at ``clean`` noised to ``timesteps``; the velocity's for v."""
    alphas = model.alphas_cumprod[timesteps]
    kind = model.prediction_type
    latents = noised(clean, noise, alphas)
    output = predict(model, latents, timesteps.to(clean.device), context)
    return (output - denoising_target(kind, clean, noise, alphas)).square().mean()


def check_learning_rate(**rates: float) -> None:
    """Raise ``ValueError`` naming the first of ``rates`` that is no finite number above 0."""
    for name, value in rates.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number above 0, got {value}")


def check_rank(rank: int | None, weights: Mapping[str, Tensor] = MappingProxyType({})) -> None:
    """Raise ``ValueError`` for a rank that is none, or is more than any change of one of ``weights`` can have."""
    if rank is None:
        return
    if rank < 1:
        raise ValueError(f"rank must be at least 1, or None for whole weights, got {rank}")
    most = max((min(weight.shape) for weight in weights.values() if weight.ndim == 2), default=rank)
    if rank > most:
        raise ValueError(f"rank must be at most {most}, more than which no change of these weights has, got {rank}")


def check_fell(losses: Sequence[float]) -> None:
    """Raise ``TrainingError`` when training has made a loss worse that it should have brought towards zero.

    Fewer than ten steps tell nothing.
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


def layers_of(names: Iterable[str]) -> int:
    """The number of encoder layers that weights' names tell of."""
    found = [int(match[1]) for name in names if (match := re.search(r"\.layers\.(\d+)\.", name))]
    if not found:
        raise UnsupportedModelError("the text encoder has no layers that can be told by their names")
    return max(found) + 1


def context_gradient(
    model: TextToImageModel, clean: Tensor, noise: Tensor, timesteps: Tensor, context: Tensor
) -> tuple[Tensor, Tensor]:
    """``denoising_error`` and its gradient with respect to ``context`` ``[n, tokens, d]``, neither with a graph.

    One latent after the other goes through the model and back, so that the activations of one are in memory at a time
    and none is computed twice.
    """
    count = len(clean)
    error, parts = torch.zeros((), device=clean.device), []
    for one in torch.arange(count).split(1):
        leaf = context[one.to(context.device)].detach().requires_grad_()
        share = denoising_error(model, clean[one], noise[one], timesteps[one], leaf) / count
        parts += gradients(share, [leaf])
        error += share.detach()
    return error, torch.cat(parts)


def gradients(loss: Tensor, parameters: Sequence[Tensor], upstream: Tensor | None = None) -> list[Tensor]:
    """The gradient of ``loss``; zero for a parameter that it does not depend on.

    ``upstream``, of the shape of ``loss``, is the gradient that reaches it where it is not a single number.
    """
    found = torch.autograd.grad(loss, parameters, upstream, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def descend(loss: Tensor, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> None:
    """One update down the gradient of ``loss``; nothing but ``parameters`` is touched."""
    take_step(gradients(loss, parameters), parameters, optimiser)


def take_step(found: Sequence[Tensor], parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> None:
    """One update with the gradients ``found``, which are let go of before the next are computed."""
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _factors(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    down = torch.randn(rank, weight.shape[1], generator=generator) / math.sqrt(weight.shape[1])
    up = torch.zeros(weight.shape[0], rank, device=weight.device)
    return up.requires_grad_(), down.to(weight.device).requires_grad_()


def _guard(losses: Sequence[float]) -> None:
    last, step = losses[-1], len(losses)
    if not math.isfinite(last):
        raise TrainingError(f"the loss is {last} at step {step}; nothing was changed. Try a lower learning rate")
    if abs(last) > EXPLODED * max(1.0, abs(losses[0])):
        raise TrainingError(
            f"the loss went from {losses[0]:.3g} to {last:.3g} in {step} steps; nothing was changed. "
            "Try a lower learning rate"
        )
