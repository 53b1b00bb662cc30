"""The method DoCo: concept domain correction with a concept-preserving gradient (arXiv 2405.15304, AAAI 2025).

Adversarial: a discriminator learns to tell what the frozen model makes of the anchor's prompt from what the edited
model makes of the concept's; the cross-attention keys and values learn to pass for the anchor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import Seed, checked
from ..concepts.parse import Concept, single_concept
from ..concepts.readable import check_readable
from ..concepts.templates import wordings
from ..conditioning import Conditioning
from ..erasures.erasure import Erasure
from ..erasures.erasure_record import Origin
from ..model import Callback, DiffusionModel, entry_weights, fingerprint
from ..sampling.ddim import sample_latents, split_prediction
from ..settings import Settings, setting
from ..training.denoising import denoising_target, noised, predict
from ..training.gan import patch_discriminator, preserving
from ..training.learned_settings import RATE, kind_setting, steps_setting
from ..training.loop import Budget, TrainingError, check_rank, descend, gradients, take_step, train
from ..training.memory import check_room
from ..training.trainable import StandIns
from .inputs import GradientCheckpointing, Training
from .method import Method

ANCHOR, TARGET = 0.0, 1.0  # the discriminator's labels


@dataclass(frozen=True)
class DoCoSettings(Settings):
    """Settings of ``doco``; the published ones."""

    kind: str = kind_setting()
    steps: int = steps_setting(2000)
    learning_rate: float = setting(6e-6, above=0, help=RATE)
    discriminator_rate: float = setting(1e-4, above=0, help="How far each update of the discriminator goes.")
    batch_size: int = setting(8, least=2, help="How many noisy latents an update learns from.")
    warm_up: float = setting(
        0.5, least=0, below=1, help="The share of the steps in which only the discriminator learns."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quiet == self.steps:
            raise ValueError(
                f"warm_up {self.warm_up:g} leaves none of {self.steps} steps for the model; lower it, or raise steps"
            )

    @property
    def quiet(self) -> int:
        """The steps in which only the discriminator learns."""
        return round(self.warm_up * self.steps)


DOCO: Mapping[str, DoCoSettings] = {
    "object": DoCoSettings("object"),
    "style": DoCoSettings("style", discriminator_rate=5e-4),
}
TOY_DOCO: Mapping[str, DoCoSettings] = {
    "object": DoCoSettings("object", steps=480, learning_rate=1e-3, discriminator_rate=1e-3, warm_up=0.2),
    "style": DoCoSettings("style", steps=360, learning_rate=1e-3, discriminator_rate=1e-3, warm_up=0.2),
}


@checked
def doco(
    model: DiffusionModel,
    concept: Sequence[Concept | str] | Concept | str,
    settings: DoCoSettings = DOCO["object"],
    *,
    anchor: str = "",
    anchor_latents: Tensor | None = None,
    anchors: int = 32,
    seconds: float | None = None,
    rank: int | None = None,
    gradient_checkpointing: bool = False,
    seed: Seed = 0,
    callback: Callback | None = None,
) -> Erasure:
    """Turn ``concept`` into ``anchor``, the harmless class (``parachute -> airplane``).

    ``settings`` is one of the presets ``DOCO``, or a ``DoCoSettings``. ``anchor`` may also follow the concept's name
    and an arrow.
    ``anchor_latents`` ``[n, c, h, w]`` are clean latents of the anchor; without them the model makes ``anchors``
    itself. For the first ``warm_up`` of the steps only the discriminator learns. With ``rank`` the changes are
    low-rank; ``gradient_checkpointing`` saves memory and costs time. Raises ``ValueError`` for settings that cannot be
    used and ``TrainingError`` when the loss explodes, or ``seconds`` end before the model began to learn; the model is
    only read.
    """
    budget, quiet = Budget(settings.steps, seconds), settings.quiet
    if anchors < 1:
        raise ValueError(f"anchors must be at least 1, got {anchors}")
    check_rank(rank)
    concept = _pair(concept, anchor)
    check_readable(model, concept)
    check_rank(rank, model.weights_of("cross-attention"))
    generator = torch.Generator().manual_seed(seed)
    prompts = wordings(settings.kind, concept.instead), wordings(settings.kind, concept.name)
    encoded = model.encode_prompts([*prompts[0], *prompts[1]]).detach()
    anchor_contexts, target_contexts = encoded.split([len(prompts[0]), len(prompts[1])])
    if anchor_latents is None:
        drawn = [prompts[0][index % len(prompts[0])] for index in range(anchors)]
        anchor_latents = sample_latents(model, drawn, range(seed, seed + anchors), callback=callback)
        if not torch.isfinite(anchor_latents).all():
            raise TrainingError(f"what the model draws for '{concept.instead}' holds NaN; nothing was changed")
    clean_latents = check_latents(anchor_latents, model.latent_shape()).float().cpu()

    stand_ins = StandIns(model.weights_of("cross-attention"), rank, generator)
    judge = patch_discriminator(clean_latents.shape[1:], seed).to(model.device)
    generator_optimiser = torch.optim.Adam(stand_ins.parameters, settings.learning_rate, betas=(0.5, 0.999))
    judge_optimiser = torch.optim.Adam(judge.parameters(), settings.discriminator_rate, betas=(0.5, 0.999))
    edited, at_once = model.with_weights(stand_ins.weights()), 1 if gradient_checkpointing else settings.batch_size
    check_room("DoCo", edited, stand_ins.parameters, encoded[:1], clean_latents.shape, at_once, callback)

    def update(step: int) -> Tensor:
        which = torch.randint(len(clean_latents), (settings.batch_size,), generator=generator)
        clean = clean_latents[which].to(model.device)
        timesteps = torch.randint(len(model.alphas_cumprod), (settings.batch_size,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        which = torch.randint(len(anchor_contexts), (settings.batch_size,), generator=generator)
        alphas = model.alphas_cumprod[timesteps]
        moment = Moment(model.prediction_type, clean, noise, timesteps, alphas, gradient_checkpointing)
        edited = model.with_weights(stand_ins.weights())
        with torch.no_grad():
            real = moment.predicted(model, anchor_contexts[which])
        if step < quiet:
            with torch.no_grad():
                fake = moment.predicted(edited, target_contexts[which])
            return _teach(judge, judge_optimiser, real, fake)
        fake = moment.predicted(edited, target_contexts[which])
        told = _teach(judge, judge_optimiser, real, fake.detach())
        again = model.with_weights(stand_ins.weights())
        safe = generator_gradients(judge, fake, moment, again, anchor_contexts[which], stand_ins.parameters)
        take_step(safe, stand_ins.parameters, generator_optimiser)
        return told

    losses = train(update, budget, what="DoCo", callback=callback)
    if seconds is not None and len(losses) <= quiet:  # all steps are more
        enough, whole = (math.ceil(seconds * count / len(losses)) for count in (quiet, settings.steps))
        raise TrainingError(
            f"seconds: after {seconds:g} only the discriminator had learned, and nothing was changed; more than "
            f"{enough} are needed here, {whole} for all {settings.steps} steps"
        )
    made_on = fingerprint(entry_weights(model))
    made_with = {**asdict(settings), "rank": rank, "seed": seed}
    return Erasure(stand_ins.deltas(), (Origin("doco", (concept,), made_with, made_on, losses=losses),))


@dataclass(frozen=True)
class Moment:
    """Clean latents ``[n, c, h, w]``, noised to ``timesteps`` ``[n]``, and a model's predictions for them."""

    kind: str
    clean: Tensor
    noise: Tensor
    timesteps: Tensor
    alphas: Tensor
    gradient_checkpointing: bool = False

    @cached_property
    def latents(self) -> Tensor:
        return noised(self.clean, self.noise, self.alphas)

    def output(self, model: DiffusionModel, conditioning: Conditioning) -> Tensor:
        timesteps = self.timesteps.to(self.clean.device)
        return predict(model, self.latents, timesteps, conditioning, self.gradient_checkpointing)

    def predicted(self, model: DiffusionModel, conditioning: Conditioning) -> Tensor:
        """Return the clean latents that the model's output implies."""
        return split_prediction(self.kind, self.output(model, conditioning), self.latents, self.alphas)[0]

    def error(self, model: DiffusionModel, conditioning: Conditioning) -> Tensor:
        """Return the ordinary denoising loss, a mean squared error."""
        target = denoising_target(self.kind, self.clean, self.noise, self.alphas)
        return F.mse_loss(self.output(model, conditioning), target)


