"""Noised latents, what a model should put out for them, its error and the gradient of it."""

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
    """The model's output in float32, as ``model.predict_noise`` gives it.

    With ``gradient_checkpointing`` (arXiv 1604.06174) each latent goes through the model on its own and once more
    during the backward pass, so that the activations of one are in memory at a time instead of all.
    """
    if not (gradient_checkpointing and torch.is_grad_enabled()):
        return model.predict_noise(latents, timesteps, conditioning).float()
    each = zip(latents.split(1), timesteps.split(1), conditioning.split(1), strict=True)
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
    model: DiffusionModel, clean: Tensor, noise: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """The mean squared error of the model's output at ``clean`` noised to ``timesteps``; the velocity's for v."""
    alphas = model.alphas_cumprod[timesteps]
    kind = model.prediction_type
    latents = noised(clean, noise, alphas)
    output = predict(model, latents, timesteps.to(clean.device), conditioning)
    return (output - denoising_target(kind, clean, noise, alphas)).square().mean()


def conditioning_gradient(
    model: DiffusionModel, clean: Tensor, noise: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> tuple[Tensor, Conditioning]:
    """``denoising_error`` and its gradient with respect to ``conditioning``, neither with a graph.

    One latent after the other goes through the model and back, so that the activations of one are in memory at a time
    and none is computed twice.
    """
    count = len(clean)
    error, parts = torch.zeros((), device=clean.device), []
    for one in torch.arange(count).split(1):
        leaf = conditioning[one].detach().requires_grad_()
        share = denoising_error(model, clean[one], noise[one], timesteps[one], leaf) / count
        parts.append(Conditioning(*gradients(share, leaf.tensors)))
        error += share.detach()
    return error, Conditioning.cat(parts)
