"""Picture files as users have them: read right, or refused in a sentence that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from erasure_core.files import images
from erasure_core.files.images import load_pictures, picture_files, save_image, save_text, scaled_pixels

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def halves(mode: str = "RGB", left=RED, right=BLUE, size: int = 16) -> Image.Image:
    picture = Image.new(mode, (size, size), left)
    picture.paste(right, (size // 2, 0, size, size))
    return picture


def corners(path: Path, size: int = 16) -> tuple[list[int], list[int]]:
    """Middles of the left and the right half."""
    (found,) = load_pictures([path], size)
    assert found.shape == (3, size, size) and found.min() >= 0 and found.max() <= 1
    at = [(found[:, size // 2, column] * 255).round().int().tolist() for column in (size // 4, -size // 4)]
    return at[0], at[1]


def told(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load_pictures([path], 16)
    sentence = str(caught.value)
    assert sentence.startswith(f"images: {path.name} ") and "\n" not in sentence
    return sentence


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("ending", [".png", ".bmp", ".webp", ".jpg"])
def test_plain_pictures(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    lossless = {"quality": 100, "subsampling": 0} if ending == ".jpg" else {"lossless": True}
    halves().save(path, **lossless if ending in (".jpg", ".webp") else {})
    left, right = corners(path)
    assert np.abs(np.array([*left, *right]) - [*RED, *BLUE]).max() <= 2


def test_a_palette_and_one_bit(tmp_path: Path) -> None:
    halves().convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert corners(tmp_path / "p.png") == (list(RED), list(BLUE))
    halves("1", 0, 1).save(tmp_path / "one.png")
    assert corners(tmp_path / "one.png") == ([0, 0, 0], [255, 255, 255])


def test_sixteen_bits(tmp_path: Path) -> None:
    """Pillow's own conversion would make everything above 255 of 65,535 white."""
    row = b"\0" + struct.pack(">16H", *[0x1000] * 8, *[0x8000] * 8)
    (tmp_path / "grey.png").write_bytes(png(16, 16, 16, 0, row * 16))
    assert corners(tmp_path / "grey.png") == ([16] * 3, [128] * 3)
    row = b"\0" + struct.pack(">48H", *[0x8000, 0, 0x4000] * 16)
    (tmp_path / "colour.png").write_bytes(png(16, 16, 16, 2, row * 16))
    assert corners(tmp_path / "colour.png")[0] == [128, 0, 64]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    """And does not show the colours that it hides."""
    halves("RGBA", (*RED, 255), (*GREEN, 0)).save(tmp_path / "rgba.png")
    assert corners(tmp_path / "rgba.png") == (list(RED), [255] * 3)
    halves("LA", (0, 255), (0, 0)).save(tmp_path / "la.png")
    assert corners(tmp_path / "la.png") == ([0] * 3, [255] * 3)
    halves("RGB", RED, GREEN).save(tmp_path / "key.png", transparency=GREEN)
    assert corners(tmp_path / "key.png") == (list(RED), [255] * 3)
    halves("RGBA", (*RED, 255), (*GREEN, 0)).save(tmp_path / "rgba.webp", lossless=True)
    assert corners(tmp_path / "rgba.webp") == (list(RED), [255] * 3)


def test_a_camera_that_was_turned(tmp_path: Path) -> None:
    for orientation, expected in ((1, (RED, BLUE)), (2, (BLUE, RED)), (3, (BLUE, RED))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        halves().save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
        found = corners(tmp_path / "a.jpg")
        assert np.abs(np.array(found) - np.array(expected)).max() <= 2


def test_a_photo_with_a_preview_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    preview = Image.new("RGB", (4, 4), GREEN)
    halves().save(path, format="MPO", save_all=True, append_images=[preview], quality=100, subsampling=0)
    assert Image.open(path).is_animated
    assert np.abs(np.array(corners(path)) - [RED, BLUE]).max() <= 2


def test_animated_pictures(tmp_path: Path) -> None:
    for ending in ("png", "webp"):
        path = tmp_path / f"a.{ending}"
        halves().save(path, save_all=True, append_images=[halves("RGB", BLUE, RED)])
        assert "is animated; save one frame" in told(path)


def test_colours_of_a_printer(tmp_path: Path) -> None:
    halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)).save(tmp_path / "a.jpg")
    assert "is in CMYK" in told(tmp_path / "a.jpg")


def test_a_picture_of_fifty_thousand_pixels_a_side(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(50_000, 50_000, 8, 2, b""))
    assert "could be decompression bomb" in told(path)


@pytest.mark.filterwarnings("error")
def test_a_large_picture_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    halves().save(tmp_path / "a.png")
    assert corners(tmp_path / "a.png") == (list(RED), list(BLUE))


def test_damaged_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for ending in ("png", "jpg", "webp", "bmp"):
        path = tmp_path / f"a.{ending}"
        noise.save(path)
        whole = path.read_bytes()
        for share in (0.0, 0.02, 0.3, 0.9):
            path.write_bytes(whole[: int(share * len(whole))])
            assert "is not a readable picture" in told(path)
    (tmp_path / "text.png").write_text("a cat")
    assert "is not a readable picture" in told(tmp_path / "text.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_any_bytes_are_read_or_refused(ending: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / f"a.{ending}"
    halves(size=24).save(path)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(150):
        changed = whole.copy()
        changed[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(changed.tobytes())
        try:
            (found,) = load_pictures([path], 16)
        except ValueError as error:
            assert str(error).startswith(f"images: a.{ending} ")
        else:
            assert torch.isfinite(found).all()


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert "is not a file" in told(tmp_path / "folder.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "is not a file" in told(tmp_path / "pipe.png")
    (tmp_path / "to_zero.png").symlink_to("/dev/zero")
    assert "is not a file" in told(tmp_path / "to_zero.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    assert "is not a file" in told(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="there is no folder"):
        picture_files(tmp_path / "none")


def test_a_thin_picture(tmp_path: Path) -> None:
    Image.new("RGB", (1, 500), RED).save(tmp_path / "a.png")
    assert corners(tmp_path / "a.png") == (list(RED), list(RED))


def test_more_pictures_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MOST_BYTES", 2 * 3 * 16 * 16 * 4)
    assert len(load_pictures([tmp_path / "a.png"] * 2, 16)) == 2
    with pytest.raises(ValueError, match="there are 3 pictures, at most 2 fit at 16 x 16 pixels"):
        load_pictures([tmp_path / "a.png"] * 3, 16)


def test_text_and_pictures_are_written_whole_and_over_no_other(tmp_path: Path) -> None:
    assert save_text("größer\n", tmp_path / "a.json").read_bytes() == "größer\n".encode()
    path = save_image(halves(), tmp_path / "a.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG" and np.array_equal(np.asarray(picture), np.asarray(halves()))
    for save, what, name in ((save_text, "b", "a.json"), (save_image, halves(), "a.png")):
        with pytest.raises(FileExistsError):
            save(what, tmp_path / name, overwrite=False)


def test_scaled_pictures_have_a_pixel_at_least() -> None:
    assert [scaled_pixels(size, scale) for size, scale in ((64, 0.5), (64, 0.001), (3, 1.5))] == [32, 1, 4]
