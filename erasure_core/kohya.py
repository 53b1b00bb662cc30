"""The names that stock LoRA loaders use (kohya-ss): ``lora_unet_down_blocks_0_..._attn2_to_k.lora_up.weight``."""

from __future__ import annotations

PREFIXES = {"unet.": "lora_unet_", "text_encoder.": "lora_te_", "text_encoder_2.": "lora_te2_"}


def stem(name: str) -> str:
    """The part of a LoRA key before the first dot, for a weight named ``unet.<module>.weight``.

    Raises ``ValueError`` for a weight that LoRA files have no name for.
    """
    for part, prefix in PREFIXES.items():
        if name.startswith(part):
            module, _, kind = name[len(part) :].rpartition(".")
            if module and kind in ("weight", "bias"):
                return prefix + module.replace(".", "_")
    raise ValueError(f"LoRA files have no name for the weight '{name}'")
