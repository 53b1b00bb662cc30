"""What patches do to a weight."""

from comfy.weight_adapter import LoRAAdapter


def calculate_weight(patches, weight, key):
    """A patch is ``(strength, value, factor of what was there, ...)``; a list is another weight and its patches."""
    for strength, value, factor, *_ in patches:
        weight = weight * factor
        if isinstance(value, list):
            weight = weight + strength * calculate_weight(value[1:], value[0].float(), key)
        elif isinstance(value, LoRAAdapter):
            weight = weight + strength * value.change()
        elif value[0] == "diff":
            weight = weight + strength * value[1][0].float()
        elif value[0] == "set":
            weight = value[1][0].float()
        else:
            raise ValueError(f"patch type {value[0]} is not known")
    return weight


def model_lora_keys_clip(model, known):
    """Names in LoRA files, to the text encoder's own."""
    for key in model.state_dict():
        tower, _, name = key.removesuffix(".weight").partition(".transformer.")
        if key.endswith(".weight"):
            known[{"clip_l": "lora_te_", "clip_g": "lora_te2_"}[tower] + name.replace(".", "_")] = key
    return known
