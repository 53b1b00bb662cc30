"""Full-size Stable Diffusion pipelines with random weights, built from configurations."""

from __future__ import annotations

import torch

from erasure_core import from_diffusers
from erasure_core.diffusers.clip_tokenizer import clip_tokenizer
from erasure_core.families.family import Family, TextEncoder
from erasure_core.families.unets import FAMILIES

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
    return pipeline_of(family, torch.device("cpu"), torch.float32)


def pipeline_of(family: Family, device: torch.device, dtype: torch.dtype):
    """A pipeline of a family whose UNet is not filled and whose text encoders have random weights."""
    import diffusers

    parts = {
        "vae": diffusers.AutoencoderKL(), "unet": _empty_unet(family, device, dtype),
        "scheduler": diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type=family.prediction_type),
    }  # fmt: skip
    for encoder in family.encoders:
        tokenizer = clip_tokenizer()
        tokenizer.pad_token = encoder.padding
        parts |= {encoder.tokenizer: tokenizer, encoder.part: _text_encoder(encoder, device, dtype)}
    if len(family.encoders) == 1:
        parts["feature_extractor"] = None
    parts["vae"].to(device, dtype)
    return getattr(diffusers, family.pipeline)(**parts, **family.options)


def _empty_unet(family: Family, device: torch.device, dtype: torch.dtype):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**family.unet)
    return unet.to(dtype).to_empty(device=device).eval()


def _text_encoder(encoder: TextEncoder, device: torch.device, dtype: torch.dtype):
    import transformers

    config = transformers.CLIPTextConfig(**encoder.config)
    kind = getattr(transformers, encoder.classes[0])
    with device:
        return kind(config).eval().to(dtype)
