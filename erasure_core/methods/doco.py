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
from ..limits import Settings, setting
from ..model import Callback, DiffusionModel, entry_weights, fingerprint
from ..sampling.ddim import sample_latents, split_prediction
from ..training.denoising import denoising_target, noised, predict
from ..training.gan import adversarial_loss, discriminator_loss, patch_discriminator, preserving
from ..training.learned_settings import RATE, kind_setting, steps_setting
from ..training.loop import Budget, TrainingError, check_rank, descend, gradients, take_step, train
from ..training.memory import check_room
from ..training.trainable import StandIns
from .inputs import GradientCheckpointing, Training
from .method import Method


@dataclass(frozen=True)
class DoCoSettings(Settings):
    """Settings of ``doco``; the defaults are the published ones for objects."""

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
        if self.warm_up_steps == self.steps:
            raise ValueError(
                f"warm_up {self.warm_up:g} leaves none of {self.steps} steps for the model; lower it, or raise steps"
            )

    @property
    def warm_up_steps(self) -> int:
        """The number of steps, at the beginning, in which only the discriminator learns."""
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
    """Train cross-attention until prompts of a concept give what those of an anchor do (``parachute -> airplane``).

    ``model`` is only read.

    - ``concept``: a single concept, as a ``Concept`` or as text.
    - ``settings``: one of the presets ``DOCO``, or a ``DoCoSettings``; the default is the preset for objects. For its
      first ``warm_up`` of the steps only the discriminator learns.
    - ``anchor``: the harmless class. It may also follow the concept's name and an arrow, and one of both is needed.
    - ``anchor_latents``: clean latents of the anchor, ``[n, c, h, w]``, scaled for the UNet. By default the model draws
      them itself.
    - ``anchors``: how many it draws then, at least 1; the default of 32 is four batches.
    - ``seconds``: training ends after so many seconds, above 0, though steps are left; by default there is no limit.
    - ``rank``: train low-rank changes of this rank, at least 1; by default whole weights are trained.
    - ``gradient_checkpointing``: train in less memory and more time; off by default.
    - ``seed``: of all that is drawn at random; the same seed gives the same erasure on the same machine.
    - ``callback``: gets the progress of sampling and of training.

    Raises ``ValueError`` for arguments out of range and for prompts that cannot be used, ``OutOfRoomError`` where too
    little memory is free, and ``TrainingError`` when the loss explodes, or when ``seconds`` end before the model has
    begun to learn.
    """
    budget, warm_up_steps = Budget(settings.steps, seconds), settings.warm_up_steps
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
        anchor_prompts = [prompts[0][index % len(prompts[0])] for index in range(anchors)]
        anchor_latents = sample_latents(model, anchor_prompts, range(seed, seed + anchors), callback=callback)
        if not torch.isfinite(anchor_latents).all():
            raise TrainingError(f"what the model draws for '{concept.instead}' holds NaN; nothing was changed")
    clean_latents = check_latents(anchor_latents, model.latent_shape()).float().cpu()

    stand_ins = StandIns(model.weights_of("cross-attention"), rank, generator)
    discriminator = patch_discriminator(clean_latents.shape[1:], seed).to(model.device)
    generator_optimiser = torch.optim.Adam(stand_ins.parameters, settings.learning_rate, betas=(0.5, 0.999))
    discriminator_optimiser = torch.optim.Adam(
        discriminator.parameters(), settings.discriminator_rate, betas=(0.5, 0.999)
    )
    edited, at_once = model.with_weights(stand_ins.weights()), 1 if gradient_checkpointing else settings.batch_size
    check_room("DoCo", edited, stand_ins.parameters, encoded[:1], clean_latents.shape, at_once, callback)

    def update(step: int) -> Tensor:
        which = torch.randint(len(clean_latents), (settings.batch_size,), generator=generator)
        clean = clean_latents[which].to(model.device)
        timesteps = torch.randint(len(model.alphas_cumprod), (settings.batch_size,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        which = torch.randint(len(anchor_contexts), (settings.batch_size,), generator=generator)
        alphas = model.alphas_cumprod[timesteps]
        batch = NoisedBatch(model.prediction_type, clean, noise, timesteps, alphas, gradient_checkpointing)
        edited = model.with_weights(stand_ins.weights())
        with torch.no_grad():
            real = batch.predicted(model, anchor_contexts[which])
        if step < warm_up_steps:
            with torch.no_grad():
                fake = batch.predicted(edited, target_contexts[which])
            return _teach(discriminator, discriminator_optimiser, real, fake)
        fake = batch.predicted(edited, target_contexts[which])
        loss = _teach(discriminator, discriminator_optimiser, real, fake.detach())
        again = model.with_weights(stand_ins.weights())
        preserving_gradients = generator_gradients(
            discriminator, fake, batch, again, anchor_contexts[which], stand_ins.parameters
        )
        take_step(preserving_gradients, stand_ins.parameters, generator_optimiser)
        return loss

    losses = train(update, budget, what="DoCo", callback=callback)
    if seconds is not None and len(losses) <= warm_up_steps:  # all steps are more
        enough, whole = (math.ceil(seconds * count / len(losses)) for count in (warm_up_steps, settings.steps))
        raise TrainingError(
            f"seconds: after {seconds:g} only the discriminator had learned, and nothing was changed; more than "
            f"{enough} are needed here, {whole} for all {settings.steps} steps"
        )
    model_fingerprint = fingerprint(entry_weights(model))
    settings_record = {**asdict(settings), "rank": rank, "seed": seed}
    return Erasure(stand_ins.deltas(), (Origin("doco", (concept,), settings_record, model_fingerprint, losses=losses),))


@dataclass(frozen=True)
class NoisedBatch:
    """Clean latents ``[n, c, h, w]``, noised with ``noise`` to ``timesteps`` ``[n]``, and predictions for them.

    ``kind`` is what models predict, ``epsilon`` or ``v_prediction``. ``alphas`` ``[n]`` are the shares of the signal
    left at the timesteps (``alphas_cumprod``).
    """

    kind: str
    clean: Tensor
    noise: Tensor
    timesteps: Tensor
    alphas: Tensor
    gradient_checkpointing: bool = False

    @cached_property
    def latents(self) -> Tensor:
        """The noised latents, ``[n, c, h, w]``."""
        return noised(self.clean, self.noise, self.alphas)

    def output(self, model: DiffusionModel, conditioning: Conditioning) -> Tensor:
        """Return the model's output for the noised latents and the conditioning of n prompts, ``[n, c, h, w]``."""
        timesteps = self.timesteps.to(self.clean.device)
        return predict(model, self.latents, timesteps, conditioning, self.gradient_checkpointing)

    def predicted(self, model: DiffusionModel, conditioning: Conditioning) -> Tensor:
        """Return the clean latents ``[n, c, h, w]`` that the model's output implies."""
        return split_prediction(self.kind, self.output(model, conditioning), self.latents, self.alphas)[0]

    def error(self, model: DiffusionModel, conditioning: Conditioning) -> Tensor:
        """Return the ordinary denoising loss of the model, a mean squared error."""
        target = denoising_target(self.kind, self.clean, self.noise, self.alphas)
        return F.mse_loss(self.output(model, conditioning), target)


def generator_gradients(
    discriminator: torch.nn.Module,
    fake: Tensor,
    batch: NoisedBatch,
    edited: DiffusionModel,
    anchor: Conditioning,
    parameters: Sequence[Tensor],
) -> list[Tensor]:
    """Return the concept-preserving gradient for each of the ``parameters`` of the edited model (``preserving``).

    The loss to unlearn is the ``adversarial_loss`` of ``fake``, ``[n, c, h, w]``, the clean latents that the edited
    model predicts for the concept's prompts. The loss to preserve is the denoising error of ``batch`` under the
    anchor's own prompts, of which ``anchor`` is the conditioning. The graph of ``fake`` is freed before that of the
    second loss is built, so that only one is in memory.
    """
    unlearn = gradients(adversarial_loss(discriminator, fake), parameters)
    preserve = gradients(batch.error(edited, anchor), parameters)
    return [preserving(*pair) for pair in zip(unlearn, preserve, strict=True)]


def _teach(discriminator: torch.nn.Module, optimiser: torch.optim.Optimizer, real: Tensor, fake: Tensor) -> Tensor:
    loss = discriminator_loss(discriminator, real, fake)
    descend(loss, list(discriminator.parameters()), optimiser)
    return loss


def check_latents(latents: Tensor, shape: Sequence[int]) -> Tensor:
    """Return ``latents``; raise ``ValueError`` unless they are ``[n, c, h, w]`` with n at least 1, and finite.

    ``c`` has to be that of ``shape``, the model's ``(c, h, w)``; other heights and widths are allowed.
    """
    if latents.ndim != 4 or not len(latents) or latents.shape[1] != shape[0]:
        raise ValueError(f"anchor_latents must be [n, {shape[0]}, height, width], got {tuple(latents.shape)}")
    if not torch.isfinite(latents).all():
        raise ValueError("anchor_latents hold NaN or infinite values")
    return latents


def _pair(concept: Sequence[Concept | str] | Concept | str, anchor: str) -> Concept:
    pair = single_concept(concept, "DoCo")
    if not (anchor or pair.instead):
        raise ValueError(f"DoCo needs an anchor: write '{pair.name} -> ' and the harmless class to turn it into")
    return Concept(pair.name, anchor or pair.instead)


METHOD = Method(
    "doco", doco, DOCO, TOY_DOCO, "adversarial: the concept's pictures learn to pass for an anchor's",
    (Training, GradientCheckpointing),
)  # fmt: skip
