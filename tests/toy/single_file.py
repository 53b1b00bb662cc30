"""Checkpoints in one file, under the names of the original Stable Diffusion repositories, from diffusers' modules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0",
    "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
VAE = {
    "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "conv_norm_out": "norm_out",
    "downsamplers.0": "downsample", "upsamplers.0": "upsample", "conv_shortcut": "nin_shortcut",
}  # fmt: skip
OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
}  # fmt: skip


def single_file(pipe) -> dict[str, Tensor]:
    """The weights of a pipeline as one file has them."""
    unet = {f"model.diffusion_model.{_unet(pipe.unet, n)}": w for n, w in pipe.unet.state_dict().items()}
    vae = {f"first_stage_model.{_vae(pipe.vae, n)}": _square(n, w) for n, w in pipe.vae.state_dict().items()}
    return {**unet, **vae, **_encoders(pipe)}


def write_sparse(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """A safetensors file of float16 zeros that takes next to no room on the disk."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    with open(path, "wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        file.truncate(8 + len(told) + offset)


def _unet(unet, name: str) -> str:
    for ours, theirs in UNET.items():
        if name.startswith(f"{ours}."):
            rest = name[len(ours) + 1 :]
            return f"{theirs}.{_resnet(rest) if 'resnets' in ours else rest}"
    side, block, kind, place, rest = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name).groups()
    many = unet.config.layers_per_block + 1
    first = int(block) * many + (1 if side == "down" else 0)
    theirs = "input_blocks" if side == "down" else "output_blocks"
    if kind in ("resnets", "attentions"):
        inner = _resnet(rest) if kind == "resnets" else rest
        return f"{theirs}.{first + int(place)}.{0 if kind == 'resnets' else 1}.{inner}"
    if side == "down":
        return f"{theirs}.{first + many - 1}.0.{rest.replace('conv', 'op')}"
    behind = 2 if hasattr(unet.up_blocks[int(block)], "attentions") else 1
    return f"{theirs}.{first + many - 1}.{behind}.{rest}"


def _resnet(rest: str) -> str:
    layer, _, leaf = rest.rpartition(".")
    return f"{RESNET[layer]}.{leaf}"


def _vae(vae, name: str) -> str:
    most = len(vae.config.block_out_channels) - 1
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda match: f"up.{most - int(match[1])}.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d+)\.", lambda match: f"up.{most - int(match[1])}.", name)
    for ours, theirs in VAE.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}\.", rf"\1{theirs}.", name)
    return name


def _square(name: str, weight: Tensor) -> Tensor:
    """The attention of the original is made of convolutions."""
    linear = "mid_block.attentions" in name and weight.ndim == 2
    return weight[:, :, None, None] if linear else weight


def _encoders(pipe) -> dict[str, Tensor]:
    if getattr(pipe, "text_encoder_2", None) is None:
        if pipe.text_encoder.config.hidden_act == "gelu":
            return dict(_open_clip(pipe.text_encoder, "cond_stage_model.model."))
        return dict(_clip(pipe.text_encoder, "cond_stage_model.transformer."))
    if pipe.text_encoder is None:
        return dict(_open_clip(pipe.text_encoder_2, "conditioner.embedders.0.model."))
    first, second = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
    return {**dict(_clip(pipe.text_encoder, first)), **dict(_open_clip(pipe.text_encoder_2, second))}


def _clip(encoder, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, weight in encoder.state_dict().items():
        yield f"{prefix}text_model.{name.removeprefix('text_model.')}", weight


def _open_clip(encoder, prefix: str) -> Iterator[tuple[str, Tensor]]:
    weights = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    yield f"{prefix}positional_embedding", weights["embeddings.position_embedding.weight"]
    yield f"{prefix}token_embedding.weight", weights["embeddings.token_embedding.weight"]
    if "text_projection.weight" in weights:
        yield f"{prefix}text_projection", weights["text_projection.weight"].T.contiguous()
    for leaf in ("weight", "bias"):
        yield f"{prefix}ln_final.{leaf}", weights[f"final_layer_norm.{leaf}"]
    for layer in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{layer}", f"{prefix}transformer.resblocks.{layer}"
        for leaf in ("weight", "bias"):
            parts = [weights[f"{ours}.self_attn.{one}_proj.{leaf}"] for one in "qkv"]
            yield f"{theirs}.attn.in_proj_{leaf}", torch.cat(parts)
            for mine, other in OPEN_CLIP.items():
                yield f"{theirs}.{other}.{leaf}", weights[f"{ours}.{mine}.{leaf}"]
