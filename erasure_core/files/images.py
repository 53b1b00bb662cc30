"""A user's picture files as a batch of images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..quoting import shown
from .atomic import write_whole

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_BYTES = 4 * 2**30  # of all pictures together
SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # modes of a grey PNG of 16 bits
PAPER = "white"  # behind what is transparent


def picture_files(folder: Path) -> list[Path]:
    """Every picture file of ``folder``, by name. Raises ``ValueError`` when there is none."""
    if folder.is_file():
        raise ValueError(f"images: {shown(str(folder))} is a file; name the folder that it is in")
    if not folder.is_dir():
        raise ValueError(f"images: there is no folder {shown(str(folder))}")
    paths = pictures_in(folder)
    if not paths:
        raise ValueError(f"images: {shown(str(folder))} holds no picture ({', '.join(ENDINGS)})")
    return paths


def pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def load_pictures(paths: Sequence[Path], size: int) -> Tensor:
    """Pictures cut to their middle squares, upright and on white where they are transparent: ``[n, 3, size, size]``.

    Raises ``ValueError`` naming the file when one cannot be read or is not one picture, and for too many.
    """
    most = MOST_BYTES // (3 * size * size * 4)
    if len(paths) > most:
        raise ValueError(f"images: there are {len(paths)} pictures, at most {most} fit at {size} x {size} pixels")
    return torch.stack([_load(path, size) for path in paths])


def _load(path: Path, size: int) -> Tensor:
    name = shown(path.name)
    if not path.is_file():
        raise ValueError(f"images: {name} is not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error
            with Image.open(path) as picture:
                problem = _problem(picture)
                square = None if problem else _square(picture, size)
    except Exception as error:  # Pillow's readers raise whatever the bytes lead them to
        raise ValueError(f"images: {name} is not a readable picture: {shown(str(error), 300)}") from error
    if square is None:
        raise ValueError(f"images: {name} {problem}")
    return as_tensor(square)


def _problem(picture: Image.Image) -> str | None:
    """Why a file is not one picture in colours that are known."""
    if getattr(picture, "is_animated", False) and picture.format != "MPO":  # a camera's JPEG with a preview behind it
        return "is animated; save one frame of it"
    if picture.mode in ("CMYK", "LAB", "HSV"):
        return f"is in {picture.mode}, whose colours depend on a printer or a profile; save it in RGB"
    return None


def _square(picture: Image.Image, size: int) -> Image.Image:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in SIXTEEN_BITS:
        upright = Image.fromarray((np.asarray(upright).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        paper = Image.new("RGBA", upright.size, PAPER)
        upright = Image.alpha_composite(paper, upright)
    return ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.LANCZOS)


def as_tensor(picture: Image.Image) -> Tensor:
    """A picture in RGB as ``[3, h, w]`` in 0 to 1."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def save_image(sheet: Image.Image, path: str | Path, overwrite: bool = True) -> Path:
    """Write a PNG, whole or not at all."""
    path = Path(path)
    write_whole(path, lambda file: sheet.save(file, format="PNG", optimize=True), overwrite)
    return path


def save_text(text: str, path: str | Path, overwrite: bool = True) -> Path:
    """Write UTF-8 text in the same way."""
    path = Path(path)
    write_whole(path, lambda file: file.write(text.encode()), overwrite)
    return path


def to_image(image: Tensor, scale: float = 1) -> Image.Image:
    """A picture ``[3, h, w]`` in 0 to 1 for Pillow, enlarged ``scale`` times."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    return picture.resize(
        (scaled_pixels(picture.width, scale), scaled_pixels(picture.height, scale)), Image.Resampling.LANCZOS
    )


def scaled_pixels(size: int, scale: float) -> int:
    return max(1, round(size * scale))
