"""Pipelines of every family in a few hundred thousand random weights, built from configurations."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from erasure_core.diffusers.clip_tokenizer import clip_tokenizer
from erasure_core.toy import config

LATENTS = 4
TEXT = {"width": 16, "layers": 3}
TEXT_2 = {"width": 24, "layers": 4}
POOLED = 20
SIZE_FEATURES = 8
VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": LATENTS,
    "norm_num_groups": 2,
    "sample_size": 64,
}
TAKES = {"plain": LATENTS, "instruct": 2 * LATENTS, "inpainting": 2 * LATENTS + 1}


def text_config(width: int, layers: int) -> dict:
    return {
        **config.TEXT_ENCODER, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
        "num_attention_heads": 2, "projection_dim": POOLED,
    }  # fmt: skip


def unet_config(reads: int, takes: str = "plain", **more) -> dict:
    return {
        "sample_size": 8, "in_channels": TAKES[takes], "out_channels": LATENTS, "block_out_channels": [16, 32],
        "layers_per_block": 1, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 2],
        "attention_head_dim": [2, 4], "use_linear_projection": True, "norm_num_groups": 4,
        "cross_attention_dim": reads, **more,
    }  # fmt: skip


def sizes(told: int) -> dict:
    return {
        "addition_embed_type": "text_time", "addition_time_embed_dim": SIZE_FEATURES,
        "projection_class_embeddings_input_dim": POOLED + told * SIZE_FEATURES,
    }  # fmt: skip


def sdxl(takes: str = "plain"):
    """SDXL's base, or its inpainting model."""
    torch.manual_seed(1)
    kind = {"plain": StableDiffusionXLPipeline, "inpainting": StableDiffusionXLInpaintPipeline}[takes]
    return kind(
        **_parts(unet_config(TEXT["width"] + TEXT_2["width"], takes, **sizes(6))),
        **_first(),
        **_second(),
        add_watermarker=False,
    )


def refiner():
    """SDXL's refiner: it has the second text encoder only."""
    torch.manual_seed(2)
    return StableDiffusionXLImg2ImgPipeline(
        **_parts(unet_config(TEXT_2["width"], **sizes(5))),
        **_second(),
        text_encoder=None,
        tokenizer=None,
        requires_aesthetics_score=True,
        add_watermarker=False,
    )


def stable_diffusion(takes: str):
    """SD 1.x for inpainting, or for instructions."""
    torch.manual_seed(3)
    kind = {"inpainting": StableDiffusionInpaintPipeline, "instruct": StableDiffusionInstructPix2PixPipeline}[takes]
    return kind(
        **_parts(unet_config(TEXT["width"], takes)),
        **_first(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def plain(**more):
    """SD 1.x as it draws from text; ``more`` is of its UNet."""
    torch.manual_seed(4)
    return StableDiffusionPipeline(
        **_parts(unet_config(TEXT["width"], **more)),
        **_first(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def second_tokenizer():
    tokenizer = clip_tokenizer()
    tokenizer.pad_token = "!"
    return tokenizer


def _parts(unet: dict) -> dict:
    return {
        "unet": UNet2DConditionModel(**unet).eval(),
        "vae": AutoencoderKL(**VAE).eval(),
        "scheduler": DDIMScheduler(**{**config.SCHEDULE, "prediction_type": "epsilon"}),
    }


def _first() -> dict:
    return {"text_encoder": _encoder(CLIPTextModel, TEXT), "tokenizer": clip_tokenizer()}


def _second() -> dict:
    return {"text_encoder_2": _encoder(CLIPTextModelWithProjection, TEXT_2), "tokenizer_2": second_tokenizer()}


def _encoder(kind, shape: dict):
    """With larger weights than ``transformers`` draws, so that prompts differ as they do after training."""
    encoder = kind(CLIPTextConfig(**text_config(**shape))).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.ndim == 2:
                weight.mul_(5)
    return encoder
