"""The method DoCo: concept domain correction with a concept-preserving gradient (arXiv 2405.15304, AAAI 2025).

Adversarial: a discriminator learns to tell what the frozen model makes of the anchor's captions from what the edited
model makes of the concept's; the cross-attention keys and values learn to pass for the anchor.

The settings are by default those of the authors' commands: captions say what else is in the pictures, the learning
rate is scaled by the batch, gradients are clipped and weights decay. Theirs draw some pictures of objects smaller and
larger too, which is not done here. Ours are a discriminator that reads what it judges (``conditional``), without batch
norm, with a small slope (``gradient_penalty``), in several updates a step and on earlier batches again (``replay``),
and the hold on preserved prompts, with which the preserved loss is

    w * mean |e(x, t, p) - e0(x, t, p)|^2

where ``e0`` is the frozen model, ``w`` is ``preserve_weight``, and p are preserved prompts and the anchor's captions.
Its gradient is a part of the step. Without a hold the preserved loss is the denoising error of the anchor's pictures,
which only corrects the adversarial gradient, as published.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import Seed, checked
from ..closed_form.collect import check_preserve, warn_of_names
from ..concepts.names import reader
from ..concepts.parse import Concept, as_prompts, kept_prompts, single_concept
from ..concepts.readable import check_readable
from ..concepts.templates import wordings
from ..conditioning import Conditioning
from ..erasures.erasure import Erasure
from ..erasures.erasure_record import Origin
from ..limits import Settings, setting
from ..model import Callback, DiffusionModel, clip_skip_of, entry_weights, fingerprint
from ..sampling.ddim import sample_latents, split_prediction
from ..training.denoising import denoising_target, noised, predict
from ..training.gan import (
    ConditionalDiscriminator,
    Verdict,
    adversarial_loss,
    clipped,
    discriminator_loss,
    patch_discriminator,
    preserving,
)
from ..training.learned_settings import RATE, kind_setting, steps_setting
from ..training.loop import Budget, TrainingError, check_rank, descend, gradients, take_step, train
from ..training.memory import check_room
from ..training.preview import Preview, after_update
from ..training.trainable import StandIns
from .captions import captions_of, check_captions, with_target
from .inputs import GradientCheckpointing, Preserve, Training
from .method import Method

MOST_NORM = 1.0  # of all gradients of a loss together; larger ones are scaled down to it
WEIGHT_DECAY = 1e-2
# Batches of late, and how many of them an update of the discriminator has (arXiv 1612.07828).
REMEMBERED, REPLAYED = 8, 3


@dataclass(frozen=True)
class DoCoSettings(Settings):
    """Settings of ``doco``; the defaults are the published ones for objects."""

    kind: str = kind_setting()
    steps: int = steps_setting(2000)
    learning_rate: float = setting(4.8e-5, above=0, help=RATE)
    discriminator_rate: float = setting(1e-4, above=0, help="How far each update of the discriminator goes.")
    batch_size: int = setting(8, least=2, help="How many noisy latents an update learns from.")
    warm_up: float = setting(
        0.5, least=0, below=1, help="The share of the steps in which only the discriminator learns."
    )
    flips: bool = setting(True, help="Mirror half of the anchor's pictures.")
    batch_norm: bool = setting(True, help="Give the discriminator batch norm.")
    conditional: bool = setting(
        False, help="Let the discriminator read the noised latents, how noised they are, and the caption."
    )
    discriminator_updates: int = setting(1, least=1, help="How many updates the discriminator makes in a step.")
    replay: bool = setting(False, help="Let the discriminator learn from some earlier batches again in each update.")
    gradient_penalty: float = setting(
        0.0, least=0, help="How firmly the discriminator's slope is kept small, so that it shows the way."
    )
    momentum: float = setting(
        0.9, least=0, below=1, help="How long past gradients of the model count, the first beta of AdamW."
    )
    preserve_weight: float = setting(0.0, least=0, help="How firmly the preserved prompts are held as they are.")

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

    @property
    def needs_common(self) -> bool:
        return self.preserve_weight > 0


PUBLISHED: Mapping[str, DoCoSettings] = {
    "object": DoCoSettings("object"),
    "style": DoCoSettings("style", discriminator_rate=5e-4),
}
OURS = partial(
    replace, flips=False, batch_norm=False, conditional=True, discriminator_updates=2, replay=True,
    gradient_penalty=0.5, momentum=0.5, preserve_weight=1.0, warm_up=0.2,
)  # fmt: skip
DOCO: Mapping[str, DoCoSettings] = {
    **{kind: OURS(published) for kind, published in PUBLISHED.items()},
    "published": PUBLISHED["object"],
    "published-style": PUBLISHED["style"],
}
"""The presets of both kinds are ours: on Stable Diffusion nobody tried them, and they have the published rates."""
TOY_DOCO: Mapping[str, DoCoSettings] = {
    **{kind: replace(DOCO[kind], steps=360, learning_rate=1e-3, discriminator_rate=2e-3) for kind in PUBLISHED},
    **{
        name: replace(DOCO[name], steps=480, learning_rate=1e-3, discriminator_rate=1e-3, warm_up=0.2)
        for name in ("published", "published-style")
    },
}


@checked
def doco(
    model: DiffusionModel,
    concept: Sequence[Concept | str] | Concept | str,
    settings: DoCoSettings = DOCO["object"],
    *,
    anchor: str = "",
    anchor_latents: Tensor | None = None,
    anchors: int = 64,
    captions: Sequence[str] | str = (),
    preserve: Sequence[str] | str = (),
    seconds: float | None = None,
    rank: int | None = None,
    gradient_checkpointing: bool = False,
    seed: Seed = 0,
    callback: Callback | None = None,
    preview: Preview | None = None,
) -> Erasure:
    """Train cross-attention until prompts of a concept give what those of an anchor do (``parachute -> airplane``).

    See the module for what is published and what is ours. ``model`` is only read.

    - ``concept``: a single concept, as a ``Concept`` or as text.
    - ``settings``: one of the presets ``DOCO``, or a ``DoCoSettings``; the default is the preset for objects. For its
      first ``warm_up`` of the steps only the discriminator learns.
    - ``anchor``: the harmless class. It may also follow the concept's name and an arrow, and an object needs one. By
      default a style becomes that of captions without it, as published.
    - ``anchor_latents``: clean latents of the anchor, ``[n, c, h, w]``, scaled for the UNet. By default the model draws
      them itself.
    - ``anchors``: how many it draws then, at least 1; the default of 64 is eight batches.
    - ``captions``: texts that name the concept; with the anchor in its place they are what the anchor's pictures show,
      one for each of the latents, or for the model to draw in turn. By default there are none: the model draws the
      anchor with everyday contents, each picture with its caption, and latents have ``WORDINGS`` of the kind, which say
      nothing of what else they show.
    - ``preserve``: prompts whose predictions are held as firmly as ``preserve_weight`` says, by default none.
    - ``seconds``: training ends after so many seconds, above 0, though steps are left; by default there is no limit.
    - ``rank``: train low-rank changes of this rank, at least 1; by default whole weights are trained.
    - ``gradient_checkpointing``: train in less memory and more time; off by default.
    - ``seed``: of all that is drawn at random; the same seed gives the same erasure on the same machine.
    - ``callback``: gets the progress of sampling and of training.
    - ``preview``: called after each update with a function that gives the model as it is by then, and with all losses;
      by default none.

    Raises ``ValueError`` for arguments out of range and for prompts that cannot be used, ``OutOfRoomError`` where too
    little memory is free, and ``TrainingError`` when the loss explodes, or when ``seconds`` end before the model has
    begun to learn.
    """
    budget, warm_up_steps = Budget(settings.steps, seconds), settings.warm_up_steps
    preserve, captions = kept_prompts(preserve, "preserve"), as_prompts(captions, "captions")
    if anchors < 1:
        raise ValueError(f"anchors must be at least 1, got {anchors}")
    check_rank(rank)
    concept = _pair(concept, anchor, settings.kind)
    check_captions(captions, concept, anchor_latents)
    check_readable(model, concept)
    check_preserve([concept], preserve, reads=reader(model))
    warn_of_names([concept], preserve)
    check_rank(rank, model.weights_of("cross-attention"))
    generator = torch.Generator().manual_seed(seed)
    pictures = _anchors(model, concept, settings, anchor_latents, anchors, captions, seed, generator, callback)
    held = pictures.anchor
    if preserve and settings.preserve_weight:
        held = Conditioning.cat([held, model.encode_prompts(preserve).detach()])

    stand_ins = StandIns(model.weights_of("cross-attention"), rank, generator)
    discriminator = _discriminator(pictures, settings, seed).to(model.device)
    optimiser = torch.optim.AdamW(
        stand_ins.parameters, settings.learning_rate, betas=(settings.momentum, 0.999), weight_decay=WEIGHT_DECAY
    )
    discriminator_optimiser = torch.optim.Adam(
        discriminator.parameters(), settings.discriminator_rate, betas=(0.5, 0.999)
    )
    edited, at_once = model.with_weights(stand_ins.weights()), 1 if gradient_checkpointing else settings.batch_size
    check_room("DoCo", edited, stand_ins.parameters, held[:1], pictures.latents.shape, at_once, callback)
    remembered: deque[Sides] = deque(maxlen=REMEMBERED)
    teach = partial(_teach, discriminator, discriminator_optimiser, settings.gradient_penalty)

    def update(step: int) -> Tensor:
        clean, own, named = pictures.draw(settings.batch_size, settings.flips, generator)
        timesteps = torch.randint(len(model.alphas_cumprod), (settings.batch_size,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        clean, noise, alphas = clean.to(model.device), noise.to(model.device), model.alphas_cumprod[timesteps]
        batch = NoisedBatch(model.prediction_type, clean, noise, timesteps, alphas, gradient_checkpointing)
        edited = model.with_weights(stand_ins.weights())
        with torch.no_grad():
            real = batch.predicted(model, own)
        with torch.set_grad_enabled(step >= warm_up_steps):
            fake = batch.predicted(edited, named)
        sides = Sides(real, fake.detach(), _verdict(discriminator, batch, own))
        lessons = []
        for _ in range(settings.discriminator_updates):
            lesson = [sides]
            if settings.replay and remembered:
                again = torch.randint(len(remembered), (REPLAYED,), generator=generator)
                lesson += [remembered[index] for index in again.tolist()]
            lessons.append(teach(lesson))
        remembered.append(sides)
        if step >= warm_up_steps:
            anew = model.with_weights(stand_ins.weights())
            preserved = partial(batch.error, anew, own)
            if settings.preserve_weight:
                which = torch.randint(len(held), (settings.batch_size,), generator=generator)
                preserved = partial(batch.drift, model, anew, held[which])
            slopes = generator_gradients(sides.verdict, fake, preserved, stand_ins.parameters, settings.preserve_weight)
            take_step(slopes, stand_ins.parameters, optimiser)
        return lessons[0]

    look = after_update(preview, model, stand_ins)
    losses = train(update, budget, what="DoCo", callback=callback, look=look)
    if seconds is not None and len(losses) <= warm_up_steps:  # all steps are more
        enough, whole = (math.ceil(seconds * count / len(losses)) for count in (warm_up_steps, settings.steps))
        raise TrainingError(
            f"seconds: after {seconds:g} only the discriminator had learned, and nothing was changed; more than "
            f"{enough} are needed here, {whole} for all {settings.steps} steps"
        )
    model_fingerprint = fingerprint(entry_weights(model))
    settings_record = {**asdict(settings), "rank": rank, "seed": seed, "preserve": preserve}
    settings_record |= {"clip_skip": clip_skip_of(model)}
    return Erasure(stand_ins.deltas(), (Origin("doco", (concept,), settings_record, model_fingerprint, losses=losses),))


@dataclass(frozen=True)
class AnchorPictures:
    """Clean latents ``[n, c, h, w]`` of the anchor, and the conditioning of its captions and of the concept's.

    Caption i of the anchor belongs to caption i of the concept. Where the captions are those of the pictures
    (``own_captions``), picture j has caption j, and the first again after the last; else any may go with any.
    """

    latents: Tensor
    anchor: Conditioning
    concept: Conditioning
    own_captions: bool

    def draw(self, count: int, flips: bool, generator: torch.Generator) -> tuple[Tensor, Conditioning, Conditioning]:
        """Return ``count`` random latents, with ``flips`` half of them mirrored, and the conditioning of both captions.

        The random numbers are those of ``generator``.
        """
        which = torch.randint(len(self.latents), (count,), generator=generator)
        latents = self.latents[which]
        if flips:
            mirrored = torch.rand(count, generator=generator) < 0.5
            latents = torch.where(mirrored[:, None, None, None], latents.flip(-1), latents)
        captions = which % len(self.anchor)
        if not self.own_captions:
            captions = torch.randint(len(self.anchor), (count,), generator=generator)
        return latents, self.anchor[captions], self.concept[captions]


def _anchors(
    model: DiffusionModel,
    concept: Concept,
    settings: DoCoSettings,
    latents: Tensor | None,
    count: int,
    captions: list[str],
    seed: int,
    generator: torch.Generator,
    callback: Callback | None,
) -> AnchorPictures:
    """Return the ``latents`` of the anchor, or ``count`` that the model draws, with what goes with them."""
    own_captions = latents is None or bool(captions)
    if not captions:
        drawn = latents is None
        captions = (
            captions_of(settings.kind, concept, count, generator) if drawn else wordings(settings.kind, concept.name)
        )
    shown = [with_target(caption, concept) for caption in captions]
    if latents is None:
        prompts = [shown[index % len(shown)] for index in range(count)]
        latents = sample_latents(model, prompts, range(seed, seed + count), callback=callback)
        if not torch.isfinite(latents).all():
            raise TrainingError(f"what the model draws for '{shown[0]}' holds NaN; nothing was changed")
    latents = check_latents(latents, model.latent_shape()).float().cpu()
    anchor, named = model.encode_prompts([*shown, *captions]).detach().split([len(shown), len(captions)])
    return AnchorPictures(latents, anchor, named, own_captions)


def _discriminator(pictures: AnchorPictures, settings: DoCoSettings, seed: int) -> torch.nn.Module:
    shape = pictures.latents.shape[1:]
    if not settings.conditional:
        return patch_discriminator(shape, seed, batch_norm=settings.batch_norm)
    text_width = pictures.anchor.context.shape[-1]
    return ConditionalDiscriminator(shape, seed, text_width, batch_norm=settings.batch_norm)


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

    def drift(self, model: DiffusionModel, edited: DiffusionModel, conditioning: Conditioning) -> Tensor:
        """Return the mean square of how far the ``edited`` model's output is from the ``model``'s, a scalar."""
        with torch.no_grad():
            before = self.output(model, conditioning)
        return F.mse_loss(self.output(edited, conditioning), before)


@dataclass(frozen=True)
class Sides:
    """The clean latents ``[n, c, h, w]`` of the anchor's side and of the concept's, and the verdict on such latents."""

    real: Tensor
    fake: Tensor
    verdict: Verdict


def _verdict(discriminator: torch.nn.Module, batch: NoisedBatch, captions: Conditioning) -> Verdict:
    if isinstance(discriminator, ConditionalDiscriminator):
        return partial(discriminator, latents=batch.latents, alphas=batch.alphas, captions=captions)
    return discriminator


def generator_gradients(
    verdict: Verdict,
    fake: Tensor,
    preserved: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    preserve_weight: float = 0.0,
) -> list[Tensor]:
    """Return the concept-preserving gradient for each of the ``parameters`` of the edited model (``preserving``).

    The loss to unlearn is the ``adversarial_loss`` of ``fake``, ``[n, c, h, w]``, the clean latents that the edited
    model predicts for the concept's prompts; ``preserved`` computes the loss to preserve. The gradients of each are
    clipped to a norm of ``MOST_NORM``. The second, times ``preserve_weight``, is added; by default it is not. The graph
    of ``fake`` is freed before that of the second loss is built, so that only one is in memory.
    """
    unlearn = clipped(gradients(adversarial_loss(verdict, fake), parameters), MOST_NORM)
    preserve = clipped(gradients(preserved(), parameters), MOST_NORM)
    pairs = zip(unlearn, preserve, strict=True)
    return [preserving(one, two) + preserve_weight * two for one, two in pairs]


def _teach(
    discriminator: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    gradient_penalty: float,
    lesson: Sequence[Sides],
) -> Tensor:
    losses = [discriminator_loss(sides.verdict, sides.real, sides.fake, gradient_penalty) for sides in lesson]
    loss = torch.stack(losses).mean()
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


def _pair(concept: Sequence[Concept | str] | Concept | str, anchor: str, kind: str) -> Concept:
    pair = single_concept(concept, "DoCo")
    if kind == "object" and not (anchor or pair.instead):
        raise ValueError(f"DoCo needs an anchor: write '{pair.name} -> ' and the harmless class to turn it into")
    return single_concept(Concept(pair.name, anchor or pair.instead), "DoCo")


METHOD = Method(
    "doco", doco, DOCO, TOY_DOCO, "adversarial: the concept's pictures learn to pass for an anchor's",
    (Preserve, Training, GradientCheckpointing),
)  # fmt: skip
