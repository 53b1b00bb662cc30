"""Full-size Stable Diffusion pipelines with random weights, built from configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from erasure_core import from_diffusers
from erasure_core.diffusers.clip_tokenizer import clip_tokenizer
from erasure_core.diffusers.families import SD_1, SD_2, SDXL, Family

FAMILIES: Mapping[str, Family] = {"sd15": SD_1, "sd21": SD_2, "sdxl": SDXL}
TITLES = {"sd15": "SD 1.5", "sd21": "SD 2.1", "sdxl": "SDXL"}


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
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type=family.prediction_type),
    }  # fmt: skip
    for part, config in family.encoders.items():
        tokenizer, name = clip_tokenizer(), part.replace("text_encoder", "tokenizer")
        tokenizer.pad_token = "!" if name in family.unpadded else "<|endoftext|>"
        parts |= {name: tokenizer, part: _text_encoder(config, projected=part == "text_encoder_2")}
    if len(family.encoders) == 2:
        return StableDiffusionXLPipeline(**parts, add_watermarker=False)
    return StableDiffusionPipeline(**parts, feature_extractor=None, safety_checker=None, requires_safety_checker=False)


def _empty_unet(family: Family):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**family.unet)
    return unet.to_empty(device="cpu").eval()


def _text_encoder(config: Mapping[str, Any], projected: bool):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(CLIPTextConfig(**config)).eval()
