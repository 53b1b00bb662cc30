"""The node that erases concepts with RECE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from comfy_api.latest import io

from ..erasure_core import parse_concepts
from ..erasure_core.closed_form.update import without_unlisted
from ..erasure_core.concepts.name_lists import name_list
from ..erasure_core.concepts.parse import Concept, parse_prompts
from ..erasure_core.limits import limits_of
from ..erasure_core.methods.rece import RECE, ReceSettings, rece_with_statistics
from ..erasure_core.quoting import shortened
from .comfy_host.open_model import reader
from .comfy_host.patches import apply_erasure
from .comfy_host.progress import progress
from .input_checks import checked
from .inputs import (
    ERASE,
    NO_LIST,
    Erasure,
    Statistics,
    concepts_verdict,
    limits_by_name,
    listed,
    preserve_common_input,
    preserve_input,
    preserve_list_input,
    setting_input,
    strength_input,
)
from .schema import ALIASES, PHRASES, advanced, completed, schema, with_extra

CUSTOM = "custom"
NUMBERS = next(iter(RECE.values()))
"""What the inputs show: the numbers of the first preset, which the page replaces by those of any other."""
MOST_LOOPS = 20  # of the input; published settings have 3 at most
LIMITS = {one.name: limits_of(one) for one in fields(ReceSettings)}


class ErasureRECE(io.ComfyNode):
    """Erases concepts with ``rece_with_statistics``, and applies the result to clones of MODEL and CLIP."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureRECE",
            display_name="Erase Concepts (RECE)",
            category=ERASE,
            search_aliases=(*ALIASES, *PHRASES, "UCE", "ESD", "RECE", "concept ablation", "negative prompt"),
            description="Erases what you name in seconds: no training, no pictures. For Stable Diffusion (SDXL too), "
            "diffusion transformers, and this pack's small model.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to erase from. LoRAs before this node count, and erasures of other concepts.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                completed(
                    io.String.Input(
                        "concepts",
                        multiline=True,
                        default="",
                        placeholder="What to erase, one concept a line. For example: van gogh -> art",
                        tooltip="What to erase, one concept a line. After '->' what its prompts should give instead; "
                        "without it, nothing in particular. '# ' starts a comment. Brackets are text; they set no "
                        "weights.",
                    ),
                    listing=True,
                    erases=True,
                ),
                preserve_input(),
                preserve_common_input(
                    default=False,
                    about="Also preserve about a hundred everyday concepts, less those that share a word with what is "
                    "erased. Preset 'general' needs no list; the others harm the model less with it.",
                ),
                with_extra(
                    io.Combo.Input(
                        "preset",
                        options=[*RECE, CUSTOM],
                        tooltip="'general' is for an object or a style, 'several' for several at once; both "
                        "need no list of what to preserve. The advanced numbers are those of the preset; changing one "
                        "makes it 'custom'.",
                    ),
                    presets={name: asdict(settings) for name, settings in RECE.items()},
                ),
                *_custom_inputs(),
                strength_input(),
                advanced(
                    completed(
                        io.String.Input(
                            "exactly",
                            multiline=True,
                            default="",
                            optional=True,
                            placeholder="Seldom needed: a few prompts that must not change in the least, one a line",
                            tooltip="Prompts that are left exactly alone, one a line: the edit keeps clear of all "
                            "that is read for them. A few: every one leaves the edit less room.",
                        )
                    )
                ),
                _switch("name_only"),
                _setting("exactness", step=0.0001, round=False, optional=True),
                Statistics.Input(
                    "statistics",
                    optional=True,
                    tooltip="Concepts that were erased before, to erase again together with those above; only the new "
                    "ones are encoded. Connect the model without the earlier erasure, and choose the same kind of "
                    "preset: 'many' again if they were made with it, any other if not.",
                ),
                preserve_list_input(),
                _setting("relative_ridge", step=0.01, round=False, optional=True),
                _switch("everyday_captions"),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="A copy of the model without the concepts."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder; RECE does not change it."),
                Erasure.Output(display_name="ERASURE", tooltip="The change itself, to save, combine or apply."),
                Statistics.Output(display_name="STATISTICS", tooltip="What is known of all concepts, to add to later."),
            ],
        )

    @classmethod
    def validate_inputs(cls, concepts=None):
        return concepts_verdict(concepts, "concepts", may_be_empty=True)

    @classmethod
    @checked
    def execute(
        cls, model, clip, concepts, preserve, preserve_common, preset, strength, exactly="", statistics=None,
        preserve_list=NO_LIST, **custom,
    ) -> io.NodeOutput:  # fmt: skip
        parsed = parse_concepts(concepts) if concepts.strip() or statistics is None else []
        prompts, alone = parse_prompts(preserve, "preserve"), parse_prompts(exactly, "exactly")
        prompts += listed([*parsed, *(statistics.concepts if statistics else ())], preserve_list)
        text_reader = reader(model, clip)
        if statistics and preserve_list != NO_LIST:
            statistics = without_unlisted(statistics, text_reader, name_list(preserve_list), prompts)
        settings = {**RECE, CUSTOM: ReceSettings(**custom)}[preset]
        erasure, all_statistics = rece_with_statistics(
            text_reader,
            parsed,
            settings,
            preserve=prompts,
            exactly=alone,
            common=preserve_common,
            statistics=statistics,
            callback=progress(),
        )
        erasure = erasure.scaled(strength)
        outcome = _outcome(erasure.concepts, len(prompts) + len(alone), preset, strength)
        return io.NodeOutput(*apply_erasure(model, clip, erasure), erasure, all_statistics, ui={"text": (outcome,)})


def _outcome(concepts: Sequence[Concept], preserved: int, preset: str, strength: float) -> str:
    """Return a sentence on what a node has done, to show at it."""
    strongly = "" if strength == 1 else f", at strength {strength:g}"
    stays = f" {preserved} prompt{'s' * (preserved > 1)} preserved." if preserved else ""
    return f"Erased with preset '{preset}'{strongly}: {shortened(list(map(str, concepts)))}.{stays}"


def _custom_inputs() -> list:
    """Return the inputs for the settings that presets differ in."""
    names = ("regularization", "erase_scale", "preserve_scale", "ridge", "amplification")
    return [_setting("loops", most=MOST_LOOPS), *(_setting(name, step=0.001, round=False) for name in names)]


def _setting(name: str, **more):
    """Return the number input for a setting of RECE; see ``setting_input``."""
    return advanced(setting_input(NUMBERS, name, tooltip=_tooltip(name), **more))


def _switch(name: str):
    """Return the input for a setting of RECE that is on or off."""
    switch = io.Boolean.Input(name, default=getattr(NUMBERS, name), optional=True, tooltip=_tooltip(name))
    return advanced(switch)


def _tooltip(name: str) -> str:
    """Return what the settings say of the one of this name."""
    return f"{limits_by_name(ReceSettings)[name].help} The preset's, unless the preset is '{CUSTOM}'."
