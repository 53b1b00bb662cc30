"""The Stable Diffusion families as diffusers' configurations, told from the names and shapes in one checkpoint file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model import UnsupportedModelError

Config = dict[str, Any]
Shapes = Mapping[str, Sequence[int]]
UNET = "model.diffusion_model."
FIRST_CONV = f"{UNET}input_blocks.0.0.weight"
CROSS = re.compile(rf"{re.escape(UNET)}input_blocks\.\d+\.1\.transformer_blocks\.0\.attn2\.to_k\.weight")
TEXT_L: Config = {
    "vocab_size": 49_408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49_406,
    "eos_token_id": 49_407,
}
TEXT_H: Config = {
    **TEXT_L,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
TEXT_G: Config = {
    **TEXT_H,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
UNET_1: Config = {
    "sample_size": 64,
    "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
UNET_2: Config = {
    **UNET_1,
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
UNET_XL: Config = {
    **UNET_1,
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
}
UNET_REFINER: Config = {
    **UNET_XL,
    "cross_attention_dim": 1280,
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": 4,
    "attention_head_dim": [6, 12, 24, 24],
    "projection_class_embeddings_input_dim": 1280 + 5 * 256,
}
VAE: Config = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
VAE_XL: Config = {**VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}
SCHEDULE: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


@dataclass(frozen=True)
class Family:
    """A pipeline of diffusers and its configurations; ``unpadded`` are tokenizers that pad with "!", CLIP's id 0."""

    pipeline: str
    unet: Config
    encoders: Mapping[str, Config]
    vae: Config
    prediction_type: str = "epsilon"
    unpadded: tuple[str, ...] = ()
    more: Config | None = None
    """Return the other settings in the pipeline's own configuration."""


SD_1 = Family("StableDiffusionPipeline", UNET_1, {"text_encoder": TEXT_L}, VAE)
SD_2 = Family("StableDiffusionPipeline", UNET_2, {"text_encoder": TEXT_H}, VAE, "v_prediction", ("tokenizer",))
SDXL = Family(
    "StableDiffusionXLPipeline",
    UNET_XL,
    {"text_encoder": TEXT_L, "text_encoder_2": TEXT_G},
    VAE_XL,
    unpadded=("tokenizer_2",),
)
REFINER = Family(
    "StableDiffusionXLImg2ImgPipeline",
    UNET_REFINER,
    {"text_encoder_2": TEXT_G},
    VAE_XL,
    unpadded=("tokenizer_2",),
    more={"requires_aesthetics_score": True, "text_encoder": [None, None], "tokenizer": [None, None]},
)
FAMILIES: Mapping[tuple[str, int], Family] = {
    ("cond_stage_model.", 768): SD_1,
    ("cond_stage_model.", 1024): SD_2,
    ("conditioner.embedders.", 2048): SDXL,
    ("conditioner.embedders.", 1280): REFINER,
}
"""The families, by the beginning of the text encoder's weight names and by the width of the text for the UNet."""


def family_of(name: str, shapes: Shapes) -> Family:
    """The family of the checkpoint called ``name``, given the shape of every tensor in it.

    Raises ``UnsupportedModelError`` for another family and for a file without a text encoder.
    """
    widths = {shape[1] for key, shape in shapes.items() if CROSS.fullmatch(key) and len(shape) == 2}
    width = widths.pop() if len(widths) == 1 else 0
    if len(shapes.get(FIRST_CONV, ())) != 4 or width not in {wide for _, wide in FAMILIES}:
        raise UnsupportedModelError(
            f"{name} is not a Stable Diffusion checkpoint (1.x, 2.x or XL): it has no UNet with text cross-attention "
            "under the names that these use"
        )
    if "edm_mean" in shapes:
        raise UnsupportedModelError(f"{name} predicts as EDM does (Playground 2.5), which is not supported")
    for (encoder, wide), family in FAMILIES.items():
        if wide == width and any(key.startswith(encoder) for key in shapes):
            return family
    raise UnsupportedModelError(f"{name} has no text encoder; give a full checkpoint, not a UNet alone")


def configs(name: str, shapes: Shapes) -> tuple[Family, dict[str, Config]]:
    """What diffusers calls the configuration of each part. Raises as ``family_of`` does.

    A tensor called ``v_pred`` or ``ztsnr`` says how an SDXL was trained.
    """
    family = family_of(name, shapes)
    scheduler = {**SCHEDULE, "prediction_type": family.prediction_type}
    if "v_pred" in shapes:
        scheduler["prediction_type"] = "v_prediction"
    if "ztsnr" in shapes:
        scheduler["rescale_betas_zero_snr"] = True
    unet = {**family.unet, "in_channels": shapes[FIRST_CONV][1]}
    return family, {"unet": unet, **family.encoders, "vae": family.vae, "scheduler": scheduler}


def index(family: Family) -> Config:
    """The ``model_index.json`` of a pipeline."""
    found: Config = {
        "_class_name": family.pipeline,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for part in family.encoders:
        kind = "CLIPTextModelWithProjection" if part == "text_encoder_2" else "CLIPTextModel"
        found |= {part: ["transformers", kind], part.replace("text_encoder", "tokenizer"): TOKENIZER}
    if family.pipeline == "StableDiffusionPipeline":
        found |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    return found | (family.more or {})


TOKENIZER = ["transformers", "CLIPTokenizer"]
