"""DDIM (arXiv 2010.02502) with classifier-free guidance (arXiv 2207.12598) on any ``TextToImageModel``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .model import Callback, TextToImageModel

Advance = Callable[[], None]


@torch.no_grad()
def generate(
    model: TextToImageModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 15,
    guidance: float = 3.0,
    negative: str = "",
    batch: int = 64,
    callback: Callback | None = None,
) -> Tensor:
    """Images ``[n, 3, h, w]`` in 0 to 1 on the CPU; image i depends on ``prompts[i]`` and ``seeds[i]`` only.

    ``guidance`` 1 switches guidance off. Raises ``ValueError`` for settings that cannot be used.
    """
    _check(model, prompts, seeds, steps, batch)
    distinct = list(dict.fromkeys([negative, *prompts]))
    contexts = model.encode_prompts(distinct).context
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts])
    parts = list(zip(rows.split(batch), torch.arange(len(prompts)).split(batch), strict=True))
    progress = _counter(callback, len(parts) * steps)
    images = []
    for part, places in parts:
        latents = initial_latents(model, [seeds[place] for place in places.tolist()])
        context = contexts[part.to(contexts.device)]
        final = ddim(model, latents, context, contexts[:1], steps=steps, guidance=guidance, advance=progress)
        images.append(model.decode_latents(final).float().cpu())
    return torch.cat(images)


def ddim(
    model: TextToImageModel,
    latents: Tensor,
    context: Tensor,
    empty: Tensor,
    *,
    steps: int,
    guidance: float,
    advance: Advance | None = None,
) -> Tensor:
    """Clean latents ``[n, c, h, w]`` from noise ``latents`` under ``context`` ``[n, tokens, d]``; adds no noise.

    ``empty`` ``[1, tokens, d]`` is what guidance leads away from. ``advance`` is called after each step.
    """
    alphas = model.alphas_cumprod
    stride = len(alphas) // steps
    for timestep in timesteps(len(alphas), steps):
        output = guided(model, latents, timestep, context, empty, guidance)
        clean, noise = split_prediction(model.prediction_type, output, latents, float(alphas[timestep]))
        ahead = float(alphas[max(timestep - stride, 0)])
        latents = ahead**0.5 * clean + (1 - ahead) ** 0.5 * noise
        if advance:
            advance()
    return latents


def guided(
    model: TextToImageModel, latents: Tensor, timestep: int, context: Tensor, empty: Tensor, guidance: float
) -> Tensor:
    """The model's output in float32, led by ``guidance`` from ``empty`` to ``context``."""
    count = len(latents)
    moments = torch.full((count,), timestep, device=latents.device)
    if guidance == 1:
        return model.predict_noise(latents.to(context.dtype), moments, context).float()
    twice = torch.cat([latents, latents]).to(context.dtype)
    both = torch.cat([empty.expand(count, -1, -1), context])
    low, high = model.predict_noise(twice, torch.cat([moments, moments]), both).float().chunk(2)
    return low + guidance * (high - low)


def split_prediction(kind: str, output: Tensor, latents: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The clean latents and the noise that a model's ``output`` implies, with ``alpha`` of the signal left.

    ``kind`` is ``epsilon`` or ``v_prediction`` (arXiv 2202.00512, appendix D).
    """
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    if kind == "epsilon":
        return (latents - spread * output) / signal, output
    if kind == "v_prediction":
        return signal * latents - spread * output, signal * output + spread * latents
    raise ValueError(f"prediction type '{kind}' is unknown; known: epsilon, v_prediction")


def timesteps(trained: int, steps: int) -> list[int]:
    """Evenly spaced from high to low, ending at 1: "leading" with an offset of 1, as in Stable Diffusion."""
    stride = trained // steps
    return [index * stride + 1 for index in reversed(range(steps))]


def initial_latents(model: TextToImageModel, seeds: Sequence[int]) -> Tensor:
    """Noise ``[n, c, h, w]`` in float32, each from its own seed."""
    shape = model.latent_shape()
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(model.device)


def _check(model: TextToImageModel, prompts: Sequence[str], seeds: Sequence[int], steps: int, batch: int) -> None:
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(f"need as many seeds as prompts and at least one, got {len(seeds)} and {len(prompts)}")
    most = len(model.alphas_cumprod) - 1
    if not 1 <= steps <= most:
        raise ValueError(f"steps must be from 1 to {most}, got {steps}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")


def _counter(callback: Callback | None, total: int) -> Advance:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if callback:
            callback(done, total, "sampling")

    return advance
