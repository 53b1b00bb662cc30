"""The attack "finetune": a LoRA on the edited model's attention, trained on other concepts, then on the erased one.

What training on other concepts brings back was only hidden. A model can be taught any concept from pictures of it, so
what counts there is the number of steps: few, if the model still knows how the concept looks and lacks only its name.
That training on other things can undo an erasure is shown in arXiv 2410.08074.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...concepts.common import common_concepts
from ...concepts.parse import Concept
from ...conditioning import Conditioning
from ...progress import part_of
from ...sampling.ddim import generate
from ...training.denoising import denoising_error
from ...training.loop import descend, train
from ...training.trainable import StandIns
from .attempt import Attempt, Scene, attempt, in_turn

SCOPE, RANK = "attention", 8
LEARNING_RATE, BATCH = 1e-3, 4
OTHERS = 16  # pictures of other concepts
OTHER_SEED = 104729  # added to the seed for the pictures of other concepts
CHECKS = 10  # how often the pictures are judged while the concept is learned
BACK = 0.5  # the share of them that shows the concept when it counts as back


def by_finetuning_on_others(scene: Scene) -> Attempt:
    """Train on pictures of everyday concepts that the original model draws, and draw the erased concept."""
    names = common_concepts([Concept(scene.concept)])
    chosen = torch.randperm(len(names), generator=scene.generator())[:OTHERS].tolist()
    prompts = [names[index] for index in chosen]
    seeds = range(scene.seed + OTHER_SEED, scene.seed + OTHER_SEED + len(prompts))
    images = generate(
        scene.original, prompts, seeds, steps=scene.sampling_steps, guidance=scene.guidance,
        callback=part_of(scene.callback, 0, 2, steps=1000),
    )  # fmt: skip
    latents = scene.edited.encode_images(images.to(scene.edited.device)).float()
    rest = replace(scene, callback=part_of(scene.callback, 1, 2, steps=1000))
    return _finetuned(rest, "finetune, others", latents, scene.edited.encode_prompts(prompts))


def by_finetuning(scene: Scene) -> Attempt:
    """Train on the pictures of the concept, at most until half of what the model draws shows it.

    Without ``scene.shows`` all steps are made.
    """
    wordings = scene.edited.encode_prompts(scene.prompts)
    count = len(scene.latents)
    latents = scene.latents.repeat(len(wordings), 1, 1, 1)
    conditioning = wordings[torch.arange(len(wordings)).repeat_interleave(count)]
    return _finetuned(scene, "finetune", latents, conditioning, scene.shows)


def _finetuned(
    scene: Scene,
    attack: str,
    latents: Tensor,
    conditioning: Conditioning,
    shows: Callable[[Tensor], Sequence[bool]] | None = None,
) -> Attempt:
    """Train on ``latents[i]`` with the prompt ``conditioning[i]``, and draw with the concept's name.

    With ``shows`` the pictures are drawn and judged ``CHECKS`` times, and training ends when the concept is back.
    """
    began, edited, generator = time.monotonic(), scene.edited, scene.generator()
    conditioning = conditioning.detach()
    matrices = {name: weight for name, weight in edited.weights_of(SCOPE).items() if weight.ndim == 2}
    lora = StandIns(matrices, RANK, generator)
    optimiser = torch.optim.Adam(lora.parameters, LEARNING_RATE)
    losses: list[float] = []
    drawn: dict[int, Attempt] = {}

    def update(step: int) -> Tensor:
        which = torch.randint(len(latents), (BATCH,), generator=generator)
        noise = torch.randn(latents[which].shape, generator=generator).to(latents.device)
        timesteps = torch.randint(len(edited.alphas_cumprod), (BATCH,), generator=generator)
        tuned = edited.with_weights(lora.weights())
        loss = denoising_error(tuned, latents[which], noise, timesteps, conditioning[which])
        descend(loss, lora.parameters, optimiser)
        losses.append(float(loss.detach()))
        return loss

    def draw() -> Attempt:
        if len(losses) not in drawn:
            tuned = edited.with_weights({name: weight.detach() for name, weight in lora.weights().items()})
            drawn.clear()
            drawn[len(losses)] = _drawn(replace(scene, edited=tuned), attack, losses, began)
        return drawn[len(losses)]

    def back() -> bool:
        if shows is None or len(losses) % -(-scene.budget.steps // CHECKS):
            return False
        shown = shows(draw().images)
        return sum(shown) >= BACK * len(shown)

    train(update, scene.budget, what=attack, enough=back, callback=scene.callback)
    return draw()


def _drawn(scene: Scene, attack: str, losses: list[float], began: float) -> Attempt:
    """Draw with the concept's name; the progress stays where training is, so that the user can still cancel."""
    callback, done = scene.callback, len(losses)
    if callback:
        scene = replace(scene, callback=lambda step, steps, what: callback(done, scene.budget.steps, what))
    prompts = in_turn(scene.prompts, scene.pictures)
    return attempt(scene, attack, prompts, scene.edited.encode_prompts(prompts), began=began, losses=losses)
