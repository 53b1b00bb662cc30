"""The input and the result of an attack, and how its pictures are drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from ...concepts.templates import wordings
from ...conditioning import Conditioning
from ...model import Callback, DiffusionModel
from ...sampling.ddim import ddim, initial_latents
from ...training.loop import Budget

BATCH = 32  # pictures that are drawn at once
T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """The input of an attack: the model before and after the erasure, and the settings. An attack changes nothing."""

    original: DiffusionModel
    edited: DiffusionModel
    concept: str
    kind: str
    images: Tensor
    """Pictures of the concept, ``[n, 3, h, w]`` with values from 0 to 1."""
    user_prompts: tuple[str, ...] = ()
    """Prompts that the user wants to try."""
    pictures: int = 8
    """The number of pictures that each attack draws at its end."""
    sampling_steps: int = 15
    """DDIM steps of each picture."""
    guidance: float = 3.0
    """The scale of classifier-free guidance."""
    budget: Budget = field(default_factory=lambda: Budget(200))
    """The limits of each attack that searches: steps, and seconds."""
    seed: int = 0
    callback: Callback | None = None
    shows: Callable[[Tensor], Sequence[bool]] | None = None
    """Says of pictures ``[n, 3, h, w]`` which show the concept; ``None`` where nobody judges."""

    @cached_property
    def prompts(self) -> list[str]:
        """The templates of prompts, filled with the concept."""
        return wordings(self.kind, self.concept)

    @cached_property
    def latents(self) -> Tensor:
        """The latents of ``images``, float32 ``[n, c, h, w]``."""
        return self.edited.encode_images(self.images.to(self.edited.device)).float()

    def generator(self) -> torch.Generator:
        """Return a new random generator, which always begins with ``seed``."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Attempt:
    """The result of an attack: n pictures, and each one's prompt and conditioning."""

    attack: str
    """The name of the attack."""
    prompts: tuple[str, ...]
    """The prompts, or descriptions of contexts that no prompt gives."""
    conditioning: Conditioning
    """The adversarial conditioning, of n prompts."""
    images: Tensor
    """``[n, 3, h, w]`` with values from 0 to 1."""
    steps: int
    """Updates that the search took; 0 for an attack that does not search."""
    seconds: float
    """The time from the beginning of the search to the last picture."""
    losses: tuple[float, ...] = ()
    """The loss of each update."""


@torch.no_grad()
def attempt(
    scene: Scene,
    attack: str,
    prompts: Sequence[str],
    conditioning: Conditioning,
    *,
    began: float,
    losses: Sequence[float] = (),
    start: Tensor | None = None,
    skip: int = 0,
) -> Attempt:
    """Draw a picture with the edited model from each prompt of ``conditioning``, and return the attempt.

    ``prompts`` are the n prompts for the record. ``began`` is ``time.monotonic()`` at the beginning of the attack, and
    ``losses`` are those of its search. Picture i starts from noise of its own seed, or from the latents ``start[i]``,
    with which the first ``skip`` sampling steps are left out.
    """
    edited, count = scene.edited, len(conditioning)
    noise = initial_latents(edited, range(scene.seed, scene.seed + count)) if start is None else start
    conditioning, noise = conditioning.detach().to(edited.device), noise.to(edited.device)
    empty = edited.encode_prompts([""])
    done, total = 0, -(-count // BATCH) * (scene.sampling_steps - skip)

    def visit(timestep: int, latents: Tensor) -> None:
        nonlocal done
        done += 1
        if scene.callback:
            scene.callback(done, total, f"{attack}, sampling")

    drawn = []
    for part in torch.arange(count).split(BATCH):
        final = ddim(
            edited, noise[part], conditioning[part], empty, steps=scene.sampling_steps, guidance=scene.guidance,
            visit=visit, skip=skip,
        )  # fmt: skip
        drawn.append(edited.decode_latents(final).float().cpu())
    spent = time.monotonic() - began
    return Attempt(attack, tuple(prompts), conditioning.to("cpu"), torch.cat(drawn), len(losses), spent, tuple(losses))


def in_turn(items: Sequence[T], count: int) -> list[T]:
    """Return all ``items``, and if they are fewer than ``count``, go on from the first until there are so many."""
    return [items[index % len(items)] for index in range(max(count, len(items)))]
