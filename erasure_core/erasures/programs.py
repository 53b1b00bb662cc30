"""The programs that can load the file of an erasure as a LoRA.

The tests load files with ComfyUI and diffusers; what A1111, Forge and kohya-ss's sd-scripts load is known from their
code.
"""

from __future__ import annotations

from ..families.transformers import transformer_of_layers
from ..families.unets import family_of_layers
from .erasure_record import ErasureRecord
from .low_rank import Dense

OF_UNET = ("down_blocks.", "mid_block.", "up_blocks.", "add_embedding.", "time_embedding.", "conv_")
COMFYUI = "ComfyUI's Load LoRA"
NEWER = "diffusers (0.39 and newer)"
"""Older versions refuse or ignore the layer for SDXL's pooled text, and do not know all transformers."""


def readers_of(erasure: ErasureRecord) -> str:
    """Return a sentence that names the programs which load the erasure's file as a LoRA, and those which do not."""
    whole = any(isinstance(delta, Dense) for delta in erasure.deltas.values())
    layers = {name.split(".", 1)[1].rpartition(".")[0] for name in erasure.deltas if name.startswith("unet.")}
    if not all(layer.startswith(OF_UNET) for layer in layers):
        transformer = None if whole else transformer_of_layers(layers)
        others = f"and so does {NEWER} for {transformer.title}" if transformer else "diffusers does not"
        return f"{COMFYUI} reads it, {others}"
    if whole:
        return f"{COMFYUI}, A1111 and Forge read it; diffusers and kohya's sd-scripts do not read whole weights"
    pooled = any(layer.startswith("add_embedding.") for layer in layers)
    readers = f"{COMFYUI}, A1111, Forge and {NEWER if pooled else 'diffusers'} read it"
    family = family_of_layers(layers)
    if family is not None and family.lora.sd_scripts:
        return f"{readers}, kohya's sd-scripts {'all but what reads the pooled text' if pooled else 'too'}"
    return f"{readers}; kohya's sd-scripts do not"
