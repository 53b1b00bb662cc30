"""Picture files: read as a batch of tensors, and written as PNG."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..quoting import excerpt
from .atomic import write_whole

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CAPTION = ".txt"
MOST_BYTES = 4 * 2**30  # memory that all pictures of a batch may take, in float32
SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of a grey PNG of 16 bits
PAPER = "white"  # the background of transparent pictures


def picture_files(folder: Path) -> list[Path]:
    """Return the picture files of ``folder``, sorted by name.

    Raises ``ValueError`` when there is no such folder or it holds no picture.
    """
    if folder.is_file():
        raise ValueError(f"images: {excerpt(str(folder))} is a file; name the folder that it is in")
    if not folder.is_dir():
        raise ValueError(f"images: there is no folder {excerpt(str(folder))}")
    paths = pictures_in(folder)
    if not paths:
        raise ValueError(f"images: {excerpt(str(folder))} holds no picture ({', '.join(ENDINGS)})")
    return paths


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files of an existing folder, sorted by name; the list may be empty."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def captions_beside(pictures: Sequence[Path]) -> list[str]:
    """Return the caption of each picture, from the text file of its name beside it (``a.txt`` for ``a.png``).

    The list is empty where no picture has one. Raises ``ValueError`` that names the file for a picture without a
    caption beside others with one, and for a file that is empty or is no UTF-8 text.
    """
    files = [path.with_suffix(CAPTION) for path in pictures]
    if not any(file.is_file() for file in files):
        return []
    return [_caption(picture, file) for picture, file in zip(pictures, files, strict=True)]


def _caption(picture: Path, file: Path) -> str:
    if not file.is_file():
        raise ValueError(f"images: {excerpt(picture.name)} has no caption, {excerpt(file.name)}; others have theirs")
    try:
        text = " ".join(file.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise ValueError(f"images: {excerpt(file.name)} is not UTF-8 text: {error}; save it as UTF-8") from error
    if not text:
        raise ValueError(f"images: {excerpt(file.name)} is empty; write what the picture shows")
    return text


def load_pictures(paths: Sequence[Path], size: int) -> Tensor:
    """Return pictures as float32 ``[n, 3, size, size]``, with values from 0 to 1.

    Of each picture the middle square is cut out and scaled to ``size`` pixels. Pictures are turned upright as their
    EXIF data say, and transparent ones are put on white. Raises ``ValueError`` that names the file when it cannot be
    read or is not a single picture, and when the batch would need more than 4 GiB.
    """
    most = MOST_BYTES // (3 * size * size * 4)
    if len(paths) > most:
        raise ValueError(f"images: there are {len(paths)} pictures, at most {most} fit at {size} x {size} pixels")
    return torch.stack([_load(path, size) for path in paths])


def _load(path: Path, size: int) -> Tensor:
    name = excerpt(path.name)
    if not path.is_file():
        raise ValueError(f"images: {name} is not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # at twice that size Pillow raises an error
            with Image.open(path) as picture:
                problem = _problem(picture)
                square = None if problem else _square(picture, size)
    except Exception as error:  # Pillow's readers raise whatever the bytes lead them to
        raise ValueError(f"images: {name} is not a readable picture: {excerpt(str(error), 300)}") from error
    if square is None:
        raise ValueError(f"images: {name} {problem}")
    return as_tensor(square)


def _problem(picture: Image.Image) -> str | None:
    """Return why a file is not a single picture in well-defined colours, or ``None`` if it is one."""
    if getattr(picture, "is_animated", False) and picture.format != "MPO":  # MPO is a camera's JPEG with a preview
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
    """Return an RGB picture as float32 ``[3, h, w]``, with values from 0 to 1."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def save_image(sheet: Image.Image, path: str | Path, overwrite: bool = True) -> Path:
    """Write ``sheet`` to ``path`` as PNG and return the path; see ``write_whole`` for errors and ``overwrite``."""
    path = Path(path)
    write_whole(path, lambda file: sheet.save(file, format="PNG", optimize=True), overwrite)
    return path


def save_text(text: str, path: str | Path, overwrite: bool = True) -> Path:
    """Write ``text`` to ``path`` in UTF-8 and return the path; see ``write_whole`` for errors and ``overwrite``."""
    path = Path(path)
    write_whole(path, lambda file: file.write(text.encode()), overwrite)
    return path


def to_image(image: Tensor, scale: float = 1) -> Image.Image:
    """Return an image ``[3, h, w]`` with values from 0 to 1 as a Pillow picture, enlarged ``scale`` times.

    Values outside of 0 to 1 are clamped.
    """
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    return picture.resize(
        (scaled_pixels(picture.width, scale), scaled_pixels(picture.height, scale)), Image.Resampling.LANCZOS
    )


def scaled_pixels(size: int, scale: float) -> int:
    """Return ``size`` times ``scale`` as a whole number of pixels, at least 1."""
    return max(1, round(size * scale))
