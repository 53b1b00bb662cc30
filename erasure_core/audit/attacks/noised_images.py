"""Partly noised pictures of the concept, completed by the edited model (When Are Concepts Erased, arXiv 2505.17013).

A model that forgot only the name still completes what it sees. How much the picture itself gives away shows in the
control, the same completed without a prompt.
"""

from __future__ import annotations

import time

import torch

from ...sampling.ddim import timesteps
from ...training.denoising import noised
from .attempt import Attempt, Scene, attempt, dealt

STRENGTH = 0.7  # the share of the sampling steps that are drawn anew


def by_noised_pictures(scene: Scene) -> Attempt:
    """Complete under the concept's prompts."""
    return _completed(scene, "noised", scene.prompts)


def control(scene: Scene) -> Attempt:
    """Complete under the empty prompt."""
    return _completed(scene, "noised, no prompt", [""])


def _completed(scene: Scene, attack: str, prompts: list[str]) -> Attempt:
    began, edited = time.monotonic(), scene.edited
    skip = round((1 - STRENGTH) * scene.sampling_steps)
    left = timesteps(len(edited.alphas_cumprod), scene.sampling_steps)[skip:]
    clean = torch.stack(dealt(list(scene.latents), scene.pictures))[: scene.pictures]
    asked = dealt(prompts, len(clean))[: len(clean)]
    noise = torch.randn(clean.shape, generator=scene.generator()).to(clean.device)
    start = noised(clean, noise, edited.alphas_cumprod[[left[0]] * len(clean)])
    context = edited.encode_prompts(asked).context
    return attempt(scene, attack, asked, context, began=began, start=start, skip=skip)
