"""DDIM (arXiv 2010.02502) with classifier-free guidance (arXiv 2207.12598) on any ``DiffusionModel``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..arguments import Seed, checked
from ..concepts.parse import as_prompts
from ..conditioning import Conditioning
from ..model import Callback, DiffusionModel

MOST_GUIDANCE = 100.0  # with more, pictures are noise or NaN
Advance = Callable[[], None]
Visit = Callable[[int, Tensor], object]


@checked
@torch.no_grad()
def generate(
    model: DiffusionModel,
    prompts: Sequence[str] | str,
    seeds: Sequence[Seed],
    *,
    steps: int = 15,
    guidance: float = 3.0,
    negative: str = "",
    batch: int = 64,
    callback: Callback | None = None,
) -> Tensor:
    """Draw images: ``[n, 3, h, w]`` with values from 0 to 1, on the CPU.

    Image i depends only on ``prompts[i]`` and ``seeds[i]``. Each takes ``steps`` DDIM steps with classifier-free
    ``guidance`` away from the ``negative`` prompt, from 0 to 100; 1 switches guidance off. ``batch`` images are drawn
    at once. ``callback`` gets the progress. Raises ``ValueError`` for settings that cannot be used.
    """
    walks = _walks(model, prompts, seeds, steps, guidance, negative, batch, callback)
    return torch.cat([model.decode_latents(final).float().cpu() for final in walks])


@checked
@torch.no_grad()
def sample_latents(
    model: DiffusionModel,
    prompts: Sequence[str] | str,
    seeds: Sequence[Seed],
    *,
    steps: int = 15,
    guidance: float = 3.0,
    batch: int = 64,
    callback: Callback | None = None,
) -> Tensor:
    """Draw as ``generate`` does, and return the clean latents ``[n, c, h, w]`` in place of the images."""
    walks = _walks(model, prompts, seeds, steps, guidance, "", batch, callback)
    return torch.cat([final.float().cpu() for final in walks])


@checked
@torch.no_grad()
def trajectories(
    model: DiffusionModel,
    prompts: Sequence[str] | str,
    seeds: Sequence[Seed],
    *,
    steps: int = 15,
    guidance: float = 3.0,
    batch: int = 64,
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw as ``generate`` does, and return the noisy latents of all steps and their timesteps.

    Their shapes are ``[n * steps, c, h, w]`` and ``[n * steps]``.
    """
    times, visited = [], []

    def visit(timestep: int, latents: Tensor) -> None:
        times.append(torch.full((len(latents),), timestep))
        visited.append(latents.cpu())

    for _ in _walks(model, prompts, seeds, steps, guidance, "", batch, callback, visit):
        pass
    return torch.cat(visited), torch.cat(times)


def _walks(
    model: DiffusionModel,
    prompts: Sequence[str] | str,
    seeds: Sequence[Seed],
    steps: int,
    guidance: float,
    negative: str,
    batch: int,
    callback: Callback | None,
    visit: Visit | None = None,
) -> Iterator[Tensor]:
    """Yield the clean latents of each batch; ``visit`` is called as by ``ddim``."""
    prompts = as_prompts(prompts)
    _check(model, prompts, seeds, steps, batch, guidance)
    distinct = list(dict.fromkeys([negative, *prompts]))
    conditioning = model.encode_prompts(distinct)
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts])
    parts = list(zip(rows.split(batch), torch.arange(len(prompts)).split(batch), strict=True))
    advance = _counter(callback, len(parts) * steps)

    def passed(timestep: int, latents: Tensor) -> None:
        if visit:
            visit(timestep, latents)
        advance()

    for part, places in parts:
        yield ddim(
            model,
            initial_latents(model, [seeds[place] for place in places.tolist()]),
            conditioning[part],
            conditioning[:1],
            steps=steps,
            guidance=guidance,
            visit=passed,
        )


def ddim(
    model: DiffusionModel,
    latents: Tensor,
    conditioning: Conditioning,
    empty: Conditioning,
    *,
    steps: int,
    guidance: float,
    visit: Visit | None = None,
    skip: int = 0,
) -> Tensor:
    """Return clean latents ``[n, c, h, w]``, drawn from noise ``latents`` with deterministic DDIM steps.

    ``conditioning`` is that of n prompts, and ``empty`` that of the one prompt that guidance leads away from. In each
    step ``visit`` is called with the timestep and the latents before the step. The first ``skip`` steps are left out
    (by default none); ``latents`` must then be noised as much as after these steps.
    """
    alphas = model.alphas_cumprod
    stride = len(alphas) // steps
    for timestep in timesteps(len(alphas), steps)[skip:]:
        output = guided(model, latents, timestep, conditioning, empty, guidance)
        clean, noise = split_prediction(model.prediction_type, output, latents, float(alphas[timestep]))
        ahead = float(alphas[max(timestep - stride, 0)])
        if visit:
            visit(timestep, latents)
        latents = ahead**0.5 * clean + (1 - ahead) ** 0.5 * noise
    return latents


