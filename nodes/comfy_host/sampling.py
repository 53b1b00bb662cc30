"""Drawing pictures as KSampler, "CLIP Text Encode" and "VAE Decode" do, with prompts whose brackets are text."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from torch import Tensor

from .text_encoders import tokenized

SAMPLERS, SCHEDULERS = comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS
FULL_DENOISE = 1.0
DOWNSCALE_RATIOS = ("downscale_ratio_spacial", "downscale_ratio_temporal")  # spelled so in ComfyUI


@dataclass(frozen=True)
class Sampling:
    """The settings of KSampler, with its names and ranges."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str


def draw(model, clip, vae, prompt: str, negative: str, latent: dict, sampling: Sampling) -> Tensor:
    """Draw images ``[n, 3, h, w]`` with values from 0 to 1, one for each latent of the batch, as KSampler does.

    ``latent`` is a LATENT, whose batch and size the images have; ``negative`` is the negative prompt. In both prompts
    brackets are text and set no weights.
    """
    return draw_both(model, clip, vae, prompt, negative, latent, sampling)[0]


def draw_both(model, clip, vae, prompt: str, negative: str, latent: dict, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw as ``draw`` does, and return the images and their latents ``[n, c, h, w]``, both float32 on the CPU."""
    start = _fitting_latents(model, latent)
    samples = comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(start, sampling.seed, latent.get("batch_index")),
        sampling.steps,
        sampling.cfg,
        sampling.sampler_name,
        sampling.scheduler,
        _conditioning(clip, prompt),
        _conditioning(clip, negative),
        start,
        denoise=FULL_DENOISE,
        callback=latent_preview.prepare_callback(model, sampling.steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=sampling.seed,
    )
    images = vae.decode(samples)
    images = images.reshape(-1, *images.shape[-3:])  # VAEs of video have a dimension more
    return images.movedim(-1, 1).float().cpu(), samples.float().cpu()


def _fitting_latents(model, latent: dict) -> Tensor:
    """Return the latents of a LATENT as KSampler fits them to a MODEL, by what this version of ComfyUI reads of it."""
    fit = comfy.sample.fix_empty_latent_channels
    known = inspect.signature(fit).parameters
    return fit(model, latent["samples"], **{name: latent.get(name) for name in DOWNSCALE_RATIOS if name in known})


def _conditioning(clip, text: str):
    return clip.encode_from_tokens_scheduled(tokenized(clip, text))
