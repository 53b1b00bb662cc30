"""The node that draws a given picture again without a concept."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..erasure_core.quoting import quoted
from ..erasure_core.sampling.purify import names_a_concept, purify
from .comfy_host.images import to_pictures
from .comfy_host.progress import progress
from .comfy_host.rebase import rebase_if_needed
from .comfy_host.trainable_model import trainable
from .input_checks import checked
from .inputs import MODELS, USE, Erasure
from .schema import schema

log = logging.getLogger(__name__)


class ErasurePurify(io.ComfyNode):
    """Draws pictures again without a concept, with ``purify``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasurePurify",
            display_name="Purify Pictures (Erasure)",
            category=USE,
            is_experimental=True,  # never run on weights of Stable Diffusion
            search_aliases=("remove from picture", "inversion", "img2img", "forget", "unlearn", "edit image"),
            description="Takes a concept out of given pictures: finds the noise that the model would have drawn them "
            "from (DDIM inversion) and draws from it again with an erasure applied. Reconstructed from the abstract of "
            "the paper 'All but One' (AAAI 2024); works with the erasure of any method. " + MODELS,
            inputs=[
                io.Model.Input("model", tooltip="The model WITHOUT the erasure, from before the node that erased."),
                io.Clip.Input("clip", tooltip="The text encoder WITHOUT the erasure."),
                io.Vae.Input("vae", tooltip="The model's autoencoder."),
                Erasure.Input("erasure", tooltip="What to take out of the pictures."),
                io.Image.Input("images", tooltip="The pictures, in a size that the model draws well."),
                io.String.Input(
                    "prompt",
                    default="",
                    placeholder="What the pictures show, the concept included",
                    tooltip="What the pictures show, the concept included. Empty for the name of the concept alone.",
                ),
                io.Int.Input(
                    "steps",
                    default=30,
                    min=1,
                    max=999,
                    tooltip="Steps of each way. More come closer to the picture where nothing is erased.",
                ),
                io.Float.Input(
                    "guidance",
                    default=1.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="How strongly the prompt leads, both ways. 1 keeps most of the picture, 3 changes more; "
                    "high values lose it.",
                ),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The pictures without it.")],
        )

    @classmethod
    @checked
    def execute(cls, model, clip, vae, erasure, images, prompt, steps, guidance) -> io.NodeOutput:
        erasure = rebase_if_needed(model, clip, erasure)
        if not names_a_concept(prompt, erasure):
            names = quoted([concept.name for concept in erasure.concepts])
            log.warning("prompt does not name what is erased (%s), so little may change", names)
        pictures, settings = to_pictures(images), {"steps": steps, "guidance": guidance}
        with trainable(model, clip, vae) as trainable_model:
            pure = purify(trainable_model, erasure, pictures, prompt=prompt, callback=progress(), **settings)
        return io.NodeOutput(pure.movedim(1, -1).clamp(0, 1))
