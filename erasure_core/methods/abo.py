"""The method AbO, "All but One" (arXiv 2312.12807, AAAI 2024), reconstructed: it trains the guidance of a concept away.

The authors published no code and only the abstract and the captions could be read: the loss below is our
reconstruction of it. With the guidance term ``g(x, t, C) = e(x, t, C) - e(x, t, "")``:

    |g(x, t, concept) - g0(x, t, alternative)|^2  +  w |e(x, t, "") - e0(x, t, "")|^2
        +  v * sum over preserved prompts |e(x, t, p) - e0(x, t, p)|^2

where ``0`` marks the frozen model; without an alternative ``g0`` is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

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
from ..model import Callback, DiffusionModel, entry_weights, fingerprint
from ..sampling.ddim import MOST_GUIDANCE, check_steps, trajectories
from ..settings import Settings, setting
from ..training.denoising import predict
from ..training.learned_settings import RATE, kind_setting, steps_setting
from ..training.loop import Budget, check_fell, check_rank, descend, train
from ..training.memory import check_room
from ..training.trainable import StandIns
from .inputs import GradientCheckpointing, Preserve, Training
from .method import Method

SCOPES = ("cross-attention", "attention", "unet")


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


ABO: Mapping[str, AbOSettings] = {"object": AbOSettings("object"), "style": AbOSettings("style")}
TOY_ABO: Mapping[str, AbOSettings] = {
    kind: AbOSettings(kind, steps=120, learning_rate=1e-3, batch_size=8, sampling_steps=15) for kind in ABO
}


@dataclass(frozen=True)
class States:
    """Noisy latents ``[n, c, h, w]`` of steps in which the frozen model draws pictures, with timesteps ``[n]``."""

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
) -> Erasure:
    """Train the guidance of ``concept`` to be that of ``alternative``, or none, and keep the unconditional score.

    A reconstruction from the paper's abstract. ``settings`` is one of the presets ``ABO``, or an ``AbOSettings``;
    ``alternative`` may also follow the concept's name and an arrow. ``scope`` is what is trained: cross-attention (keys
    and values), attention or unet. States come from ``trajectories`` sampled by the frozen model, half for the concept,
    half for the alternative. With ``rank`` the changes are low-rank; ``gradient_checkpointing`` saves memory and costs
    time. Raises ``ValueError`` for settings that cannot be used and ``TrainingError`` when the loss explodes or
    ends higher than it began; the model is only read.
    """
    budget, preserve = Budget(settings.steps, seconds), kept_prompts(preserve, "preserve")
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got '{scope}'")
    check_rank(rank)
    check_steps(model, settings.sampling_steps, "sampling_steps")
    named = single_concept(concept, "AbO")
    concept = single_concept(Concept(named.name, alternative or named.instead), "AbO")
    check_readable(model, concept)
    check_preserve([concept], preserve, reads=reader(model))
    warn_of_names([concept], preserve)
    check_rank(rank, model.weights_of(scope))
    generator = torch.Generator().manual_seed(seed)
    prompts = Prompts.of(model, settings.kind, concept, preserve)
    states = _states(model, concept, settings, seed, callback)
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
            gradient_checkpointing,
        )  # fmt: skip
        descend(loss, stand_ins.parameters, optimiser)
        return loss

    losses = train(update, budget, what="AbO", callback=callback)
    check_fell(losses)
    made_on = fingerprint(entry_weights(model))
    made_with = {**asdict(settings), "scope": scope, "rank": rank, "seed": seed, "preserve": preserve}
    return Erasure(stand_ins.deltas(), (Origin("abo", (concept,), made_with, made_on, losses=losses),))


@dataclass(frozen=True)
class Contexts:
    """Of n prompts each; ``alternative`` and ``preserved`` may be missing."""

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
    gradient_checkpointing: bool = False,
) -> Tensor:
    """Return the loss that the module describes, each square as a mean, from one pass of each model."""
    needed = [contexts.empty, contexts.concept] + ([contexts.preserved] if contexts.preserved is not None else [])
    empty, concept, *preserved = _predict(edited, latents, timesteps, needed, gradient_checkpointing)
    wanted = [contexts.empty] + [c for c in (contexts.alternative, contexts.preserved) if c is not None]
    with torch.no_grad():
        empty0, *rest0 = _predict(frozen, latents, timesteps, wanted)
    guide0 = rest0.pop(0) - empty0 if contexts.alternative is not None else torch.zeros_like(empty0)
    loss = (concept - empty - guide0).square().mean() + unconditional_weight * (empty - empty0).square().mean()
    if preserved:
        loss = loss + preserve_weight * (preserved[0] - rest0[0]).square().mean()
    return loss


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
    """What to draw from, of k prompts each; wording i of the concept belongs to i of the alternative."""

    concept: Conditioning
    alternative: Conditioning | None
    empty: Conditioning
    preserved: Conditioning | None

    @classmethod
    def of(cls, model: DiffusionModel, kind: str, concept: Concept, preserve: Sequence[str]) -> Prompts:
        parts = [wordings(kind, concept.name), wordings(kind, concept.instead) if concept.instead else [], [""]]
        parts.append(list(preserve))
        conditioning = model.encode_prompts([prompt for part in parts for prompt in part]).detach()
        own, alternative, empty, preserved = conditioning.split([len(part) for part in parts])
        return cls(own, alternative if len(alternative) else None, empty, preserved if len(preserved) else None)

    def draw(self, count: int, generator: torch.Generator) -> Contexts:
        """Return random contexts for a batch of ``count`` latents."""
        which = torch.randint(len(self.concept), (count,), generator=generator)
        preserved = None
        if self.preserved is not None:
            preserved = self.preserved[torch.randint(len(self.preserved), (count,), generator=generator)]
        alternative = self.alternative[which] if self.alternative is not None else None
        return Contexts(self.concept[which], alternative, self.empty.expand(count), preserved)


def _states(
    model: DiffusionModel, concept: Concept, settings: AbOSettings, seed: int, callback: Callback | None
) -> States:
    """Return states of the frozen model, half for the concept, half for the alternative or the empty prompt."""
    kind = settings.kind
    both = [wordings(kind, concept.name), wordings(kind, concept.instead) if concept.instead else [""]]
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
