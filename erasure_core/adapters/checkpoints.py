"""Stable Diffusion from a diffusers folder or one ``.safetensors`` file, without the network and without pickles."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..model import UnsupportedModelError
from .diffusers import DiffusersModel, from_diffusers

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
FIRST_CONV = "model.diffusion_model.input_blocks.0.0.weight"
FIRST_CROSS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"

TEXT_1 = {
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
TEXT_2 = {
    **TEXT_1,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
UNET_1 = {"sample_size": 64, "cross_attention_dim": 768}
UNET_2 = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
FAMILIES = {768: (TEXT_1, UNET_1, "epsilon"), 1024: (TEXT_2, UNET_2, "v_prediction")}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
}


def load_checkpoint(path: str | Path) -> DiffusersModel:
    """The model at ``path`` in float32 on the CPU: SD 1.x, SD 2.x and what was fine-tuned from them.

    Raises ``FileNotFoundError``, ``UnsupportedModelError`` for another family, and ``ValueError`` for a pickle and
    what cannot be read. Needs diffusers and transformers.
    """
    path = Path(path)
    if path.is_dir():
        return from_diffusers(_from_folder(path))
    if not path.is_file():
        raise FileNotFoundError(f"there is no model at {path}; give 'toy', a diffusers folder or a .safetensors file")
    if path.suffix.lower() in PICKLES:
        raise ValueError(
            f"{path.name} is a pickle, which can run any code when it is read; convert it to .safetensors first"
        )
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{path.name} is not a model file: a single file has to be a .safetensors")
    return from_diffusers(_from_file(path))


def configs(path: Path) -> dict[str, dict[str, Any]]:
    """What diffusers calls the configuration of each part, told from the shapes in a single-file checkpoint."""
    try:
        with safe_open(str(path), "pt") as file:
            names = set(file.keys())
            shapes = {name: file.get_slice(name).get_shape() for name in {FIRST_CONV, FIRST_CROSS} & names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is not a readable safetensors file: {error}") from error
    if any(name.startswith("conditioner.embedders.") for name in names):
        raise UnsupportedModelError(f"{path.name} is SDXL, which is not supported here yet; give an SD 1.x or 2.x")
    width = shapes.get(FIRST_CROSS, [0, 0])[1]
    if FIRST_CONV not in shapes or width not in FAMILIES:
        raise UnsupportedModelError(
            f"{path.name} is not a Stable Diffusion 1.x or 2.x checkpoint: it has no UNet with text cross-attention "
            "under the names that these use"
        )
    if not any(name.startswith("cond_stage_model.") for name in names):
        raise UnsupportedModelError(f"{path.name} has no text encoder; give a full checkpoint, not a UNet alone")
    text, unet, prediction = FAMILIES[width]
    return {
        "unet": {**unet, "in_channels": shapes[FIRST_CONV][1]},
        "text_encoder": text,
        "vae": VAE,
        "scheduler": {**SCHEDULE, "prediction_type": prediction},
    }


def _from_folder(path: Path):
    if not (path / "model_index.json").is_file():
        raise ValueError(f"{path} is not a diffusers folder: it has no model_index.json")
    return _loaded(
        path,
        lambda pipeline, **options: pipeline.from_pretrained(
            path, local_files_only=True, use_safetensors=True, **options
        ),
    )


def _from_file(path: Path):
    from ..toy.tokenizer import clip_tokenizer

    parts = configs(path)
    tokenizer = clip_tokenizer()
    if parts["unet"]["cross_attention_dim"] == 1024:
        tokenizer.pad_token = "!"
    with tempfile.TemporaryDirectory() as folder:
        _write_configs(Path(folder), parts)
        return _loaded(
            path,
            lambda pipeline, **options: pipeline.from_single_file(
                str(path), config=folder, tokenizer=tokenizer, local_files_only=True, **options
            ),
        )


def _write_configs(folder: Path, parts: dict[str, dict[str, Any]]) -> None:
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    for part, config in parts.items():
        (folder / part).mkdir()
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / name).write_text(json.dumps(config))


def _loaded(path: Path, load):
    """What ``load`` makes of the pipeline class; whatever diffusers raises becomes one sentence."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    options = {"torch_dtype": torch.float32, "safety_checker": None, "requires_safety_checker": False}
    try:
        return load(StableDiffusionPipeline, **options)
    except Exception as error:  # diffusers and transformers have no common class of errors
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} could not be loaded as Stable Diffusion: {first}") from error
