"""The names that stock LoRA loaders use (kohya-ss): ``lora_unet_down_blocks_0_..._attn2_to_k.lora_up.weight``."""

from __future__ import annotations

from collections.abc import Iterable

PREFIXES = {"unet.": "lora_unet_", "text_encoder.": "lora_te_", "text_encoder_2.": "lora_te2_"}
FIRST_OF_TWO = "lora_te1_"
LABEL = {"add_embedding.linear_1": "label_emb_0_0", "add_embedding.linear_2": "label_emb_0_2"}
"""Layers that all loaders know by the original checkpoints' names; diffusers passes over its own."""


def stem(name: str) -> str:
    """The part of a LoRA key before the first dot, for a weight named ``unet.<module>.weight``.

    Raises ``ValueError`` for a weight that LoRA files have no name for.
    """
    for part, prefix in PREFIXES.items():
        if name.startswith(part):
            module, _, kind = name[len(part) :].rpartition(".")
            if module and kind in ("weight", "bias"):
                known = LABEL if part == "unet." else {}
                return prefix + known.get(module, module.replace(".", "_"))
    raise ValueError(f"LoRA files have no name for the weight '{name}'")


def stems(names: Iterable[str]) -> dict[str, str]:
    """``stem`` for all the weights of a file: where they are SDXL's, the first text encoder has a number too."""
    found = {name: stem(name) for name in names}
    if any(key.startswith(("lora_te2_", "lora_unet_label_emb_")) for key in found.values()):
        first = PREFIXES["text_encoder."]
        found = {name: key.replace(first, FIRST_OF_TWO, 1) for name, key in found.items()}
    return found
