"""Writes a checkpoint of random weights in the original single-file layout, ComfyUI on the path.

    make_checkpoint.py FAMILY FILE [--dtype fp16|bf16|fp32|fp8_e4m3fn|fp8_scaled] [--small [unet]]

Full size, or small: few blocks, three layers a text encoder (``SMALL_TEXT`` tells the loader so), a TAESD as the VAE;
or with a small UNet and VAE alone, which needs nothing to be told. One tensor is held at a time.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from hosting import load_comfy

load_comfy()

import comfy.supported_models  # noqa: E402
import comfy.taesd.taesd  # noqa: E402
from comfy.ldm.models import autoencoder  # noqa: E402

Shapes = dict[str, tuple[int, ...]]
Small = Literal["", "unet", "all"]

UNET = "model.diffusion_model."
DTYPES = {
    "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_scaled": torch.float8_e4m3fn,
}  # fmt: skip
STORED = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3"}
V_PREDICTION = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"  # ComfyUI knows it by its deviation
VOCABULARY, WINDOW, SMALL_LAYERS = 49408, 77, 3
SMALL_TEXT = {f"clip_{name}_model_config": {"num_hidden_layers": SMALL_LAYERS} for name in "lgh"}
"""``te_model_options`` with which ComfyUI's loader takes the text encoders of small files."""

