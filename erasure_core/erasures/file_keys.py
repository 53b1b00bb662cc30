"""The keys of weights in LoRA files, as common LoRA loaders know them: the stem before ``.lora_up.weight``.

For the UNets of Stable Diffusion and for text encoders these are kohya-ss's keys, made of diffusers' module names, and
for SDXL's UNet of the names in the original checkpoint. For diffusion transformers they are keys that ComfyUI knows,
and if possible diffusers too. The tests in tests/toy and tests/host load files with both.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from ..families.transformers import transformer_of_layers
from ..families.unets import family_of_layers, lora_prefixes
from ..quoting import excerpt
from .original_names import original

UNET, FIRST, FIRST_OF_TWO = "lora_unet_", "lora_te_", "lora_te1_"
"""The prefixes of the UNet, and of the first text encoder, alone and beside a second one."""
LABEL = {name: original(name, 0).replace(".", "_") for name in ("add_embedding.linear_1", "add_embedding.linear_2")}
"""Layers that loaders know by the names of the original checkpoints; diffusers ignores its own names for them."""
ENDINGS = (".lora_up.weight", ".lora_B.weight", ".diff_b", ".diff")
"""The endings of keys; every change has a key with one of them."""


def stem(name: str) -> str:
    """Return kohya-ss's stem for a weight with a name like ``unet.<module>.weight``, by diffusers' module names.

    Raises ``ValueError`` for a weight that LoRA files have no key for.
    """
    part, module = _split(name)
    known = LABEL if part == "unet." else {}
    return lora_prefixes()[part] + known.get(module, module.replace(".", "_"))


def stems(names: Iterable[str]) -> dict[str, str]:
    """Return the stem of each weight of a file; which keys are used depends on the model that the weights are of."""
    keys = older_stems(names)
    layers = {name: _split(name)[1] for name in keys if name.startswith("unet.")}
    family, transformer = family_of_layers(layers.values()), transformer_of_layers(layers.values())
    if family is not None and family.lora.original:
        blocks = family.unet["layers_per_block"] + 1
        keys |= {name: f"{UNET}{original(layer, blocks).replace('.', '_')}" for name, layer in layers.items()}
    elif transformer is not None:
        keys |= {name: transformer.stem(layer) for name, layer in layers.items()}
    return keys


def older_stems(names: Iterable[str]) -> dict[str, str]:
    """Return the stem of each weight as older versions of this package wrote it.

    For SDXL the first text encoder is numbered like the second.
    """
    keys = {name: stem(name) for name in names}
    others = set(lora_prefixes().values()) - {UNET, FIRST}
    if any(key.startswith((f"{UNET}label_emb_", *others)) for key in keys.values()):
        keys = {name: key.replace(FIRST, FIRST_OF_TWO, 1) for name, key in keys.items()}
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


def _split(name: str) -> tuple[str, str]:
    for part in lora_prefixes():
        if name.startswith(part):
            module, _, kind = name[len(part) :].rpartition(".")
            if module and kind in ("weight", "bias"):
                return part, module
    raise ValueError(f"LoRA files have no name for the weight '{excerpt(name)}'")
