"""Purification: drawing real pictures again without a concept, by DDIM inversion and sampling with the edited model.

This is our reconstruction of what AbO's paper (arXiv 2312.12807) calls purification, from its abstract; it works with
erasures of all methods. A picture that the erasure does not affect comes back as the autoencoder shows it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import check_images, checked
from ..concepts.names import Named
from ..conditioning import Conditioning
from ..erasures.erasure import Erasure
from ..model import Callback, DiffusionModel
from .ddim import check_steps, ddim, invert


@checked
@torch.no_grad()
def purify(
    model: DiffusionModel,
    erasure: Erasure,
    images: Tensor,
    *,
    prompt: str = "",
    steps: int = 30,
    guidance: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Draw ``images`` again as the edited model would have drawn them: ``[n, 3, h, w]`` from 0 to 1, on the CPU.

    ``model`` is the original one; it is not changed. ``prompt`` describes the pictures and names the concept; by
    default it is the names of the erased concepts. Inversion and sampling take ``steps`` DDIM steps each, with
    classifier-free ``guidance``: 1, the default, is none and keeps most of a picture. ``callback`` gets the progress.
    Raises ``ValueError`` for settings that cannot be used, and when latents are not finite.
    """
    check_settings(model, images, steps, guidance)
    prompt = prompt.strip() or _names_in_one_prompt(model, erasure)
    done = 0

    def visit(timestep: int, latents: Tensor) -> None:
        nonlocal done
        done += 1
        if callback:
            callback(done, 2 * steps, "inverting" if done <= steps else "sampling")

    clean = model.encode_images(images.to(model.device)).float()
    both = _conditionings(model, prompt, len(images))
    noise = invert(model, clean, *both, steps=steps, guidance=guidance, visit=visit)
    _check_finite(noise, "inverting")
    with erasure.applied_to(model):
        both = _conditionings(model, prompt, len(images))
        edited = ddim(model, noise, *both, steps=steps, guidance=guidance, visit=visit)
    _check_finite(edited, "sampling")
    return model.decode_latents(edited).float().cpu()


def names_a_concept(prompt: str, erasure: Erasure) -> bool:
    """Return whether a prompt for ``purify`` names an erased concept, as it should; the empty prompt counts as such."""
    return not prompt.strip() or Named([concept.name for concept in erasure.concepts]).within(prompt) is not None


def _names_in_one_prompt(model: DiffusionModel, erasure: Erasure) -> str:
    names = [concept.name for concept in erasure.concepts]
    try:
        model.reads(", ".join(names))
    except ValueError:
        raise ValueError(
            f"prompt is empty, and the names of the {len(names)} erased concepts are too long for one prompt; describe "
            "the pictures in prompt, with the concept that they show"
        ) from None
    return ", ".join(names)


def check_settings(model: DiffusionModel, images: Tensor, steps: int, guidance: float) -> None:
    """Raise ``ValueError`` for a setting of ``purify`` that cannot be used."""
    check_images(images)
    check_steps(model, steps)
    if not (math.isfinite(guidance) and guidance >= 0):
        raise ValueError(f"guidance must be a finite number of at least 0, got {guidance}")


def _check_finite(latents: Tensor, what: str) -> None:
    if not torch.isfinite(latents).all():
        raise ValueError(f"{what} left the numbers that make sense; lower guidance, or raise steps")


def _conditionings(model: DiffusionModel, prompt: str, count: int) -> tuple[Conditioning, Conditioning]:
    conditioning = model.encode_prompts([prompt, ""])
    return conditioning[:1].expand(count), conditioning[1:]
