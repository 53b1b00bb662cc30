"""Opening a MODEL and CLIP of any family as the ``TextReader`` that closed forms need."""

from __future__ import annotations

from ...erasure_core.model import TextReader
from .model import ComfyModel, has_unet
from .traced_model import TracedText


def reader(model, clip) -> TextReader:
    """Return a MODEL and its CLIP as a ``TextReader``: where text enters the denoiser, and what it reads there.

    The layers of a UNet of Stable Diffusion are known by name; those of any other family are found by tracing. Raises
    ``UnsupportedModelError`` for a MODEL in which they cannot be found.
    """
    return ComfyModel(model, clip) if has_unet(model) else TracedText(model, clip)
