"""The keys of weights in LoRA files, as common LoRA loaders know them: the stem before ``.lora_up.weight``.

For the UNets of Stable Diffusion and for text encoders these are kohya-ss's keys, made of diffusers' module names, and
for SDXL's UNet of the names in the original checkpoint. For diffusion transformers they are keys that ComfyUI knows,
and if possible diffusers too. The tests in tests/toy and tests/host load files with both.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from ..quoting import excerpt

PREFIXES = {"unet.": "lora_unet_", "text_encoder.": "lora_te_", "text_encoder_2.": "lora_te2_"}
FIRST_OF_TWO = "lora_te1_"
LABEL = {"add_embedding.linear_1": "label_emb_0_0", "add_embedding.linear_2": "label_emb_0_2"}
"""Layers that loaders know by the names of the original checkpoints; diffusers ignores its own names for them."""
SDXL_ONLY = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(attentions|resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)")
RENAMED = {
    "Flux": {
        "txt_in": "context_embedder",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    },
    "SD 3": {
        "context_embedder": "context_embedder",
        "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    },
    "AuraFlow": {"cond_seq_linear": "context_embedder"},
}
"""Transformers whose layers diffusers knows by its own names only, and ComfyUI by both: the layers of text entries."""
SHARED = {
    "Qwen-Image and Flux 2": {"txt_in"},
    "Z-Image": {"cap_embedder.N"},
    "LTX-Video": {"caption_projection.linear_1"},
    "HiDream": {"caption_projection.N.linear", "p_embedder.pooled_embedder.linear_1"},
}
"""Transformers whose layers diffusers knows by ComfyUI's names; N stands for any number."""
ENDINGS = (".lora_up.weight", ".lora_B.weight", ".diff_b", ".diff")
"""The endings of keys; every change has a key with one of them."""


def stem(name: str) -> str:
    """Return kohya-ss's stem for a weight with a name like ``unet.<module>.weight``, by diffusers' module names.

    Raises ``ValueError`` for a weight that LoRA files have no key for.
    """
    part, module = _split(name)
    known = LABEL if part == "unet." else {}
    return PREFIXES[part] + known.get(module, module.replace(".", "_"))


def stems(names: Iterable[str]) -> dict[str, str]:
    """Return the stem of each weight of a file; which keys are used depends on the model that the weights are of."""
    keys = older_stems(names)
    unet = {name: _split(name)[1] for name in keys if name.startswith("unet.")}
    family = transformers(unet.values())
    if is_sdxl(unet.values()):
        keys |= {name: PREFIXES["unet."] + _original(layer).replace(".", "_") for name, layer in unet.items()}
    elif family in RENAMED:
        keys |= {name: f"transformer.{RENAMED[family][layer]}" for name, layer in unet.items()}
    elif family in SHARED:
        keys |= {name: f"diffusion_model.{layer}" for name, layer in unet.items()}
    return keys


def older_stems(names: Iterable[str]) -> dict[str, str]:
    """Return the stem of each weight as older versions of this package wrote it.

    For SDXL the first text encoder is numbered like the second.
    """
    keys = {name: stem(name) for name in names}
    if any(key.startswith(("lora_te2_", "lora_unet_label_emb_")) for key in keys.values()):
        first = PREFIXES["text_encoder."]
        keys = {name: key.replace(first, FIRST_OF_TWO, 1) for name, key in keys.items()}
    return keys


def stored_stems(names: Iterable[str], keys: Container[str]) -> dict[str, str]:
    """Return the stem that each weight has in a file with these ``keys``: that of ``stems`` or of ``older_stems``."""
    newer = stems(names)
    older = older_stems(newer)
    known = {name: any(key + ending in keys for ending in ENDINGS) for name, key in older.items()}
    return {name: older[name] if known[name] else newer[name] for name in newer}


def factors(stem: str) -> tuple[str, str, str | None]:
    """Return the keys of ``up``, ``down`` and alpha for a stem.

    Some transformers are known to diffusers by the newer style of keys only. It has no alpha (``None``), which means
    that alpha is the rank.
    """
    if stem.startswith("lora_"):
        return f"{stem}.lora_up.weight", f"{stem}.lora_down.weight", f"{stem}.alpha"
    return f"{stem}.lora_B.weight", f"{stem}.lora_A.weight", None


def transformers(layers: Iterable[str]) -> str | None:
    """Return the diffusion transformers whose text entries these layers are, if diffusers loads their files."""
    layers = set(layers)
    for family, own in RENAMED.items():
        if layers == own.keys():
            return family
    return next((family for family, own in SHARED.items() if _numberless(layers) == own), None)


def is_sdxl(layers: Iterable[str]) -> bool:
    """Return whether the layers of a UNet are in blocks as in SDXL's base model; those of its refiner are not."""
    third, fourth, deep = "up_blocks.0.attentions.2.", "up_blocks.0.attentions.3.", ".transformer_blocks.1."
    parts = {part for part in (third, fourth, deep) for layer in layers if part in layer}
    return parts == {third, deep}


def _split(name: str) -> tuple[str, str]:
    for part in PREFIXES:
        if name.startswith(part):
            module, _, kind = name[len(part) :].rpartition(".")
            if module and kind in ("weight", "bias"):
                return part, module
    raise ValueError(f"LoRA files have no name for the weight '{excerpt(name)}'")


def _numberless(layers: Iterable[str]) -> set[str]:
    return {re.sub(r"(?<=\.)\d+(?=\.|$)", "N", layer) for layer in layers}


def _original(module: str) -> str:
    """Return the name of a module of SDXL's UNet in the original checkpoint, which numbers three blocks per level."""
    if match := BLOCK.fullmatch(module):
        side, level, kind, index, rest = match.groups()
        block = 3 * int(level) + int(index)
        if kind == "downsamplers":
            return f"input_blocks.{block + 3}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{block + 2}.2.{rest}"
        blocks = f"input_blocks.{block + 1}" if side == "down_blocks" else f"output_blocks.{block}"
        return f"{blocks}.1.{rest}" if kind == "attentions" else f"{blocks}.0.{RESNET.get(rest, rest)}"
    if match := MIDDLE.fullmatch(module):
        kind, index, rest = match.groups()
        if kind == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(index)}.{RESNET.get(rest, rest)}"
    return {**SDXL_ONLY, **LABEL}.get(module, module)
