"""Conversion of ComfyUI's IMAGE, with channels last, to images with channels first, and back."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pictures(images: Tensor) -> Tensor:
    """Return an IMAGE ``[n, h, w, c]`` as images ``[n, 3, h, w]``, both with values from 0 to 1; alpha is dropped.

    The result is a copy that may be used outside of inference mode.
    """
    return images[..., :3].movedim(-1, 1).float().clone()


def to_image(picture: Image.Image) -> Tensor:
    """Return a picture as an IMAGE ``[1, h, w, 3]`` with values from 0 to 1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
