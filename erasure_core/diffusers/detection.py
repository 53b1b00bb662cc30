"""Which family a single-file checkpoint or a pipeline is of, and a family's configurations as diffusers reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..families.family import Config, Family
from ..families.unets import FAMILIES, VERSIONS, text_parts
from ..model import UnsupportedModelError

Shapes = Mapping[str, Sequence[int]]
"""The shape of every tensor of a file, by name."""
UNET = "model.diffusion_model."
FIRST_CONV = f"{UNET}input_blocks.0.0.weight"
CROSS = re.compile(rf"{re.escape(UNET)}input_blocks\.\d+\.1\.transformer_blocks\.0\.attn2\.to_k\.weight")
NEEDED = f"a pipeline of Stable Diffusion {VERSIONS} is needed"
TOKENIZER = ["transformers", "CLIPTokenizer"]


def family_of_checkpoint(name: str, shapes: Shapes) -> Family:
    """Return the family of a single-file checkpoint.

    ``name`` is what messages call the file, and ``shapes`` are those of its tensors. Raises ``UnsupportedModelError``
    for another family, and for a file without a text encoder.
    """
    widths = {shape[1] for key, shape in shapes.items() if CROSS.fullmatch(key) and len(shape) == 2}
    families = [family for family in FAMILIES.values() if {family.unet["cross_attention_dim"]} == widths]
    if len(shapes.get(FIRST_CONV, ())) != 4 or not families:
        raise UnsupportedModelError(
            f"{name} is not a Stable Diffusion checkpoint ({VERSIONS}): it has no UNet with text cross-attention "
            "under the names that these use"
        )
    if "edm_mean" in shapes:
        raise UnsupportedModelError(f"{name} predicts as EDM does (Playground 2.5), which is not supported")
    for family in families:
        if any(key.startswith(family.text_keys) for key in shapes):
            return family
    raise UnsupportedModelError(f"{name} has no text encoder; give a full checkpoint, not a UNet alone")


def encoders_of(pipe: Any) -> tuple[str, ...]:
    """Return the names of the text encoders that a pipeline has."""
    return tuple(part for part in text_parts() if getattr(pipe, part, None) is not None)


def family_of_pipeline(pipe: Any) -> Family:
    """Return the family whose text encoders and kind of UNet a pipeline has.

    Of several it is the one with the pipeline's ``cross_attention_dim``, or else the first: fine-tuned and small models
    have other widths. Raises ``UnsupportedModelError`` where there is none.
    """
    parts, config = encoders_of(pipe), pipe.unet.config
    reads = config.get("addition_embed_type")
    families = [
        family
        for family in FAMILIES.values()
        if family.parts == parts and family.unet.get("addition_embed_type") == reads
    ]
    if not families:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} has {' and '.join(parts)} but its UNet's addition_embed_type is {reads}; {NEEDED}"
        )
    width = config.get("cross_attention_dim")
    return next((family for family in families if family.unet["cross_attention_dim"] == width), families[0])


def configs(family: Family, shapes: Shapes) -> dict[str, Config]:
    """Return the configuration of each part of a family's checkpoint, by the part's name in the pipeline.

    ``shapes`` are those of the checkpoint. A tensor called ``v_pred`` or ``ztsnr`` says how an SDXL was trained.
    """
    schedule = {**family.schedule, "prediction_type": family.prediction_type}
    if "v_pred" in shapes:
        schedule["prediction_type"] = "v_prediction"
    if "ztsnr" in shapes:
        schedule["rescale_betas_zero_snr"] = True
    unet = {**family.unet, "in_channels": shapes[FIRST_CONV][1]}
    encoders = {encoder.part: encoder.config for encoder in family.encoders}
    return {"unet": unet, **encoders, "vae": family.vae, "scheduler": schedule}


def index(family: Family) -> dict[str, Any]:
    """Return the ``model_index.json`` of a family's pipeline."""
    components: dict[str, Any] = {
        "_class_name": family.pipeline,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for encoder in family.encoders:
        components |= {encoder.part: ["transformers", encoder.classes[0]], encoder.tokenizer: TOKENIZER}
    return {**components, **family.index}
