"""The types that nodes pass to one another, and the inputs that several nodes share."""

from __future__ import annotations

from dataclasses import fields

from comfy_api.latest import io

from ..erasure_core.concepts.common import common_concepts
from ..erasure_core.concepts.name_lists import LISTS, listed_beside
from ..erasure_core.concepts.parse import name_of, parse_concepts, parse_prompts
from ..erasure_core.concepts.templates import WORDINGS
from ..erasure_core.limits import Limits, Settings, limits_of
from .input_checks import check_text
from .schema import advanced, completed

CATEGORY = "Erasure"
ERASE, USE, CHECK, MANY, TRY = (
    f"{CATEGORY}/{name}" for name in ("Erase", "Use and save", "Check", "Many concepts", "Small model")
)
MODELS = "Stable Diffusion 1.x, 2.x and XL, and this pack's toy model."  # that can be trained, attacked and inverted
NO_LIST = "none"
Erasure = io.Custom("ERASURE")
"""Carries an ``erasure_core.Erasure``."""
Statistics = io.Custom("ERASURE_STATISTICS")
"""Carries ``erasure_core.Statistics``."""
MOST = 1e4  # of an input for a setting that has no upper limit, since inputs need one
INSIDE_LEAST, INSIDE_MOST = 1e-6, 1e-3  # how far within a limit that a setting must not reach its input ends


def name_of_erased(concept: str) -> str:
    """Return the name of an erased concept, from text like ``name`` or ``name -> target``.

    Raises ``ValueError`` if there is no name.
    """
    if not concept.strip():
        raise ValueError("concept is empty: name what was erased, for example 'van gogh'")
    return name_of(concept)


def concepts_verdict(text: str | None, name: str, *, may_be_empty: bool = False) -> bool | str:
    """Return what ``validate_inputs`` of a node says of the input ``name``: true, or what is wrong with its text.

    ``text`` is ``None`` where the input is linked, so that its text is not known yet. With ``may_be_empty`` no text is
    left to the node itself, which knows what else is connected.
    """
    if text is None or (may_be_empty and not text.strip()):
        return True
    try:
        check_text(name, text)
        parse_concepts(text, name)
    except ValueError as error:
        return str(error)
    return True


def audited_inputs() -> list:
    """Return the inputs for the model as it was before the erasure that a node audits."""
    return [
        io.Model.Input("model", tooltip="The model WITHOUT the erasure."),
        io.Clip.Input("clip", tooltip="The text encoder WITHOUT the erasure."),
        io.Vae.Input("vae", tooltip="The autoencoder of both."),
    ]


def concept_inputs() -> list:
    """Return the inputs for the erased concept and its kind, one of ``WORDINGS``."""
    return [
        completed(
            io.String.Input(
                "concept",
                default="",
                placeholder="What was erased, for example: van gogh",
                tooltip="What was erased, as you erased it.",
            )
        ),
        io.Combo.Input("kind", options=list(WORDINGS), tooltip="How prompts name the concept."),
    ]


def limits_by_name(kind: type[Settings]) -> dict[str, Limits]:
    """Return the limits of all settings of a method, by their names."""
    return {one.name: limits_of(one) for one in fields(kind)}


def setting_input(preset: Settings, name: str, *, most: float = MOST, tooltip: str = "", **more):
    """Return the number input for the setting ``name`` of a method, with the setting's range and ``preset``'s value.

    ``most`` is the largest number where the setting has no limit. The tooltip is by default what the setting says
    of itself. ``more`` is what else the input takes, for example its ``step``.
    """
    limits, default = limits_by_name(type(preset))[name], getattr(preset, name)
    number, kind = (int, io.Int) if isinstance(default, int) else (float, io.Float)
    least, largest = number(_least(limits, most)), number(_largest(limits, most))
    return kind.Input(name, default=default, min=least, max=largest, tooltip=tooltip or limits.help, **more)


def _least(limits: Limits, most: float) -> float:
    if limits.above is not None:
        return limits.above + INSIDE_LEAST
    return -most if limits.least is None else limits.least


def _largest(limits: Limits, most: float) -> float:
    if limits.below is not None:
        return limits.below - INSIDE_MOST
    return most if limits.most is None else limits.most


def seed_input(most: int, tooltip: str):
    """Return the input for a seed from 0 to ``most``; ``web/erasure.js`` lets it be the same for the next run."""
    return io.Int.Input("seed", default=0, min=0, max=most, control_after_generate=True, tooltip=tooltip)


def judge_inputs() -> list:
    """Return the inputs for the two halves of a CLIP that says what pictures show."""
    return [
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="With clip_judge: says what pictures show. Not needed for the toy, which has a judge of its own.",
        ),
        io.Clip.Input(
            "clip_judge",
            optional=True,
            tooltip="The text encoder that belongs to clip_vision, with its projection: CLIP-L for ViT-L.",
        ),
    ]


def preserve_input(**more):
    """Return the input for prompts to preserve; ``more`` is what else the input takes, for example ``optional``."""
    return completed(
        io.String.Input(
            "preserve",
            multiline=True,
            default="",
            placeholder="Prompts that must stay as they are, one a line",
            tooltip="Prompts that must stay as they are, one a line. Name near neighbours of what you erase.",
            **more,
        )
    )


def preserve_common_input(
    default: bool = True,
    about: str = "Also preserve about a hundred everyday concepts, less those that share a word with what is erased. "
    "Harms the model less.",
    **more,
):
    """Return the switch that preserves the built-in everyday concepts too; ``more`` as for ``preserve_input``.

    ``default`` is whether it is on at first, ``about`` its tooltip.
    """
    return io.Boolean.Input("preserve_common", default=default, tooltip=about, **more)


def preserve_list_input():
    """Return the choice of a whole list of names to preserve."""
    return advanced(
        io.Combo.Input(
            "preserve_list",
            options=[NO_LIST, *LISTS],
            optional=True,
            tooltip="Also preserve a whole list: 5,265 artists, 200 movements or 95 mediums, less the names that share "
            "a word with what is erased. Every name is encoded once, which takes time.",
        )
    )


def listed(concepts, preserve_list: str) -> list[str]:
    """Return the names of the list that ``preserve_list_input`` chose, less those of the concepts."""
    return listed_beside(concepts, None if preserve_list == NO_LIST else preserve_list)


def preserved(concepts, preserve: str, preserve_common: bool, preserve_list: str) -> list[str]:
    """Return the prompts to preserve that the inputs name: everyday concepts, lines of text, and names of a list."""
    common = common_concepts(concepts) if preserve_common else []
    return [*common, *parse_prompts(preserve, "preserve"), *listed(concepts, preserve_list)]


def strength_input():
    """Return the input for the share of an erasure that a method's node applies."""
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.0,
        max=2.0,
        step=0.05,
        tooltip="How much of the erasure is applied, and carried by ERASURE: 1 is all, 0 is nothing.",
    )
