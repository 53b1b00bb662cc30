"""The attack "noised": partly noised pictures of the concept that the edited model completes (arXiv 2505.17013).

A model that has lost only the name still completes such pictures. The control completes them without a prompt, and so
shows how much the pictures themselves give away.
"""

from __future__ import annotations

import time

import torch

from ...sampling.ddim import timesteps
from ...training.denoising import noised
from .attempt import Attempt, Scene, attempt, in_turn

STRENGTH = 0.7  # the share of the sampling steps that the edited model draws


def by_noised_pictures(scene: Scene) -> Attempt:
    """Complete the pictures with prompts that name the concept."""
    return _completed(scene, "noised", scene.prompts)


def control(scene: Scene) -> Attempt:
    """Complete the pictures with the empty prompt."""
    return _completed(scene, "noised, no prompt", [""])


def _completed(scene: Scene, attack: str, prompts: list[str]) -> Attempt:
    began, edited = time.monotonic(), scene.edited
    skip = round((1 - STRENGTH) * scene.sampling_steps)
    left = timesteps(len(edited.alphas_cumprod), scene.sampling_steps)[skip:]
    clean = torch.stack(in_turn(list(scene.latents), scene.pictures))[: scene.pictures]
    prompts = in_turn(prompts, len(clean))[: len(clean)]
    noise = torch.randn(clean.shape, generator=scene.generator()).to(clean.device)
    start = noised(clean, noise, edited.alphas_cumprod[[left[0]] * len(clean)])
    return attempt(scene, attack, prompts, edited.encode_prompts(prompts), began=began, start=start, skip=skip)
