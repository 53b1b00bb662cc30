"""The method few-shot: unlearning with few pictures by training the text encoder (arXiv 2405.07288, BMVC 2024).

As published (``ascent``) the text encoder is trained to RAISE the denoising error of a few pictures under prompts that
name the concept. No target is named: the concept drifts, by the paper to what the encoder finds nearest. The loss has
no lower bound, so training has to end soon: after a few updates, or (ours, not the paper's) once the error of the
pictures has grown so many times.

``matching`` is ours. It trains the same weights on pictures whose captions say what else is in them, so that the
frozen denoiser e gives what it gave for the same caption with the target in place of the concept's name:

    |e(x_t, t, C(caption)) - g|^2  +  w * mean over preserved prompts |C(p) - C0(p)|^2

``C0`` is the original text encoder, ``w`` is ``preserve_weight``, and ``g`` is ``e(x_t, t, C0(caption'))``, where
caption' has the target in place of the name. Without a target caption' lacks the name, and ``g`` lies beyond it, as in
ESD (arXiv 2303.07345): ``e(C0(caption')) - negative_guidance * (e(C0(caption)) - e(C0(caption')))``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..arguments import Seed, check_images, checked
from ..closed_form.collect import check_preserve, warn_of_names
from ..concepts.names import reader
from ..concepts.parse import Concept, as_prompts, kept_prompts, single_concept
from ..concepts.readable import check_readable
from ..erasures.erasure import Erasure
from ..erasures.erasure_record import Origin
from ..limits import Settings, setting
from ..model import (
    Callback,
    DiffusionModel,
    LazyWeights,
    UnsupportedModelError,
    clip_skip_of,
    entry_weights,
    fingerprint,
)
from ..sampling.ddim import MOST_GUIDANCE, generate, sample_latents
from ..training.denoising import conditioning_gradient, denoising_error, noised, predict
from ..training.learned_settings import RATE, kind_setting, steps_setting
from ..training.loop import Budget, check_rank, gradients, take_step, train
from ..training.memory import check_room
from ..training.preview import Preview, after_update
from ..training.trainable import StandIns, layers_of
from .captions import captions_of, check_captions, with_target
from .inputs import DRAWN, TEXT_ENCODERS, Images, Preserve, TextEncoders, Training, check_drawn
from .method import Method

WATCH_LATENTS = 8  # latents whose error is measured after each update
HELD = 16  # preserved prompts that an update holds
OBJECTIVES = ("ascent", "matching")
LAYER_BIAS = re.compile(r"(.+\.layers\.\d+\.)mlp\.fc1\.bias")
"""A small weight of each layer of a text encoder, with the layer's name in front of it."""
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "object": ("a photo of a {}", "a {}", "a picture of the {}", "a rendering of a {}", "a close-up photo of a {}"),
    "style": ("a painting in the style of {}", "in the style of {}", "a picture by {}", "{} style", "art by {}"),
}


@dataclass(frozen=True)
class FewShotSettings(Settings):
    """Settings of ``few_shot``; the defaults are the published ones, and the paper has no limit of growth."""

    kind: str = kind_setting()
    steps: int = steps_setting(10)
    learning_rate: float = setting(1e-5, above=0, help=RATE)
    batch_size: int = setting(2, least=1, help="How many pictures an update learns from.")
    growth: float = setting(
        math.inf, above=1, finite=False, says="above 1 (inf for no limit)",
        help="Training ends early once the model's error on the pictures has grown so many times. Higher erases more "
        "and harms more.",
    )  # fmt: skip
    objective: str = setting(
        "ascent", choices=OBJECTIVES,
        help="ascent raises the model's error on the pictures, as published; matching, ours, gives them what the "
        "target's prompts gave, and can hold prompts as they are.",
    )  # fmt: skip
    preserve_weight: float = setting(0.0, least=0, help="How firmly the preserved prompts are held as they are.")
    negative_guidance: float = setting(
        0.0, least=0, most=MOST_GUIDANCE,
        help="How far matching goes beyond prompts without the name, where the concept has no target.",
    )  # fmt: skip


FEW_SHOT: Mapping[str, FewShotSettings] = {
    **{
        kind: FewShotSettings(
            kind, steps=100, batch_size=4, objective="matching", preserve_weight=1.0, negative_guidance=1.0
        )
        for kind in TEMPLATES
    },
    "published": FewShotSettings("object"),
    "published-style": FewShotSettings("style"),
}
"""The presets of both kinds are ours: on Stable Diffusion nobody tried them, and they have the published rate."""
TOY_FEW_SHOT: Mapping[str, FewShotSettings] = {
    **{kind: replace(FEW_SHOT[kind], learning_rate=2e-4) for kind in TEMPLATES},
    "published": FewShotSettings("object", steps=100, learning_rate=5e-5, batch_size=4, growth=5.0),
    "published-style": FewShotSettings("style", steps=100, learning_rate=5e-5, batch_size=4, growth=5.0),
}


