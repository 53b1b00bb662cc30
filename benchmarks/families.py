"""Full-size Stable Diffusion pipelines with random weights, built from configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from erasure_core import from_diffusers
from erasure_core.diffusers.clip_tokenizer import clip_tokenizer


@dataclass(frozen=True)
class Encoder:
    """A CLIP text encoder; ``projected`` is the width of its vector of a whole prompt, None where none is read."""

    width: int
    layers: int
    heads: int
    activation: str = "gelu"
    projected: int | None = None
    padding: str = "!"


@dataclass(frozen=True)
class Family:
    """``unet`` is what its configuration has other than by default."""

    title: str
    encoders: tuple[Encoder, ...]
    unet: Mapping
    prediction: str = "epsilon"


CLIP_L = Encoder(768, 12, 12, "quick_gelu", padding="<|endoftext|>")
OPEN_CLIP_H = Encoder(1024, 23, 16)  # of its 24 layers SD 2.x reads all but the last
OPEN_CLIP_BIG_G = Encoder(1280, 32, 20, projected=1280)
FOUR_LEVELS = {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280)}
FAMILIES: Mapping[str, Family] = {
    "sd15": Family("SD 1.5", (CLIP_L,), {**FOUR_LEVELS, "cross_attention_dim": 768, "attention_head_dim": 8}),
    "sd21": Family(
        "SD 2.1",
        (OPEN_CLIP_H,),
        {
            **FOUR_LEVELS, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        "v_prediction",
    ),
    "sdxl": Family(
        "SDXL",
        (CLIP_L, OPEN_CLIP_BIG_G),
        {
            "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
}  # fmt: skip


def full_size_model(family: str, whole: bool = False):
    """The family's UNet and text encoders in float32 with random weights; the autoencoder is small.

    Of the UNet only the layers that read text are filled, which is all that RECE reads, unless the ``whole`` of it is
    wanted: what is not filled takes no memory.
    """
    torch.manual_seed(0)
    model = from_diffusers(_pipeline(FAMILIES[family]))
    read = {name for entry in model.text_entries().values() for name in entry.weights}
    for name, weight in model.pipe.unet.named_parameters():
        if whole or f"unet.{name}" in read:
            weight.data.uniform_(-0.05, 0.05)
    return model


def _pipeline(family: Family):
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    parts = {
        "vae": AutoencoderKL(), "unet": _empty_unet(family),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type=family.prediction),
    }  # fmt: skip
    for suffix, encoder in zip(("", "_2"), family.encoders, strict=False):
        tokenizer = clip_tokenizer()
        tokenizer.pad_token = encoder.padding
        parts |= {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": _text_encoder(encoder)}
    if len(family.encoders) == 2:
        return StableDiffusionXLPipeline(**parts, add_watermarker=False)
    return StableDiffusionPipeline(**parts, feature_extractor=None, safety_checker=None, requires_safety_checker=False)


def _empty_unet(family: Family):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**family.unet)
    return unet.to_empty(device="cpu").eval()


def _text_encoder(encoder: Encoder):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if encoder.projected else CLIPTextModel
    return kind(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=encoder.width, intermediate_size=4 * encoder.width,
            num_hidden_layers=encoder.layers, num_attention_heads=encoder.heads, max_position_embeddings=77,
            hidden_act=encoder.activation, projection_dim=encoder.projected or encoder.width, bos_token_id=49406,
            eos_token_id=49407,
        )
    ).eval()  # fmt: skip
