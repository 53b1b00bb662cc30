"""The method AbO, "All but One" (arXiv 2312.12807, AAAI 2024), reconstructed: it trains the guidance of a concept away.

The authors published no code and only the abstract and the captions could be read: the loss below is our
reconstruction of it. With the guidance term ``g(x, t, C) = e(x, t, C) - e(x, t, "")``:

    |g(x, t, concept) - g0(x, t, alternative)|^2  +  w |e(x, t, "") - e0(x, t, "")|^2
        +  v * sum over preserved prompts |e(x, t, p) - e0(x, t, p)|^2

where ``0`` marks the frozen model; without an alternative ``g0`` is zero. ``w`` is ``unconditional_weight``,
and ``v`` is ``preserve_weight``.

A model that reaches this goal draws from each noise what the frozen one draws for the alternative, with whatever layout
that has. With a ``focus`` above 0, where there is an alternative, the goal is its guidance only where it matters, and
elsewhere the concept's own, so that the layout of its pictures stays:

    g0(x, t, concept) + m * (g0(x, t, alternative) - g0(x, t, concept)),    m = (d / max d) ^ focus

where ``d`` is the square of the difference of the two guidances, a mean over channels, at each position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ..arguments import Seed, checked
from ..closed_form.collect import check_preserve, warn_of_names
from ..concepts.names import reader
from ..concepts.parse import Concept, kept_prompts, single_concept
from ..concepts.readable import check_readable
from ..concepts.templates import wordings
from ..conditioning import Conditioning
from ..erasures.erasure import Erasure
from ..erasures.erasure_record import Origin
from ..erasures.low_rank import Delta
from ..limits import Settings, setting
from ..model import Callback, DiffusionModel, clip_skip_of, entry_weights, fingerprint
from ..sampling.ddim import MOST_GUIDANCE, check_steps, trajectories
from ..training.denoising import predict
from ..training.learned_settings import RATE, kind_setting, steps_setting
from ..training.loop import Budget, check_fell, check_rank, descend, train
from ..training.memory import check_room
from ..training.preview import Preview, after_update
from ..training.trainable import StandIns
from .captions import captions_of, with_target
from .inputs import GradientCheckpointing, Preserve, Training
from .method import Method

SCOPES = ("cross-attention", "attention", "unet")
CAPTIONS = 32  # prompts that name everyday things beside the concept


@dataclass(frozen=True)
class AbOSettings(Settings):
    """Settings of ``abo``.

    The paper's are unknown: steps, rate and guidance are those with which ESD (arXiv 2303.07345) trains the same
    weights of Stable Diffusion.
    """

    kind: str = kind_setting()
    steps: int = steps_setting(1000)
    learning_rate: float = setting(1e-5, above=0, help=RATE)
    batch_size: int = setting(2, least=1, help="How many noisy latents an update learns from.")
    unconditional_weight: float = setting(
        1.0, least=0, help="How firmly pictures without a prompt are held as they are."
    )
    preserve_weight: float = setting(1.0, least=0, help="How firmly the preserved prompts are held as they are.")
    trajectories: int = setting(16, least=1, help="How many pictures the frozen model draws to learn on the way to.")
    sampling_steps: int = setting(30, least=1, help="In how many steps it draws each of them.")
    guidance: float = setting(3.0, least=0, most=MOST_GUIDANCE, help="With which guidance it draws them.")
    content: bool = setting(False, help="Name everyday things in the prompts too, where there is an alternative.")
    focus: float = setting(
        0.0, least=0, help="How closely the change keeps to where concept and alternative guide apart; 0 changes all."
    )


ABO: Mapping[str, AbOSettings] = {
    "object": AbOSettings("object", content=True, focus=0.5),
    "style": AbOSettings("style", content=True),
}
TOY_STEPS = {"object": 120, "style": 360}
TOY_ABO: Mapping[str, AbOSettings] = {
    kind: replace(preset, steps=TOY_STEPS[kind], learning_rate=1e-3, batch_size=8, sampling_steps=15)
    for kind, preset in ABO.items()
}


@dataclass(frozen=True)
class States:
    """Noisy latents ``[n, c, h, w]``, each from a random step of a picture's sampling, with their timesteps ``[n]``."""

    latents: Tensor
    timesteps: Tensor