@checked
def few_shot(
    model: DiffusionModel,
    concept: Sequence[Concept | str] | Concept | str,
    settings: FewShotSettings = FEW_SHOT["object"],
    *,
    images: Tensor | int | None = DRAWN,
    captions: Sequence[str] | str = (),
    preserve: Sequence[str] | str = (),
    seconds: float | None = None,
    rank: int | None = None,
    towers: str = "both",
    seed: Seed = 0,
    callback: Callback | None = None,
    preview: Preview | None = None,
) -> Erasure:
    """Train the text encoder to erase a concept, with a few pictures of it.

    See the module for the two objectives of ``settings``. Layers whose output the model does not read are left alone.
    ``model`` is only read.

    - ``concept``: a single concept, as a ``Concept`` or as text, ``cat`` or, for ``matching``, ``cat -> dog``.
    - ``settings``: one of the presets ``FEW_SHOT``, or a ``FewShotSettings``; the default is the preset for objects.
      Its ``kind`` chooses the prompts. Training ends early once the denoising error of the pictures, at fixed noise,
      has grown to ``growth`` times what it was.
    - ``images``: pictures of the concept, ``[n, 3, h, w]`` with values from 0 to 1, in the size that the model draws,
      or how many the model draws itself; the default of 8 was enough for the embedded model. ``None`` is the paper's
      variant without pictures: random latents take their place.
    - ``captions``: what the pictures show, a text that names the concept for each picture, or for the model to draw.
      By default there are none: ``matching`` draws pictures of everyday contents in turn, each with its caption, and
      whatever else has no captions is named in the wordings of the kind, ``TEMPLATES``.
    - ``preserve``: prompts whose conditioning is held as firmly as ``preserve_weight`` says, by default none.
    - ``seconds``: training ends after so many seconds, above 0, though steps are left; by default there is no limit.
    - ``rank``: train low-rank changes of this rank, at least 1; by default whole weights are trained.
    - ``towers``: the text encoder to train where there are two (SDXL), by its name in diffusers: ``text_encoder`` or
      ``text_encoder_2``; by default ``both``, since the denoiser reads both.
    - ``seed``: of all that is drawn at random; the same seed gives the same erasure on the same machine.
    - ``callback``: gets the progress of sampling and of training.
    - ``preview``: called after each update with a function that gives the model as it is by then, and with all losses;
      by default none.

    Raises ``ValueError`` for arguments out of range and for prompts that cannot be used, ``UnsupportedModelError`` for
    a text encoder without layers that are known by name, ``OutOfRoomError`` where too little memory is free, and
    ``TrainingError`` when the loss explodes.
    """
    budget, growth = Budget(settings.steps, seconds), settings.growth
    preserve, captions = kept_prompts(preserve, "preserve"), as_prompts(captions, "captions")
    if towers not in TEXT_ENCODERS:
        raise ValueError(f"towers must be one of {', '.join(TEXT_ENCODERS)}, got '{towers}'")
    check_rank(rank)
    check_drawn(images, "images")
    concept = single_concept(concept, "few-shot")
    matching = settings.objective == "matching"
    if concept.instead and not matching:
        raise ValueError(
            f"few-shot takes no replacement with the objective 'ascent'; write '{concept.name}' without '->', or "
            "choose the objective 'matching'"
        )
    check_captions(captions, concept, images)
    check_readable(model, concept)
    check_preserve([concept], preserve, reads=reader(model))
    warn_of_names([concept], preserve)
    templates = TEMPLATES[settings.kind]
    weights = trained_weights(weights_of_encoders(read_weights(model, templates[0].format(concept.name)), towers))
    check_rank(rank, weights)
    generator = torch.Generator().manual_seed(seed)
    latents, captions = _pictures(model, concept, settings, images, captions, seed, generator, callback)
    stand_ins = StandIns(weights, rank, generator)
    optimiser = torch.optim.Adam(
        stand_ins.parameters, settings.learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-8
    )

    conditioning = model.encode_prompts([concept.name]).detach().requires_grad_()
    check_room("few-shot", model, stand_ins.parameters, conditioning, latents.shape, 1, callback)

    def update(step: int) -> Tensor:
        clean = next_batch(latents, settings.batch_size, step, generator).to(model.device)
        prompts = next_captions(captions, templates, concept.name, len(clean), step, generator)
        timesteps = torch.randint(len(model.alphas_cumprod), (len(clean),), generator=generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        edited = model.with_weights(stand_ins.weights())
        conditioning = edited.encode_prompts(prompts)
        goal, sign = None, -1
        if matching:
            goal = target_output(model, concept, clean, noise, timesteps, prompts, settings.negative_guidance)
            sign = 1
        error, upward = conditioning_gradient(model, clean, noise, timesteps, conditioning, goal)
        loss, descended = sign * error, sign * conditioning.inner(upward)
        if preserve and settings.preserve_weight:
            which = torch.randint(len(preserve), (HELD,), generator=generator).tolist()
            held = settings.preserve_weight * drift(model, edited, [preserve[index] for index in which])
            loss, descended = loss + held.detach(), descended + held
        take_step(gradients(descended, stand_ins.parameters), stand_ins.parameters, optimiser)
        return loss

    watch = Watch(model, latents, templates[0].format(concept.name), seed) if math.isfinite(growth) else None

    def has_grown() -> bool:
        return watch is not None and watch.growth(model.with_weights(stand_ins.weights())) >= growth

    look = after_update(preview, model, stand_ins)
    losses = train(update, budget, what="few-shot", enough=has_grown, callback=callback, look=look)
    model_fingerprint = fingerprint(entry_weights(model))
    limit = growth if math.isfinite(growth) else None  # JSON has no infinity
    settings_record = {**asdict(settings), "growth": limit, "rank": rank, "towers": towers, "seed": seed}
    settings_record |= {"images": images if isinstance(images, int) else len(latents), "preserve": preserve}
    settings_record |= {"clip_skip": clip_skip_of(model)}
    origin = Origin("few_shot", (concept,), settings_record, model_fingerprint, losses=losses)
    return Erasure(stand_ins.deltas(), (origin,))


@torch.no_grad()
def target_output(
    model: DiffusionModel,
    concept: Concept,
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    prompts: Sequence[str],
    negative_guidance: float,
) -> Tensor:
    """Return what ``matching`` compares the output for noised latents with, ``[n, c, h, w]``.

    ``clean``, ``noise`` and ``timesteps`` are those of ``denoising_error``, ``model`` is the original, and ``prompts``
    are n captions that name the concept. See the module for the equation.
    """
    latents, timesteps = noised(clean, noise, model.alphas_cumprod[timesteps]), timesteps.to(clean.device)

    def output(texts: Sequence[str]) -> Tensor:
        each = zip(latents.split(1), timesteps.split(1), model.encode_prompts(texts).split(1), strict=True)
        return torch.cat([predict(model, *one) for one in each])

    goal = output([with_target(prompt, concept) for prompt in prompts])
    if concept.instead or not negative_guidance:
        return goal
    return goal - negative_guidance * (output(prompts) - goal)


def drift(model: DiffusionModel, edited: DiffusionModel, prompts: Sequence[str]) -> Tensor:
    """Return the mean square of how far the ``edited`` model's conditioning of prompts is from the ``model``'s.

    Of models with a pooled vector, it is the sum of the mean of its numbers and that of the context's.
    """
    with torch.no_grad():
        before = model.encode_prompts(prompts)
    pairs = zip(edited.encode_prompts(prompts).tensors, before.tensors, strict=True)
    return torch.stack([(now - was).square().mean() for now, was in pairs]).sum()


def next_captions(
    captions: Sequence[str], templates: Sequence[str], name: str, size: int, step: int, generator: torch.Generator
) -> list[str]:
    """Return the captions of the pictures in ``next_batch``; without captions, random ``templates`` with the name."""
    if captions:
        return [captions[index % len(captions)] for index in range(step * size, (step + 1) * size)]
    which = torch.randint(len(templates), (size,), generator=generator).tolist()
    return [templates[index].format(name) for index in which]


class Watch:
    """Measures how the denoising error of the pictures grows, at fixed noise and timesteps.

    ``latents`` ``[n, c, h, w]`` are those of the pictures; where n is 0, noise takes their place. ``model`` is the
    original, ``prompt`` a prompt that names the concept, and ``seed`` that of the noise.
    """

    def __init__(self, model: DiffusionModel, latents: Tensor, prompt: str, seed: int):
        generator = torch.Generator().manual_seed(seed)
        clean = next_batch(latents, WATCH_LATENTS, 0, generator)
        self._prompt = prompt
        self._batch = clean, torch.randn(clean.shape, generator=generator), _quantiles(len(model.alphas_cumprod))
        self._before = self._error(model)

    def growth(self, edited: DiffusionModel) -> float:
        """Return the error of the ``edited`` model relative to that of the original."""
        return self._error(edited) / self._before

    @torch.no_grad()
    def _error(self, model: DiffusionModel) -> float:
        clean, noise, timesteps = self._batch
        conditioning = model.encode_prompts([self._prompt]).expand(len(clean))
        return float(denoising_error(model, clean.to(model.device), noise.to(model.device), timesteps, conditioning))


def _quantiles(timesteps: int) -> Tensor:
    """Return the timesteps in the middle of ``WATCH_LATENTS`` equal parts of all ``timesteps``."""
    return ((torch.arange(WATCH_LATENTS) + 0.5) / WATCH_LATENTS * timesteps).long()


def read_weights(model: DiffusionModel, prompt: str) -> Mapping[str, Tensor]:
    """Return the weights of the text encoders, by name, without layers on which the conditioning does not depend.

    Such layers are those for which the gradient of the conditioning of ``prompt`` is missing. SDXL's first encoder has
    one, its second none (the last layer gives the pooled vector); others come from skipping layers of CLIP. Raises
    ``UnsupportedModelError`` for text encoders without layers that are known by name.
    """
    weights = model.weights_of("text_encoder")
    biases = {match[1]: weights[name].float().clone() for name in weights if (match := LAYER_BIAS.fullmatch(name))}
    if not biases:
        raise UnsupportedModelError("the text encoder has no layers that can be told by their names")
    parameters = [bias.requires_grad_() for bias in biases.values()]
    with torch.enable_grad():
        edited = model.with_weights({f"{layer}mlp.fc1.bias": bias for layer, bias in biases.items()})
        conditioning = edited.encode_prompts([prompt])
        slopes = torch.autograd.grad(conditioning.inner(conditioning), parameters, allow_unused=True)
    unread_layers = tuple(layer for layer, slope in zip(biases, slopes, strict=True) if slope is None)
    read = [name for name in weights if not (unread_layers and name.startswith(unread_layers))]
    return LazyWeights({name: partial(weights.__getitem__, name) for name in read})


def weights_of_encoders(weights: Mapping[str, Tensor], towers: str) -> Mapping[str, Tensor]:
    """Return the weights of one text encoder, or of both, by name.

    ``towers`` is one of ``TEXT_ENCODERS``. Raises ``ValueError`` for a text encoder that the model does not have.
    """
    if towers == "both":
        return weights
    names = [name for name in weights if name.startswith(f"{towers}.")]
    own_weights = LazyWeights({name: partial(weights.__getitem__, name) for name in names})
    if not own_weights:
        there = ", ".join(dict.fromkeys(name.partition(".")[0] for name in weights))
        raise ValueError(f"towers is '{towers}' but the model has {there}; 'both' trains what there is")
    return own_weights


def trained_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights to train: ``mlp.fc1`` and ``mlp.fc2`` of every layer, and ``self_attn`` of the last layer."""
    selection: dict[str, Tensor] = {}
    for part in dict.fromkeys(name.partition(".")[0] for name in weights):
        names = [name for name in weights if name.startswith(f"{part}.")]
        pattern = re.compile(rf"\.mlp\.fc[12]\.|\.layers\.{layers_of(names) - 1}\.self_attn\.")
        selection |= {name: weights[name] for name in names if pattern.search(name)}
    return selection


def next_batch(latents: Tensor, size: int, step: int, generator: torch.Generator) -> Tensor:
    """Return batch ``step``, from 0, of ``size`` latents ``[size, c, h, w]``; after the last the first comes again.

    If ``latents`` ``[n, c, h, w]`` are none (n is 0), the batch is new noise of ``generator``.
    """
    if not len(latents):
        return torch.randn(size, *latents.shape[1:], generator=generator)
    return latents[torch.arange(step * size, (step + 1) * size) % len(latents)]


def _pictures(
    model: DiffusionModel,
    concept: Concept,
    settings: FewShotSettings,
    images: Tensor | int | None,
    captions: list[str],
    seed: int,
    generator: torch.Generator,
    callback: Callback | None,
) -> tuple[Tensor, list[str]]:
    """Return latents of the pictures ``[n, c, h, w]`` and their captions, both in a random order.

    There are no latents without pictures, and no captions where templates take their places.
    """
    if images is None:
        return torch.empty(0, *model.latent_shape()), captions
    if isinstance(images, int):
        if settings.objective == "matching" or captions:
            captions = captions or captions_of(settings.kind, concept, images, generator)
            prompts = [captions[index % len(captions)] for index in range(images)]
            return sample_latents(model, prompts, range(seed, seed + images), callback=callback), prompts
        images = generate(model, [concept.name] * images, range(images), callback=callback)
    check_images(images)
    order = torch.randperm(len(images), generator=generator)
    latents = model.encode_images(images[order].to(model.device)).float().cpu()
    return latents, [captions[index] for index in order.tolist()] if captions else []


METHOD = Method(
    "few_shot", few_shot, FEW_SHOT, TOY_FEW_SHOT, "the text encoder learns from a few pictures to lose the concept",
    (Images, Preserve, Training, TextEncoders),
)  # fmt: skip
