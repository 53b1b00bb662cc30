"""The size of the pictures that a model draws."""

from __future__ import annotations

from ..model import DiffusionModel

VAE_FACTOR = 8  # pixels a latent, in every Stable Diffusion


def side(model: DiffusionModel) -> int:
    """Of a picture that the model draws, in pixels."""
    return VAE_FACTOR * model.latent_shape()[1]
