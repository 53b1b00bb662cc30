"""Loading the embedded model, as a diffusers pipeline or as a model that methods can edit."""

from __future__ import annotations

from ..diffusers.clip_tokenizer import clip_tokenizer
from ..diffusers.model import DiffusersModel, from_diffusers
from . import config
from .captions import learned_words


def load_pipeline():
    """Return a new ``StableDiffusionPipeline`` of the embedded model, in float32 on the CPU.

    Needs diffusers and transformers.
    """
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder = CLIPTextModel(CLIPTextConfig(**config.TEXT_ENCODER))
    load_text_encoder(encoder, config.weights("text_encoder"))
    unet = UNet2DConditionModel(**config.UNET)
    unet.load_state_dict(config.weights("unet"))
    vae = AutoencoderTiny(**config.VAE)
    vae.load_state_dict(config.weights("vae"))
    pipe = StableDiffusionPipeline(
        vae=vae.eval().requires_grad_(False),
        text_encoder=encoder.eval().requires_grad_(False),
        tokenizer=clip_tokenizer(),
        unet=unet.eval().requires_grad_(False),
        scheduler=DDIMScheduler(**config.SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_toy(clip_skip: int = 0) -> DiffusersModel:
    """Return the embedded model as a ``DiffusionModel``, which methods can edit, train and sample.

    ``clip_skip`` is that of ``from_diffusers``, by default 0, for which the model was trained.
    """
    model = from_diffusers(load_pipeline(), clip_skip)
    model.vocabulary = learned_words()
    return model


def load_text_encoder(encoder, tensors) -> None:
    """Load ``tensors`` into a transformers text encoder, with or without ``text_model.`` in front of its names.

    Older versions of transformers have this prefix and newer ones do not. Raises ``ValueError`` for missing weights.
    """
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    nested = any(name.startswith("text_model.") for name in encoder.state_dict())
    prefix = "text_model." if nested else ""
    missing, unexpected = encoder.load_state_dict(
        {prefix + name: tensor for name, tensor in plain.items()}, strict=False
    )
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing or unexpected:
        raise ValueError(f"the text encoder's weights do not fit: missing {missing}, unexpected {unexpected}")
