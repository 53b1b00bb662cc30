"""A user's picture files as a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def picture_files(folder: Path) -> list[Path]:
    """Every picture file of ``folder``, by name. Raises ``ValueError`` when there is none."""
    if not folder.is_dir():
        raise ValueError(f"images: there is no folder {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not paths:
        raise ValueError(f"images: {folder} holds no picture ({', '.join(ENDINGS)})")
    return paths


def load_pictures(paths: Sequence[Path], size: int) -> Tensor:
    """Pictures cut to their middle squares: ``[n, 3, size, size]`` in 0 to 1.

    Raises ``ValueError`` naming the file when one cannot be read.
    """
    return torch.stack([_load(path, size) for path in paths])


def _load(path: Path, size: int) -> Tensor:
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"images: {path.name} is not a readable picture: {error}") from error
    square = ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
    return as_tensor(square)


def as_tensor(picture: Image.Image) -> Tensor:
    """A picture in RGB as ``[3, h, w]`` in 0 to 1."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
