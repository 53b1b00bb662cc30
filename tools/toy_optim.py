"""Muon for convolutions and matrices, Adam for the rest: fewer steps on two cores than Adam alone."""

from __future__ import annotations

import math

import torch


def orthogonalised(update: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, by the quintic Newton-Schulz iteration of Jordan (2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = update.shape[0] > update.shape[1]
    x = update.T if tall else update
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum 0.95, Nesterov; the update's root mean square is ``0.2 * lr`` as in Moonlight (2025)."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                buffer = state.setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                direction = weight.grad.lerp(buffer, group["momentum"])
                flat = orthogonalised(direction.reshape(len(weight), -1))
                scale = 0.2 * math.sqrt(max(flat.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(flat.reshape(weight.shape), alpha=-group["lr"] * scale)


class Both:
    """One learning-rate schedule over Muon (hidden matrices) and AdamW (vectors, first and last layer)."""

    def __init__(self, named, rate: float, outer: tuple[str, ...] = (), weight_decay: float = 0.0):
        named = [(name, weight) for name, weight in named if weight.requires_grad]
        hidden = [w for n, w in named if w.ndim >= 2 and not n.startswith(outer)]
        rest = [w for n, w in named if w.ndim < 2 or n.startswith(outer)]
        self.rate, self.weights = rate, hidden + rest
        self.parts = [torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=weight_decay)]
        if hidden:
            self.parts.append(Muon(hidden, rate, weight_decay=weight_decay))

    def step(self, fraction: float, warmup: float = 0.01, clip: float | None = None) -> None:
        """Update and forget the gradients; ``fraction`` is how much of the training is done."""
        rate = self.rate * min(1.0, fraction / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction)))
        if clip:
            torch.nn.utils.clip_grad_norm_(self.weights, clip)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
