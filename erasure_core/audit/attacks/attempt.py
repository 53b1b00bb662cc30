"""What an attack is given, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...concepts.templates import wordings
from ...model import Callback, DiffusionModel
from ...sampling.ddim import ddim, initial_latents
from ...training.loop import Budget

BATCH = 32  # pictures at once


@dataclass(frozen=True)
class Scene:
    """The model before and after its erasure, and all that attacks need besides; nothing of it is written."""

    original: DiffusionModel
    edited: DiffusionModel
    concept: str
    kind: str
    images: Tensor
    """Pictures of the concept, ``[n, 3, h, w]`` in 0 to 1."""
    listed: tuple[str, ...] = ()
    """Prompts of the user's own."""
    pictures: int = 8
    """How many each attack draws in the end."""
    sampling_steps: int = 15
    guidance: float = 3.0
    budget: Budget = field(default_factory=lambda: Budget(200))
    """Of each attack that searches."""
    seed: int = 0
    callback: Callback | None = None

    @cached_property
    def prompts(self) -> list[str]:
        return wordings(self.kind, self.concept)

    @cached_property
    def latents(self) -> Tensor:
        """Of the pictures."""
        return self.edited.encode_images(self.images.to(self.edited.device)).float()

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Attempt:
    """What one attack made: for picture i of ``images`` ``[n, 3, h, w]``, ``asked[i]`` in words and its context."""

    attack: str
    asked: tuple[str, ...]
    contexts: Tensor
    """``[n, tokens, d]``: the adversarial conditioning."""
    images: Tensor
    steps: int
    """Updates that the search took; 0 for an attack that does not search."""
    seconds: float
    losses: tuple[float, ...] = ()


@torch.no_grad()
def attempt(
    scene: Scene,
    attack: str,
    asked: Sequence[str],
    contexts: Tensor,
    *,
    began: float,
    losses: Sequence[float] = (),
    start: Tensor | None = None,
    skip: int = 0,
) -> Attempt:
    """Draw through the edited model: picture i under ``contexts[i]``, from its own seed or from ``start[i]``.

    ``skip`` of the sampling steps are left out at the beginning, for a ``start`` that is noised to where they lead.
    """
    edited, count = scene.edited, len(contexts)
    noise = initial_latents(edited, range(scene.seed, scene.seed + count)) if start is None else start
    contexts, noise = contexts.detach().to(edited.device), noise.to(edited.device)
    empty = edited.encode_prompts([""]).context
    done, total = 0, -(-count // BATCH) * (scene.sampling_steps - skip)

    def visit(timestep: int, latents: Tensor) -> None:
        nonlocal done
        done += 1
        if scene.callback:
            scene.callback(done, total, f"{attack}, sampling")

    drawn = []
    for part in torch.arange(count).split(BATCH):
        final = ddim(
            edited, noise[part], contexts[part], empty, steps=scene.sampling_steps, guidance=scene.guidance,
            visit=visit, skip=skip,
        )  # fmt: skip
        drawn.append(edited.decode_latents(final).float().cpu())
    spent = time.monotonic() - began
    return Attempt(attack, tuple(asked), contexts.cpu(), torch.cat(drawn), len(losses), spent, tuple(losses))


def dealt(items: Sequence, count: int) -> list:
    """``count`` of ``items`` in turn, from the first again when there are fewer; all of them if there are more."""
    return [items[index % len(items)] for index in range(max(count, len(items)))]
