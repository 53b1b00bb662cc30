"""The types that nodes pass to one another, and the inputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

from ..erasure_core.concepts.parse import name_of

CATEGORY = "Erasure"
MODELS = "Stable Diffusion 1.x, 2.x and XL, and this pack's toy model."  # that can be trained, attacked and inverted
Erasure = io.Custom("ERASURE")
"""Carries an ``erasure_core.Erasure``."""
Statistics = io.Custom("ERASURE_STATISTICS")
"""Carries ``erasure_core.Statistics``."""


def named(concept: str) -> str:
    """The name of what was erased, without what came instead. Raises ``ValueError`` if there is none."""
    if not concept.strip():
        raise ValueError("concept is empty: name what was erased, for example 'van gogh'")
    return name_of(concept)


def audited_inputs() -> list:
    """The model as it was before the erasure that a node audits."""
    return [
        io.Model.Input("model", tooltip="The model WITHOUT the erasure."),
        io.Clip.Input("clip", tooltip="The text encoder WITHOUT the erasure."),
        io.Vae.Input("vae", tooltip="The autoencoder of both."),
    ]


def concept_inputs() -> list:
    """Return the inputs for the erased concept and its kind."""
    return [
        io.String.Input("concept", default="", placeholder="van gogh", tooltip="What was erased, as you erased it."),
        io.Combo.Input("kind", options=["object", "style"], tooltip="How prompts name the concept."),
    ]


def seed_input(most: int, tooltip: str):
    return io.Int.Input("seed", default=0, min=0, max=most, control_after_generate=True, tooltip=tooltip)


def judge_inputs() -> list:
    """Halves of a CLIP that says what pictures show."""
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


def preserve_input():
    return io.String.Input(
        "preserve",
        multiline=True,
        default="",
        placeholder="what must stay as it is",
        tooltip="Prompts that must stay as they are, one a line. Name near neighbours of what you erase.",
    )


def preserve_common_input():
    return io.Boolean.Input(
        "preserve_common",
        default=True,
        tooltip="Also preserve about a hundred everyday concepts, less those that share a word with what is erased. "
        "Harms the model less.",
    )


def strength_input():
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.0,
        max=2.0,
        step=0.05,
        tooltip="How much of the erasure is applied, and carried by ERASURE: 1 is all, 0 is nothing.",
    )
