"""The node that loads the embedded model."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_host.toy import empty_latent, load_toy
from .inputs import TRY
from .schema import schema


class ErasureLoadToy(io.ComfyNode):
    """Loads the embedded model as MODEL, CLIP and VAE, with an empty latent of its size."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureLoadToy",
            display_name="Load Toy Model (Erasure)",
            category=TRY,
            search_aliases=("demo", "example model", "small model", "test model"),
            description="Loads the small text-to-image model that comes with this pack: emoji in four drawing styles, "
            "64 x 64 pixels, on a CPU in seconds. Prompt it like 'a cat in the style of noto on a blue background'; "
            "give KSampler its LATENT, and cfg 3.",
            outputs=[
                io.Model.Output(
                    display_name="MODEL", tooltip="The diffusion model, for KSampler and other stock nodes."
                ),
                io.Clip.Output(display_name="CLIP", tooltip="Its text encoder."),
                io.Vae.Output(display_name="VAE", tooltip="Its autoencoder."),
                io.Latent.Output(display_name="LATENT", tooltip="An empty latent of 64 x 64 pixels, for KSampler."),
            ],
        )

    @classmethod
    def execute(cls):
        return io.NodeOutput(*load_toy(), empty_latent())
