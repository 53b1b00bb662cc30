"""Kinds of diffusion models."""

from types import SimpleNamespace

import torch


class ModelConfig(SimpleNamespace):
    def __getattr__(self, name):
        return None  # as in ComfyUI 0.33, which logs a warning besides


class BaseModel(torch.nn.Module):
    """``names`` are the UNet's weights: diffusers' names to its own; none where it is no UNet of Stable Diffusion."""

    def __init__(self, diffusion_model, names, **config):
        super().__init__()
        self.diffusion_model = diffusion_model
        self.model_config = ModelConfig(unet_config={"names": names, **config})


class SDXL(BaseModel):
    pass


class SDXLRefiner(BaseModel):
    pass
