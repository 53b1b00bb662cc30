"""The families of diffusers models with a UNet: to add one, describe it here and put it into ``FAMILIES``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .family import Config, Family, LoraKeys, TextEncoder

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
TASKS = ("", "Img2Img", "Inpaint")
PIPELINES: Mapping[str, str] = {
    **{kind: kind for task in (*TASKS, "InstructPix2Pix") for kind in [f"StableDiffusion{task}Pipeline"]},
    **{f"StableDiffusionControlNet{task}Pipeline": f"StableDiffusion{task}Pipeline" for task in TASKS},
    "LatentConsistencyModelPipeline": "StableDiffusionPipeline",
    "LatentConsistencyModelImg2ImgPipeline": "StableDiffusionImg2ImgPipeline",
}
PIPELINES_XL: Mapping[str, str] = {
    **{kind: kind for task in (*TASKS, "InstructPix2Pix") for kind in [f"StableDiffusionXL{task}Pipeline"]},
    **{f"StableDiffusionXLControlNet{task}Pipeline": f"StableDiffusionXL{task}Pipeline" for task in TASKS},
    **{f"StableDiffusionXLControlNetUnion{task}Pipeline": f"StableDiffusionXL{task}Pipeline" for task in TASKS},
}
UNCHECKED: Config = {"safety_checker": None, "requires_safety_checker": False}
UNCHECKED_INDEX: Config = {"safety_checker": [None, None], "feature_extractor": [None, None]}
UNMARKED: Config = {"add_watermarker": False}
ONE_BLOCK = LoraKeys(absent=(".transformer_blocks.1.", "add_embedding."), sd_scripts=True)
PROJECTED = ("CLIPTextModelWithProjection",)
ENCODER_G = TextEncoder("text_encoder_2", TEXT_G, "g", PROJECTED, layer=-2, padding="!", lora_prefix="lora_te2_")

SD_1 = Family(
    title="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    pipelines=PIPELINES,
    unet=UNET_1,
    encoders=(TextEncoder("text_encoder", TEXT_L, "l"),),
    vae=VAE,
    text_keys="cond_stage_model.",
    schedule=SCHEDULE,
    options=UNCHECKED,
    index=UNCHECKED_INDEX,
    lora=ONE_BLOCK,
    variants={"inpainting": "inpainting (9 channels)", "instruct": "instruct-pix2pix (8 channels)"},
    architecture="stable-diffusion-v1",
    base_model="sd_v1",
)
SD_2 = Family(
    title="Stable Diffusion 2.1, v-prediction",
    pipeline="StableDiffusionPipeline",
    pipelines=PIPELINES,
    unet=UNET_2,
    encoders=(TextEncoder("text_encoder", TEXT_H, "h", padding="!"),),
    vae=VAE,
    text_keys="cond_stage_model.",
    schedule=SCHEDULE,
    prediction_type="v_prediction",
    options=UNCHECKED,
    index=UNCHECKED_INDEX,
    lora=ONE_BLOCK,
    base_model="sd_v2",
)
SDXL = Family(
    title="SDXL base",
    pipeline="StableDiffusionXLPipeline",
    pipelines=PIPELINES_XL,
    unet=UNET_XL,
    encoders=(TextEncoder("text_encoder", TEXT_L, "l", layer=-2), ENCODER_G),
    vae=VAE_XL,
    text_keys="conditioner.embedders.",
    pooled="text_encoder_2",
    schedule=SCHEDULE,
    options=UNMARKED,
    lora=LoraKeys(
        present=("up_blocks.0.attentions.2.", ".transformer_blocks.1."),
        absent=("up_blocks.0.attentions.3.",),
        original=True,
        sd_scripts=True,
    ),
    architecture="stable-diffusion-xl-v1-base",
    base_model="sdxl_base_v1-0",
)
REFINER = Family(
    title="SDXL refiner",
    pipeline="StableDiffusionXLImg2ImgPipeline",
    pipelines={"StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLImg2ImgPipeline"},
    unet=UNET_REFINER,
    encoders=(ENCODER_G,),
    vae=VAE_XL,
    text_keys="conditioner.embedders.",
    pooled="text_encoder_2",
    schedule=SCHEDULE,
    options=UNMARKED,
    index={"requires_aesthetics_score": True, "text_encoder": [None, None], "tokenizer": [None, None]},
    lora=LoraKeys(present=(".transformer_blocks.1.",), absent=("up_blocks.0.attentions.",)),
    architecture="stable-diffusion-xl-v1-refiner",
)
FAMILIES: dict[str, Family] = {"sd15": SD_1, "sd21": SD_2, "sdxl": SDXL, "sdxl_refiner": REFINER}
"""The families by the names under which tests record them."""
VERSIONS = "1.x, 2.x or XL"
"""The families as messages list them, after "Stable Diffusion"."""


def text_parts() -> tuple[str, ...]:
    """Return how pipelines call the text encoders of all families, without repeats."""
    return tuple(dict.fromkeys(part for family in FAMILIES.values() for part in family.parts))


def lora_prefixes() -> dict[str, str]:
    """Return how LoRA files begin the keys of each part of a pipeline, by the beginning of its weights' names."""
    encoders = (encoder for family in FAMILIES.values() for encoder in family.encoders)
    return {"unet.": "lora_unet_", **{f"{encoder.part}.": encoder.lora_prefix for encoder in encoders}}


def family_of_layers(layers: Collection[str]) -> Family | None:
    """Return the last family whose LoRA keys fit ``layers``, names of a UNet's layers in diffusers, or ``None``."""
    return next((family for family in reversed(FAMILIES.values()) if family.lora.fit(layers)), None)


def titles() -> dict[str, str]:
    """Return what tables call each family and its variants, by the names under which tests record them."""
    named: dict[str, str] = {}
    for name, family in FAMILIES.items():
        named[name] = family.title
        named |= {f"{name}_{variant}": f"{family.title}, {words}" for variant, words in family.variants.items()}
    return named
