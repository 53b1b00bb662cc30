"""The size of the pictures that a model draws."""

from __future__ import annotations

from ..model import VAE_FACTOR, DiffusionModel


def side(model: DiffusionModel) -> int:
    """Of a picture that the model draws, in pixels."""
    return VAE_FACTOR * model.latent_shape()[1]
