"""The methods, by the name that command line, files and presets use. A new method is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..erasures.erasure import Erasure
from ..settings import Settings
from . import abo, doco, few_shot, rece, uce


@dataclass(frozen=True)
class Method:
    """How to call a method: ``run(model, concepts, settings, ...)`` with one of its presets as settings.

    ``toy_presets`` are those for the embedded model, which is so small that learning rates for Stable Diffusion do
    nothing to it. ``needs`` names what else it takes: ``preserve`` and ``exactly`` (prompts), ``images`` (of the
    concept) and ``training`` (``seed``, ``seconds`` and ``rank``), ``gradient_checkpointing`` and ``towers``.
    """

    run: Callable[..., Erasure]
    presets: Mapping[str, Settings]
    toy_presets: Mapping[str, Settings]
    summary: str
    needs: frozenset[str] = frozenset({"preserve"})


METHODS: Mapping[str, Method] = {
    "rece": Method(
        rece.rece,
        rece.RECE,
        rece.RECE,
        "closed form, iterated: erases a concept and what would bring it back",
        frozenset({"preserve", "exactly"}),
    ),
    "few_shot": Method(
        few_shot.few_shot,
        few_shot.FEW_SHOT,
        few_shot.TOY_FEW_SHOT,
        "the text encoder learns from a few pictures to lose the concept",
        frozenset({"images", "training", "towers"}),
    ),
    "doco": Method(
        doco.doco,
        doco.DOCO,
        doco.TOY_DOCO,
        "adversarial: the concept's pictures learn to pass for an anchor's",
        frozenset({"training", "gradient_checkpointing"}),
    ),
    "abo": Method(
        abo.abo,
        abo.ABO,
        abo.TOY_ABO,
        "the concept's guidance learns to be an alternative's; reconstructed from the paper's abstract",
        frozenset({"preserve", "training", "gradient_checkpointing"}),
    ),
    "uce": Method(uce.uce, uce.UCE, uce.UCE, "closed form, once: the first step of rece"),
}
