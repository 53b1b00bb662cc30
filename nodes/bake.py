"""The node that writes a checkpoint with an erasure in its weights."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..erasure_core.baking.bake import LOSES_MUCH, BakedCheckpoint, bake
from .comfy_host.files import CHECKPOINTS, checkpoint_files, checkpoint_path, save_numbered, stamp
from .comfy_host.progress import progress
from .input_checks import checked
from .inputs import USE, Erasure
from .schema import schema

log = logging.getLogger(__name__)


class ErasureBake(io.ComfyNode):
    """Writes a checkpoint's file again with an ERASURE in its weights, with ``bake``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureBake",
            display_name="Bake Erasure",
            category=USE,
            search_aliases=("save checkpoint", "merge into checkpoint", "export", "permanent", "forget", "unlearn"),
            description="Writes a checkpoint to hand out: the file that you choose, with the erasure in its weights "
            "and all else as it is, below output/checkpoints. One tensor is in memory at a time.",
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=checkpoint_files(),
                    tooltip="The file to write again: fp32, fp16, bf16 or fp8. It is only read.",
                ),
                Erasure.Input("erasure", tooltip="What to put into it: from a method's node or from Load Erasure."),
                io.Float.Input(
                    "strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="How much of it: 1 is all."
                ),
                io.String.Input(
                    "filename_prefix",
                    default="erasure/baked",
                    tooltip="Folder and start of the file's name below output/checkpoints. A number is added: nothing "
                    "is overwritten. %year%, %month% and %day% stand for the date.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file is.")],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint, **_):
        return stamp(checkpoint_path(checkpoint))

    @classmethod
    @checked
    def execute(cls, checkpoint, erasure, strength, filename_prefix) -> io.NodeOutput:
        results: list[BakedCheckpoint] = []

        def write(path):
            results.append(bake(erasure, checkpoint_path(checkpoint), path, strength=strength, callback=progress()))
            return path

        path = str(save_numbered(CHECKPOINTS, filename_prefix, write))
        (result,) = results
        summary = f"{result.changed} tensors have changed. Rounding loses {result.rounding:.2%} of the change."
        if result.note:
            summary += f" {result.note[0].upper()}{result.note[1:]}."
        log.log(logging.WARNING if result.rounding > LOSES_MUCH else logging.INFO, "%s: %s", path, summary)
        return io.NodeOutput(path, ui={"text": (path, summary), "saved": (True,)})
