"""Diffusion transformers whose LoRA files diffusers can load, beside ComfyUI, and the keys under which it does.

In ComfyUI the layers of any family are found by tracing. What stands here only decides how files name them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Transformer:
    """A family, or several with the same layers; it is known by the layers that read its text."""

    title: str
    layers: frozenset[str]
    """Names in ComfyUI of all layers that read text; N stands for any number."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The names of all these layers in diffusers, by those in ComfyUI, where diffusers knows only its own."""

    def fits(self, layers: Collection[str]) -> bool:
        """Return whether ``layers``, by their names in ComfyUI, are those of this family that read text."""
        return self.layers in (frozenset(layers), frozenset(re.sub(r"(?<=\.)\d+(?=\.|$)", "N", one) for one in layers))

    def stem(self, layer: str) -> str:
        """Return the key of a layer in LoRA files, without the ending."""
        return f"transformer.{self.renamed[layer]}" if self.renamed else f"diffusion_model.{layer}"


def renamed(title: str, names: Mapping[str, str]) -> Transformer:
    """Return a family called ``title`` whose layers have the ``names`` of diffusers in files, by those in ComfyUI."""
    return Transformer(title, frozenset(names), names)


TRANSFORMERS = (
    renamed(
        "Flux",
        {"txt_in": "context_embedder", "vector_in.in_layer": "time_text_embed.text_embedder.linear_1"},
    ),
    renamed(
        "SD 3",
        {"context_embedder": "context_embedder", "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1"},
    ),
    renamed("AuraFlow", {"cond_seq_linear": "context_embedder"}),
    Transformer("Qwen-Image and Flux 2", frozenset({"txt_in"})),
    Transformer("Z-Image", frozenset({"cap_embedder.N"})),
    Transformer("LTX-Video", frozenset({"caption_projection.linear_1"})),
    Transformer("HiDream", frozenset({"caption_projection.N.linear", "p_embedder.pooled_embedder.linear_1"})),
)


def transformer_of_layers(layers: Collection[str]) -> Transformer | None:
    """Return the transformer whose layers that read text are ``layers``, by their names in ComfyUI, or ``None``."""
    return next((one for one in TRANSFORMERS if one.fits(layers)), None)