@checked
def abo(
    model: DiffusionModel,
    concept: Sequence[Concept | str] | Concept | str,
    settings: AbOSettings = ABO["object"],
    *,
    alternative: str = "",
    preserve: Sequence[str] | str = (),
    scope: str = "cross-attention",
    seconds: float | None = None,
    rank: int | None = None,
    gradient_checkpointing: bool = False,
    seed: Seed = 0,
    callback: Callback | None = None,
    preview: Preview | None = None,
) -> Erasure:
    """Train the guidance of a concept to be that of an alternative, or none, and keep the unconditional score.

    The method is a reconstruction from the paper's abstract; see the module for its loss. ``model`` is only read.

    - ``concept``: a single concept, as a ``Concept`` or as text, ``pig`` or ``pig -> cow``.
    - ``settings``: one of the presets ``ABO``, or an ``AbOSettings``; the default is the preset for objects.
    - ``alternative``: the prompt whose guidance the concept gets. It may also follow the concept's name and an arrow.
      By default there is none, and the concept guides nowhere.
    - ``preserve``: prompts whose predictions should stay as they are, by default none.
    - ``scope``: the weights to train: ``cross-attention`` (keys and values; the default, which harms least),
      ``attention`` or ``unet``.
    - ``seconds``: training ends after so many seconds, above 0, though steps are left; by default there is no limit.
    - ``rank``: train low-rank changes of this rank, at least 1; by default whole weights are trained.
    - ``gradient_checkpointing``: train in less memory and more time; off by default.
    - ``seed``: of all that is drawn at random; the same seed gives the same erasure on the same machine.
    - ``callback``: gets the progress of sampling and of training.
    - ``preview``: called after each update with a function that gives the model as it is by then, and with all losses;
      by default none.

    Raises ``ValueError`` for arguments out of range and for prompts that cannot be used, ``OutOfRoomError`` where too
    little memory is free, and ``TrainingError`` when the loss explodes or ends higher than it began.
    """
    budget, preserve = Budget(settings.steps, seconds), kept_prompts(preserve, "preserve")
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got '{scope}'")
    check_rank(rank)
    check_steps(model, settings.sampling_steps, "sampling_steps")
    pair = single_concept(concept, "AbO")
    concept = single_concept(Concept(pair.name, alternative or pair.instead), "AbO")
    check_readable(model, concept)
    check_preserve([concept], preserve, reads=reader(model))
    warn_of_names([concept], preserve)
    check_rank(rank, model.weights_of(scope))
    generator = torch.Generator().manual_seed(seed)
    named, others = named_prompts(settings, concept, generator)
    prompts = Prompts.of(model, named, others, preserve)
    states = states_of(model, named, others, settings, seed, callback)
    deltas, losses = trained(
        model, prompts, states, settings, budget, generator, scope=scope, rank=rank,
        gradient_checkpointing=gradient_checkpointing, callback=callback, preview=preview,
    )  # fmt: skip
    model_fingerprint = fingerprint(entry_weights(model))
    settings_record = {**asdict(settings), "scope": scope, "rank": rank, "seed": seed, "preserve": preserve}
    settings_record |= {"clip_skip": clip_skip_of(model)}
    return Erasure(deltas, (Origin("abo", (concept,), settings_record, model_fingerprint, losses=losses),))


def trained(
    model: DiffusionModel,
    prompts: Prompts,
    states: States,
    settings: AbOSettings,
    budget: Budget,
    generator: torch.Generator,
    *,
    scope: str = "cross-attention",
    rank: int | None = None,
    gradient_checkpointing: bool = False,
    callback: Callback | None = None,
    preview: Preview | None = None,
) -> tuple[dict[str, Delta], tuple[float, ...]]:
    """Train the weights of ``scope`` on ``prompts`` and ``states``; return their changes, and the loss of each update.

    Whatever is random is drawn from ``generator``, and ``budget`` says when training ends. The other arguments and the
    errors are those of ``abo``.
    """
    stand_ins = StandIns(model.weights_of(scope), rank, generator)
    optimiser = torch.optim.Adam(stand_ins.parameters, settings.learning_rate)
    edited, at_once = model.with_weights(stand_ins.weights()), 2 + (prompts.preserved is not None)
    at_once = 1 if gradient_checkpointing else at_once * settings.batch_size
    check_room("AbO", edited, stand_ins.parameters, prompts.empty, states.latents.shape, at_once, callback)

    def update(step: int) -> Tensor:
        which = torch.randint(len(states.latents), (settings.batch_size,), generator=generator)
        latents, timesteps = states.latents[which].to(model.device), states.timesteps[which].to(model.device)
        contexts = prompts.draw(settings.batch_size, generator)
        edited = model.with_weights(stand_ins.weights())
        loss = abo_loss(
            model, edited, latents, timesteps, contexts, settings.unconditional_weight, settings.preserve_weight,
            settings.focus if contexts.alternative is not None else 0.0, gradient_checkpointing,
        )  # fmt: skip
        descend(loss, stand_ins.parameters, optimiser)
        return loss

    look = after_update(preview, model, stand_ins)
    losses = train(update, budget, what="AbO", callback=callback, look=look)
    check_fell(losses)
    return stand_ins.deltas(), losses


@dataclass(frozen=True)
class Contexts:
    """What the loss compares for n latents: the conditioning of n prompts of each kind.

    ``alternative`` and ``preserved`` are ``None`` where a user names none; ``empty`` is that of the empty prompt.
    """

    concept: Conditioning
    alternative: Conditioning | None
    empty: Conditioning
    preserved: Conditioning | None


