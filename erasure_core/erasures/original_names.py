"""The names of a UNet's layers in the original Stable Diffusion checkpoints, from those in diffusers and back."""

from __future__ import annotations

import re

NAMES = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
         "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
         "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(attentions|resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(attentions|resnets)\.(\d+)\.(.+)")
ATTENTION = re.compile(r"(?:(input|output)_blocks\.(\d+)|middle_block)\.1\.(.+)")


def original(module: str, blocks: int) -> str:
    """Return the original name of the module that diffusers calls ``module``.

    ``blocks`` is how many numbers the original gives to each level: one more than ``layers_per_block``.
    """
    if match := BLOCK.fullmatch(module):
        side, level, kind, index, rest = match.groups()
        block = blocks * int(level) + int(index)
        if kind == "downsamplers":
            return f"input_blocks.{block + blocks}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{block + blocks - 1}.2.{rest}"
        owner = f"input_blocks.{block + 1}" if side == "down_blocks" else f"output_blocks.{block}"
        return f"{owner}.1.{rest}" if kind == "attentions" else f"{owner}.0.{RESNET.get(rest, rest)}"
    if match := MIDDLE.fullmatch(module):
        kind, index, rest = match.groups()
        if kind == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(index)}.{RESNET.get(rest, rest)}"
    return NAMES.get(module, module)


def attention_in_diffusers(module: str, blocks: int) -> str | None:
    """Return what diffusers calls a module of an attention with an original name, or ``None`` for any other module.

    ``blocks`` is as in ``original``.
    """
    match = ATTENTION.fullmatch(module)
    if match is None:
        return None
    side, number, rest = match.groups()
    if side is None:
        return f"mid_block.attentions.0.{rest}"
    place = int(number) - (side == "input")
    return f"{'down' if side == 'input' else 'up'}_blocks.{place // blocks}.attentions.{place % blocks}.{rest}"