@torch.no_grad()
def invert(
    model: DiffusionModel,
    latents: Tensor,
    conditioning: Conditioning,
    empty: Conditioning,
    *,
    steps: int,
    guidance: float,
    refinements: int = 3,
    visit: Visit | None = None,
) -> Tensor:
    """Return the noise ``[n, c, h, w]`` from which ``ddim`` with the same settings returns to clean ``latents``.

    Each step needs the model's output for the latents at its end, which are unknown. They are found by ``refinements``
    rounds of fixed-point iteration (arXiv 2309.04907); one round is plain DDIM inversion (arXiv 2010.02502).
    """
    alphas = model.alphas_cumprod
    stride = len(alphas) // steps
    for timestep in reversed(timesteps(len(alphas), steps)):
        keep, change = _step_factors(
            model.prediction_type, float(alphas[timestep]), float(alphas[max(timestep - stride, 0)])
        )
        noisier = latents
        for _ in range(refinements):
            output = guided(model, noisier, timestep, conditioning, empty, guidance)
            noisier = (latents - change * output) / keep
        latents = noisier
        if visit:
            visit(timestep, latents)
    return latents


def _step_factors(kind: str, alpha: float, ahead: float) -> tuple[float, float]:
    """Return the factors ``keep`` and ``change`` of a DDIM step, ``keep * latents + change * output``."""
    one, zero = torch.ones(()), torch.zeros(())

    def landed(output: Tensor, latents: Tensor) -> float:
        clean, noise = split_prediction(kind, output.double(), latents.double(), alpha)
        return float(ahead**0.5 * clean + (1 - ahead) ** 0.5 * noise)

    return landed(zero, one), landed(one, zero)


def guided(
    model: DiffusionModel,
    latents: Tensor,
    timestep: int,
    conditioning: Conditioning,
    empty: Conditioning,
    guidance: float,
) -> Tensor:
    """Return the model's output in float32 with classifier-free guidance from ``empty`` to ``conditioning``."""
    count, dtype = len(latents), conditioning.context.dtype
    moments = torch.full((count,), timestep, device=latents.device)
    if guidance == 1:
        return model.predict_noise(latents.to(dtype), moments, conditioning).float()
    twice = torch.cat([latents, latents]).to(dtype)
    both = Conditioning.cat([empty.expand(count), conditioning])
    low, high = model.predict_noise(twice, torch.cat([moments, moments]), both).float().chunk(2)
    return low + guidance * (high - low)


def split_prediction(kind: str, output: Tensor, latents: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return the clean latents and the noise that a model's ``output`` for noisy ``latents`` implies.

    ``kind`` is ``epsilon`` or ``v_prediction`` (arXiv 2202.00512, appendix D), else ``ValueError`` is raised. ``alpha``
    is the share of the signal that is left at the timestep (``alphas_cumprod``), one number or ``[n]``.
    """
    signal, spread = roots(alpha, latents)
    if kind == "epsilon":
        return (latents - spread * output) / signal, output
    if kind == "v_prediction":
        return signal * latents - spread * output, signal * output + spread * latents
    raise ValueError(f"prediction type '{kind}' is unknown; known: epsilon, v_prediction")


def roots(alpha: float | Tensor, like: Tensor) -> tuple[float | Tensor, float | Tensor]:
    """Return ``sqrt(alpha)`` and ``sqrt(1 - alpha)``, the factors of signal and noise, shaped to multiply ``like``."""
    if isinstance(alpha, float):
        return alpha**0.5, (1 - alpha) ** 0.5
    alpha = alpha.double()[:, None, None, None]
    return alpha.sqrt().to(like.device, like.dtype), (1 - alpha).sqrt().to(like.device, like.dtype)


def timesteps(trained: int, steps: int) -> list[int]:
    """Return ``steps`` evenly spaced timesteps from high to low, of which the last is 1.

    ``trained`` is the number of timesteps that the model was trained on. Diffusers calls this spacing "leading" with
    an offset of 1, as in Stable Diffusion.
    """
    stride = trained // steps
    return [index * stride + 1 for index in reversed(range(steps))]


def initial_latents(model: DiffusionModel, seeds: Sequence[Seed]) -> Tensor:
    """Return noise ``[n, c, h, w]`` in float32, each from its own seed."""
    shape = model.latent_shape()
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(model.device)


def _check(
    model: DiffusionModel, prompts: Sequence[str], seeds: Sequence[Seed], steps: int, batch: int, guidance: float
) -> None:
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(f"need as many seeds as prompts and at least one, got {len(seeds)} and {len(prompts)}")
    check_steps(model, steps)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    check_guidance(guidance)


def check_guidance(guidance: float) -> None:
    """Raise ``ValueError`` for a guidance outside of 0 to 100."""
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise ValueError(f"guidance must be from 0 to {MOST_GUIDANCE:g}, got {guidance}")


def check_steps(model: DiffusionModel, steps: int, name: str = "steps") -> None:
    """Raise ``ValueError`` unless there is a timestep for each step; ``name`` is what the message calls the steps."""
    most = len(model.alphas_cumprod) - 1
    if not 1 <= steps <= most:
        raise ValueError(f"{name} must be from 1 to {most}, got {steps}")


def _counter(callback: Callback | None, total: int) -> Advance:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if callback:
            callback(done, total, "sampling")

    return advance
