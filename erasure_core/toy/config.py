"""The architecture of the embedded model, as configurations of diffusers and transformers, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

WEIGHTS = Path(__file__).with_name("weights")
PICTURE = 64  # width and height of a picture in pixels
VOCABULARY = 49_408
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "bos_token_id": 49_406,
    "eos_token_id": 49_407,
    "pad_token_id": 49_407,
    "projection_dim": 192,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 16,
    "out_channels": 16,
    "block_out_channels": (96, 128),
    "layers_per_block": 1,
    "cross_attention_dim": 192,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "mid_block_type": None,
}
VAE: dict[str, Any] = {
    "encoder_block_out_channels": (32, 32, 32, 32),
    "decoder_block_out_channels": (48, 48, 48, 48),
    "latent_channels": 16,
    "scaling_factor": 1.0,
    "force_upcast": False,
}
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def weights(part: str) -> dict[str, Tensor]:
    """Return the weights of ``text_encoder``, ``unet`` or ``vae`` in float32, by transformers' or diffusers' names."""
    tensors = {name: tensor.float() for name, tensor in load_file(WEIGHTS / f"{part}.safetensors").items()}
    return with_whole_vocabulary(tensors) if part == "text_encoder" else tensors


def with_whole_vocabulary(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the text encoder's weights with a full table of token embeddings.

    The file holds only the rows of tokens that the model was trained on; all others are zero.
    """
    known, rows = tensors.pop("token_ids").long(), tensors.pop("token_rows")
    table = torch.zeros(VOCABULARY, rows.shape[1])
    table[known] = rows
    return {**tensors, "text_model.embeddings.token_embedding.weight": table}