COMMON = {
    "image_size": 32, "out_channels": 4, "use_spatial_transformer": True, "use_temporal_attention": False,
    "adm_in_channels": None, "legacy": False, "model_channels": 320, "in_channels": 4,
}  # fmt: skip
FOUR_LEVELS = {
    "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2, 2, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
}  # fmt: skip
TWO_FLAT_LEVELS = {
    "channel_mult": [1, 1], "num_res_blocks": [1, 1], "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1,
}  # fmt: skip
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def clip_shapes(width: int, layers: int) -> Shapes:
    """A CLIP text encoder by transformers' names."""
    shapes = {
        "embeddings.token_embedding.weight": (VOCABULARY, width),
        "embeddings.position_embedding.weight": (WINDOW, width),
        **_affine("final_layer_norm", width),
    }
    for layer in range(layers):
        part = f"encoder.layers.{layer}."
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= _affine(part + norm, width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _affine(f"{part}self_attn.{projection}", width, width)
        shapes |= _affine(part + "mlp.fc1", 4 * width, width) | _affine(part + "mlp.fc2", width, 4 * width)
    return {f"text_model.{name}": shape for name, shape in shapes.items()}


def open_clip_shapes(width: int, layers: int) -> Shapes:
    """The same by OpenCLIP's names, with its projection."""
    shapes = {
        "token_embedding.weight": (VOCABULARY, width), "positional_embedding": (WINDOW, width),
        "text_projection": (width, width), **_affine("ln_final", width),
    }  # fmt: skip
    for layer in range(layers):
        part = f"transformer.resblocks.{layer}."
        for norm in ("ln_1", "ln_2"):
            shapes |= _affine(part + norm, width)
        shapes |= {f"{part}attn.in_proj_weight": (3 * width, width), f"{part}attn.in_proj_bias": (3 * width,)}
        shapes |= _affine(part + "attn.out_proj", width, width)
        shapes |= _affine(part + "mlp.c_fc", 4 * width, width) | _affine(part + "mlp.c_proj", width, 4 * width)
    return shapes


def _affine(name: str, out: int, *inputs: int) -> Shapes:
    return {f"{name}.weight": (out, *inputs), f"{name}.bias": (out,)}


@dataclass(frozen=True)
class Text:
    """A text encoder's place in the file, its naming and its size."""

    prefix: str
    shapes: Callable[[int, int], Shapes]
    width: int
    layers: int


@dataclass(frozen=True)
class Family:
    """``kind`` names ComfyUI's class; what the UNet has instead of ``COMMON``, and instead of that when small."""

    kind: str
    texts: tuple[Text, ...]
    unet: dict = field(default_factory=dict)
    small: dict = field(default_factory=lambda: TWO_FLAT_LEVELS)
    v_prediction: bool = False

    def unet_config(self, small: bool) -> dict:
        """As ``comfy.model_detection`` finds it in the file."""
        return COMMON | FOUR_LEVELS | self.unet | (self.small if small else {})


SD1_TEXT = (Text("cond_stage_model.transformer.", clip_shapes, 768, 12),)
SD1_UNET = {"context_dim": 768, "use_linear_in_transformer": False}
SDXL_TEXT = (
    Text("conditioner.embedders.0.transformer.", clip_shapes, 768, 12),
    Text("conditioner.embedders.1.model.", open_clip_shapes, 1280, 32),
)
SDXL_UNET = {
    "context_dim": 2048, "use_linear_in_transformer": True, "adm_in_channels": 2816, "num_classes": "sequential",
    "channel_mult": [1, 2, 4], "num_res_blocks": [2, 2, 2], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10,
}  # fmt: skip
FAMILIES = {
    "sd15": Family("SD15", SD1_TEXT, SD1_UNET),
    "sd15_inpainting": Family("SD15", SD1_TEXT, SD1_UNET | {"in_channels": 9}),
    "sd15_instruct": Family("SD15_instructpix2pix", SD1_TEXT, SD1_UNET | {"in_channels": 8}),
    "sd21": Family(
        "SD20",
        (Text("cond_stage_model.model.", open_clip_shapes, 1024, 24),),
        {"context_dim": 1024, "use_linear_in_transformer": True},
        {
            "channel_mult": [1, 1, 1, 1], "transformer_depth": [1, 0, 0, 0, 0, 0, 0, 0],
            "transformer_depth_output": [1] + 11 * [0],
        },
        v_prediction=True,
    ),
    "sdxl": Family(
        "SDXL",
        SDXL_TEXT,
        SDXL_UNET,
        {"channel_mult": [1, 1, 1], "transformer_depth_output": 9 * [0], "transformer_depth_middle": 1},
    ),
    "sdxl_refiner": Family(
        "SDXLRefiner",
        (Text("conditioner.embedders.0.model.", open_clip_shapes, 1280, 32),),
        {
            "context_dim": 1280, "use_linear_in_transformer": True, "adm_in_channels": 2560,
            "num_classes": "sequential", "model_channels": 384, "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
            "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0], "transformer_depth_middle": 4,
        },
        {"channel_mult": [1, 1, 1, 1], "transformer_depth_output": 12 * [0], "transformer_depth_middle": 1},
    ),
}  # fmt: skip


def shapes_of(family: Family, small: Small) -> Shapes:
    """Every weight's name in the file, and its shape."""
    unet = getattr(comfy.supported_models, family.kind)(family.unet_config(bool(small)) | {"dtype": torch.float16})
    with torch.device("meta"):
        vae = comfy.taesd.taesd.TAESD() if small else autoencoder.AutoencoderKL(ddconfig=VAE, embed_dim=4)
        parts = {"model.": unet.get_model({}, device="meta"), "first_stage_model.": vae}
    shapes = {prefix + name: tuple(w.shape) for prefix, part in parts.items() for name, w in part.state_dict().items()}
    shapes = {name: shape for name, shape in shapes.items() if name.startswith((UNET, "first_stage_model."))}
    for text in family.texts:
        layers = SMALL_LAYERS if small == "all" else text.layers
        shapes |= {text.prefix + name: shape for name, shape in text.shapes(text.width, layers).items()}
    return shapes


@dataclass(frozen=True)
class Entry:
    """A tensor of the file; ``scaled`` when a number of its own, which follows it, multiplies it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    scaled: bool = False

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def entries_of(family: Family, dtype: str, small: Small) -> list[Entry]:
    """What the file holds, in order. In 8 bits the UNet alone, or only its linear layers when they are scaled."""
    stored, scaled = DTYPES[dtype], dtype == "fp8_scaled"
    wide = stored if stored.itemsize > 1 else torch.float16
    entries = [Entry(UNET + "scaled_fp8", (2,), stored)] if scaled else []
    for name, shape in shapes_of(family, small).items():
        matrix = len(shape) == 2 and name.endswith(".weight")
        narrow = name.startswith(UNET) and (matrix or not scaled)
        entries.append(Entry(name, shape, stored if narrow else wide, scaled and narrow))
        if scaled and narrow:
            entries.append(Entry(name.removesuffix("weight") + "scale_weight", (), torch.float32))
    return entries


class Numbers:
    """Weights that keep activations near 1, cut from a pool of normal numbers; norms at 1, biases at 0."""

    def __init__(self) -> None:
        self.draw = torch.Generator().manual_seed(0)
        self.pool = torch.randn(8_000_000, generator=self.draw)

    def __call__(self, shape: tuple[int, ...]) -> torch.Tensor:
        count = math.prod(shape)
        start = int(torch.randint(len(self.pool) // 2, (1,), generator=self.draw))
        repeats = -(-(start + count) // len(self.pool))
        numbers = self.pool.repeat(repeats) if repeats > 1 else self.pool
        return numbers[start : start + count].reshape(shape) / math.prod(shape[1:]) ** 0.5


def tensors_of(entries: list[Entry], v_prediction: bool) -> Iterator[torch.Tensor]:
    """The tensors of ``entries`` in their order, one at a time."""
    numbers, scale = Numbers(), torch.ones(())
    for entry in entries:
        if entry.name.endswith("scale_weight"):
            yield scale
        elif entry.name == V_PREDICTION and v_prediction:
            yield (torch.arange(entry.shape[0]) % 2).to(entry.dtype)
        elif len(entry.shape) < 2:
            zero = entry.name.endswith(("bias", "shift", "scaled_fp8"))
            yield (torch.zeros if zero else torch.ones)(entry.shape).to(entry.dtype)
        else:
            weight = numbers(entry.shape)
            if entry.scaled:
                scale = weight.abs().max() / torch.finfo(entry.dtype).max
                weight = weight / scale
            yield weight.to(entry.dtype)


def write(path: Path, entries: list[Entry], tensors: Iterator[torch.Tensor]) -> None:
    """A safetensors file, as https://github.com/huggingface/safetensors#format says."""
    header, place = {}, 0
    for entry in entries:
        header[entry.name] = {
            "dtype": STORED[entry.dtype], "shape": entry.shape, "data_offsets": (place, place := place + entry.bytes)
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def make(family: str, path: Path, dtype: str = "fp16", *, small: Small = "all") -> None:
    """Write the checkpoint as the command does, but small."""
    entries = entries_of(FAMILIES[family], dtype, small)
    write(path, entries, tensors_of(entries, FAMILIES[family].v_prediction))
    count = sum(math.prod(entry.shape) for entry in entries)
    print(f"{len(entries)} tensors, {count / 1e6:.0f} M weights, {path.stat().st_size / 1e9:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("file", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--small", choices=("unet", "all"), nargs="?", const="all", default="")
    options = parser.parse_args()
    make(options.family, options.file, options.dtype, small=options.small)


if __name__ == "__main__":
    main()
