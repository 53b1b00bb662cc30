"""Conversion of ComfyUI's IMAGE, with channels last, to images with channels first, and back."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pictures(images: Tensor) -> Tensor:
    """An IMAGE ``[n, h, w, c]`` as the methods take it: a normal tensor ``[n, 3, h, w]``."""
    return images[..., :3].movedim(-1, 1).float().clone()


def to_image(picture: Image.Image) -> Tensor:
    """A picture as an IMAGE."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