def generator_gradients(
    judge: torch.nn.Module,
    fake: Tensor,
    moment: Moment,
    edited: DiffusionModel,
    anchor: Conditioning,
    parameters: Sequence[Tensor],
) -> list[Tensor]:
    """Return the gradient with which the edited model learns, for each of its ``parameters``.

    That of passing ``fake``, its pictures of the concept, for the anchor, less what works against denoising the latents
    of the anchor under its own prompts, ``anchor``; each parameter by itself. The graph of ``fake``
    is let go of before the second one is built.
    """
    unlearned = gradients(adversarial_loss(judge, fake), parameters)
    kept = gradients(moment.error(edited, anchor), parameters)
    return [preserving(*pair) for pair in zip(unlearned, kept, strict=True)]


def adversarial_loss(judge: torch.nn.Module, fake: Tensor) -> Tensor:
    """Return the loss of the edited model: cross entropy of the discriminator's verdict on ``fake`` with "anchor"."""
    logits = judge(fake)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, ANCHOR))


def discriminator_loss(judge: torch.nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the loss of the discriminator: binary cross entropy over ``real`` (anchor) and ``fake`` (target)."""
    logits = judge(torch.cat([real, fake]))
    labels = torch.full_like(logits, ANCHOR)
    labels[len(real) :] = TARGET
    return F.binary_cross_entropy_with_logits(logits, labels)


def _teach(judge: torch.nn.Module, optimiser: torch.optim.Optimizer, real: Tensor, fake: Tensor) -> Tensor:
    loss = discriminator_loss(judge, real, fake)
    descend(loss, list(judge.parameters()), optimiser)
    return loss


def check_latents(latents: Tensor, shape: Sequence[int]) -> Tensor:
    """Raise ``ValueError`` unless ``latents`` are finite and have the model's channels."""
    if latents.ndim != 4 or not len(latents) or latents.shape[1] != shape[0]:
        raise ValueError(f"anchor_latents must be [n, {shape[0]}, height, width], got {tuple(latents.shape)}")
    if not torch.isfinite(latents).all():
        raise ValueError("anchor_latents hold NaN or infinite values")
    return latents


def _pair(concept: Sequence[Concept | str] | Concept | str, anchor: str) -> Concept:
    found = single_concept(concept, "DoCo")
    if not (anchor or found.instead):
        raise ValueError(f"DoCo needs an anchor: write '{found.name} -> ' and the harmless class to turn it into")
    return Concept(found.name, anchor or found.instead)


METHOD = Method(
    "doco", doco, DOCO, TOY_DOCO, "adversarial: the concept's pictures learn to pass for an anchor's",
    (Training, GradientCheckpointing),
)  # fmt: skip
