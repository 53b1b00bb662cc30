"""The nodes that apply, combine, save and load erasures."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..erasure_core import Erasure as CoreErasure
from ..erasure_core.erasures.programs import readers_of
from ..erasure_core.quoting import shortened
from .comfy_host.files import CONCEPTS, lora_files, lora_path, save_as_lora, stamp
from .comfy_host.patches import apply_erasure
from .comfy_host.rebase import rebase_if_needed
from .input_checks import checked
from .inputs import USE, Erasure
from .schema import schema

log = logging.getLogger(__name__)


def _strength(name: str, tooltip: str):
    return io.Float.Input(name, default=1.0, min=-10.0, max=10.0, step=0.05, tooltip=tooltip)


class ErasureApply(io.ComfyNode):
    """Applies an ERASURE to clones of MODEL and CLIP with ``apply_erasure``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureApply",
            display_name="Apply Erasure",
            category=USE,
            search_aliases=("apply lora",),
            description="Applies an erasure to a model, on top of the LoRAs and erasures that it has.",
            inputs=[
                io.Model.Input("model", tooltip="The model to change; a copy is changed, never the original."),
                Erasure.Input("erasure", tooltip="What to apply: from a method's node or from Load Erasure."),
                _strength("strength_model", "How much of its change of the model is applied; 1 is all."),
                _strength("strength_clip", "How much of its change of the text encoder is applied; 1 is all."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Its text encoder, for erasures that change it, as few-shot's, and for those that were "
                    "made on another model. Others do not need it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="A copy of the model with the erasure."),
                io.Clip.Output(display_name="CLIP", tooltip="A copy of the text encoder with the erasure."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, model, erasure, strength_model, strength_clip, clip=None) -> io.NodeOutput:
        rebased = rebase_if_needed(model, clip, erasure)
        applied = apply_erasure(model, clip, rebased, strength_model, strength_clip)
        return io.NodeOutput(*applied, ui={"text": (_contents(erasure),)})


class ErasureCombine(io.ComfyNode):
    """Adds two ERASUREs, each multiplied by a strength."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureCombine",
            display_name="Combine Erasures",
            category=USE,
            search_aliases=("merge erasures", "add erasures", "merge lora"),
            description="Adds two erasures to one. To erase one concept on top of another, chain the methods' nodes "
            "instead: the second then sees what the first did.",
            inputs=[
                Erasure.Input("a", tooltip="The first erasure."),
                Erasure.Input("b", tooltip="The second erasure, for the same kind of model."),
                _strength("strength_a", "How much of the first is taken."),
                _strength("strength_b", "How much of the second is taken."),
            ],
            outputs=[Erasure.Output(display_name="ERASURE", tooltip="Both changes at once.")],
        )

    @classmethod
    @checked
    def execute(cls, a, b, strength_a, strength_b) -> io.NodeOutput:
        return io.NodeOutput(a.scaled(strength_a) + b.scaled(strength_b))


class ErasureSave(io.ComfyNode):
    """Writes an ERASURE to a numbered LoRA file with ``save_as_lora``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureSave",
            display_name="Save Erasure",
            category=USE,
            search_aliases=("save lora", "export", "forget", "unlearn"),
            description="Saves an erasure as a LoRA file below output/loras: both stock Load LoRA nodes list it, "
            "and an erasure by few-shot needs the one with CLIP. Which other programs read it depends on the model's "
            "family; the node says which.",
            is_output_node=True,
            inputs=[
                Erasure.Input("erasure", tooltip="What to save."),
                io.String.Input(
                    "filename_prefix",
                    default=f"erasure/{CONCEPTS}",
                    tooltip="Folder and start of the file's name below output/loras. A number is added: nothing is "
                    "overwritten. %concepts% stands for what is erased, %year%, %month% and %day% for the "
                    "date.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file is.")],
        )

    @classmethod
    @checked
    def execute(cls, erasure, filename_prefix) -> io.NodeOutput:
        path = str(save_as_lora(erasure, filename_prefix))
        readers = f"As a LoRA {readers_of(erasure)}."
        log.info("%s: %s", path, readers)
        return io.NodeOutput(path, ui={"text": (path, readers), "saved": (True,)})


class ErasureLoad(io.ComfyNode):
    """Reads an ERASURE from a file in ComfyUI's loras folders."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureLoad",
            display_name="Load Erasure",
            category=USE,
            search_aliases=("load lora", "forget", "unlearn"),
            description="Loads a file that Save Erasure or the command line wrote. LoRAs of other origin belong into "
            "Load LoRA.",
            inputs=[
                io.Combo.Input(
                    "file", options=lora_files(), tooltip="A file of the loras folders, of output/loras too."
                ),
            ],
            outputs=[Erasure.Output(display_name="ERASURE", tooltip="The erasure, to apply or combine.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file):
        return stamp(lora_path(file))

    @classmethod
    @checked
    def execute(cls, file) -> io.NodeOutput:
        erasure = CoreErasure.load(lora_path(file))
        return io.NodeOutput(erasure, ui={"text": (_contents(erasure),)})


def _contents(erasure: CoreErasure) -> str:
    """Return a line on what an erasure erases and how it was made, to show at a node."""
    if not erasure.origins:
        return "A change without a record of what it erases."
    methods = dict.fromkeys(origin.method for origin in erasure.origins)
    return f"Erases {shortened([str(one) for one in erasure.concepts])} (by {', '.join(methods)})."
