"""Denoising: noised latents, the model's output for them, and its error with gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..conditioning import Conditioning
from ..model import DiffusionModel
from ..sampling.ddim import roots
from .loop import gradients


def predict(
    model: DiffusionModel,
    latents: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """Return the output of ``model.predict_noise`` in float32, ``[n, c, h, w]``.

    ``latents`` are noised, ``[n, c, h, w]``, to ``timesteps`` ``[n]``, and ``conditioning`` is that of n prompts. With
    ``gradient_checkpointing`` (arXiv 1604.06174) each latent goes through the model on its own, and once more during
    the backward pass: then the activations of a single latent are in memory at a time, and it takes longer. It is off
    by default.
    """
    if not (gradient_checkpointing and torch.is_grad_enabled()):
        return model.predict_noise(latents, timesteps, conditioning).float()
    each = zip(latents.split(1), timesteps.split(1), conditioning.split(1), strict=True)
    return torch.cat([checkpoint(model.predict_noise, *one, use_reentrant=False) for one in each]).float()


def noised(clean: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Return the noised latents ``x_t`` of clean ones, ``[n, c, h, w]`` (DDPM, arXiv 2006.11239, eq. 4).

    ``noise`` is standard normal, ``[n, c, h, w]``. ``alphas``, ``[n]``, are the shares of the signal left at their
    timesteps (``alphas_cumprod``), from 0 to 1.
    """
    signal, spread = roots(alphas, clean)
    return signal * clean + spread * noise


def denoising_target(kind: str, clean: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Return the output of a perfect model, ``[n, c, h, w]``: the noise for ``epsilon``, else the velocity.

    ``kind`` is ``epsilon`` or ``v_prediction``; ``clean``, ``noise`` and ``alphas`` are those of ``noised``. The
    velocity is that of arXiv 2202.00512, appendix D. Raises ``ValueError`` for another ``kind``.
    """
    if kind == "epsilon":
        return noise
    if kind != "v_prediction":
        raise ValueError(f"prediction type '{kind}' is unknown; known: epsilon, v_prediction")
    signal, spread = roots(alphas, clean)
    return signal * noise - spread * clean


def denoising_error(
    model: DiffusionModel,
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    target: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error of the model's output for noised latents, the loss of diffusion models.

    The latents are ``clean``, ``[n, c, h, w]``, noised with ``noise`` to ``timesteps`` ``[n]``; ``conditioning`` is
    that of n prompts. The output is compared with ``target``, ``[n, c, h, w]``; by default with the noise, or with the
    velocity for models that predict it (``denoising_target``).
    """
    alphas = model.alphas_cumprod[timesteps]
    kind = model.prediction_type
    latents = noised(clean, noise, alphas)
    output = predict(model, latents, timesteps.to(clean.device), conditioning)
    return (output - (denoising_target(kind, clean, noise, alphas) if target is None else target)).square().mean()


def conditioning_gradient(
    model: DiffusionModel,
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    target: Tensor | None = None,
) -> tuple[Tensor, Conditioning]:
    """Return ``denoising_error`` and its gradient with respect to ``conditioning``, both without a graph.

    The arguments are those of ``denoising_error``. The latents go through the model and back one after the other, so
    that the activations of a single one are in memory at a time.
    """
    count = len(clean)
    error, parts = torch.zeros((), device=clean.device), []
    for one in torch.arange(count).split(1):
        leaf = conditioning[one].detach().requires_grad_()
        own_target = None if target is None else target[one]
        share = denoising_error(model, clean[one], noise[one], timesteps[one], leaf, own_target) / count
        parts.append(Conditioning(*gradients(share, leaf.tensors)))
        error += share.detach()
    return error, Conditioning.cat(parts)