def abo_loss(
    frozen: DiffusionModel,
    edited: DiffusionModel,
    latents: Tensor,
    timesteps: Tensor,
    contexts: Contexts,
    unconditional_weight: float,
    preserve_weight: float,
    focus: float = 0.0,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """Return the loss that the module describes, a scalar; each square in it is a mean over all numbers.

    ``latents`` ``[n, c, h, w]`` are noised to ``timesteps`` ``[n]``, and ``contexts`` are of n prompts each. Each model
    is passed once; only ``edited`` is differentiated. ``unconditional_weight``, ``preserve_weight`` and ``focus``, by
    default 0, are at least 0. ``gradient_checkpointing`` is that of ``predict``, off by default.
    """
    edited_contexts = [c for c in (contexts.empty, contexts.concept, contexts.preserved) if c is not None]
    empty, concept, *preserved = _predict(edited, latents, timesteps, edited_contexts, gradient_checkpointing)
    own = contexts.concept if focus else None
    frozen_contexts = [c for c in (contexts.empty, contexts.alternative, own, contexts.preserved) if c is not None]
    with torch.no_grad():
        empty0, *rest0 = _predict(frozen, latents, timesteps, frozen_contexts)
    guide0 = rest0.pop(0) - empty0 if contexts.alternative is not None else torch.zeros_like(empty0)
    if focus:
        guide0 = focused(rest0.pop(0) - empty0, guide0, focus)
    loss = (concept - empty - guide0).square().mean() + unconditional_weight * (empty - empty0).square().mean()
    if preserved:
        loss = loss + preserve_weight * (preserved[0] - rest0[0]).square().mean()
    return loss


def focused(concept: Tensor, alternative: Tensor, focus: float) -> Tensor:
    """Return the guidance ``alternative`` where it differs most from that of the ``concept``, elsewhere the latter.

    Both are ``[n, c, h, w]``; see the module for the equation. With a ``focus`` of 0 it is ``alternative`` everywhere.
    """
    apart = (alternative - concept).square().mean(1, keepdim=True)
    most = apart.amax((2, 3), keepdim=True).clamp(min=torch.finfo(apart.dtype).tiny)
    return concept + (apart / most) ** focus * (alternative - concept)


def _predict(
    model: DiffusionModel,
    latents: Tensor,
    timesteps: Tensor,
    contexts: Sequence[Conditioning],
    gradient_checkpointing: bool = False,
) -> list[Tensor]:
    many = len(contexts)
    latents, timesteps = latents.repeat(many, 1, 1, 1), timesteps.repeat(many)
    return list(predict(model, latents, timesteps, Conditioning.cat(contexts), gradient_checkpointing).chunk(many))


@dataclass(frozen=True)
class Prompts:
    """The conditioning of all prompts of the concept and the alternative, and of preserved ones, to draw from.

    Prompt i of the concept belongs to prompt i of the alternative. ``alternative`` and ``preserved`` are ``None``
    where a user names none.
    """

    concept: Conditioning
    alternative: Conditioning | None
    empty: Conditioning
    preserved: Conditioning | None

    @classmethod
    def of(
        cls, model: DiffusionModel, concept: Sequence[str], others: Sequence[str], preserve: Sequence[str]
    ) -> Prompts:
        """Encode prompts with the concept, those of the alternative or none, and the prompts to ``preserve``."""
        parts = [list(concept), list(others), [""], list(preserve)]
        conditioning = model.encode_prompts([prompt for part in parts for prompt in part]).detach()
        own, alternative, empty, preserved = conditioning.split([len(part) for part in parts])
        return cls(own, alternative if len(alternative) else None, empty, preserved if len(preserved) else None)

    def draw(self, count: int, generator: torch.Generator) -> Contexts:
        """Return the contexts of ``count`` random prompts of each kind, with the random numbers of ``generator``."""
        which = torch.randint(len(self.concept), (count,), generator=generator)
        preserved = None
        if self.preserved is not None:
            preserved = self.preserved[torch.randint(len(self.preserved), (count,), generator=generator)]
        alternative = self.alternative[which] if self.alternative is not None else None
        return Contexts(self.concept[which], alternative, self.empty.expand(count), preserved)


def named_prompts(settings: AbOSettings, concept: Concept, generator: torch.Generator) -> tuple[list[str], list[str]]:
    """Return prompts of the concept, and as many of the alternative or, where there is none, no others."""
    kind = settings.kind
    if not concept.instead:
        return wordings(kind, concept.name), []
    named = captions_of(kind, concept, CAPTIONS, generator) if settings.content else wordings(kind, concept.name)
    return named, [with_target(prompt, concept) for prompt in named]


def states_of(
    model: DiffusionModel,
    named: Sequence[str],
    others: Sequence[str],
    settings: AbOSettings,
    seed: int,
    callback: Callback | None,
) -> States:
    """Return states of the frozen model, half for the concept, half for the alternative or the empty prompt."""
    both = [named, others or [""]]
    prompts = [both[i % 2][i // 2 % len(both[i % 2])] for i in range(settings.trajectories)]
    latents, timesteps = trajectories(
        model,
        prompts,
        range(seed, seed + len(prompts)),
        steps=settings.sampling_steps,
        guidance=settings.guidance,
        callback=callback,
    )
    return States(latents, timesteps)


METHOD = Method(
    "abo", abo, ABO, TOY_ABO,
    "the concept's guidance learns to be an alternative's; reconstructed from the paper's abstract",
    (Preserve, Training, GradientCheckpointing),
)  # fmt: skip
