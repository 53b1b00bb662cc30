"""Files that a command is given as its model: of which family they are, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pure.command_line import fails
from safetensors.torch import save_file

from erasure_core.diffusers import detection
from erasure_core.diffusers.checkpoint import shapes_in
from erasure_core.diffusers.detection import FIRST_CONV
from erasure_core.families.family import Family
from erasure_core.families.unets import REFINER, SD_1, SD_2, SDXL

CROSS = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"


def checkpoint(path: Path, width: int = 768, channels: int = 4, **more: torch.Tensor) -> Path:
    tensors = {
        FIRST_CONV: torch.zeros(2, channels, 3, 3),
        CROSS: torch.zeros(2, width),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.zeros(1),
    }
    save_file({**tensors, **{name.replace("__", "."): tensor for name, tensor in more.items()}}, path)
    return path


def test_models_that_cannot_be_used(tmp_path: Path, capsys) -> None:
    def error(name: str) -> str:
        out = tmp_path / "out.safetensors"
        return fails(capsys, "erase", "--model", tmp_path / name, "--concept", "cat", "--out", out)

    assert "there is no model" in error("nowhere")
    for name in ("a.ckpt", "a.pt", "a.bin"):
        (tmp_path / name).write_bytes(b"\x80\x02")
        assert "is a pickle" in error(name)
    (tmp_path / "a.gguf").write_bytes(b"")
    assert "has to be a .safetensors" in error("a.gguf")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    assert "not a readable safetensors file" in error("cut.safetensors")
    (tmp_path / "folder").mkdir()
    assert "no model_index.json" in error("folder")
    save_file({"a": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert "not a Stable Diffusion checkpoint (1.x, 2.x or XL)" in error("lora.safetensors")
    checkpoint(tmp_path / "odd.safetensors", 640)
    assert "not a Stable Diffusion" in error("odd.safetensors")


def test_a_family_is_told_from_shapes(tmp_path: Path) -> None:
    def configs(*arguments, **more) -> tuple[Family, dict]:
        shapes = shapes_in(checkpoint(tmp_path / "it.safetensors", *arguments, **more))
        family = detection.family_of_checkpoint("it", shapes)
        return family, detection.configs(family, shapes)

    family, one = configs()
    assert one["unet"]["cross_attention_dim"] == one["text_encoder"]["hidden_size"] == 768
    assert family is SD_1
    family, two = configs(1024, channels=9)
    assert two["unet"]["in_channels"] == 9 and two["scheduler"]["prediction_type"] == "v_prediction"
    assert family is SD_2
    mark = {"conditioner__embedders__0__a": torch.zeros(1)}
    for width, expected in ((2048, SDXL), (1280, REFINER)):
        family, three = configs(width, channels=8, **mark)
        assert family is expected and three["unet"]["in_channels"] == 8
        assert three["scheduler"]["prediction_type"] == "epsilon"
    assert configs(2048, **mark, v_pred=torch.zeros(0))[1]["scheduler"]["prediction_type"] == "v_prediction"
    json.dumps([one, two, three])


def test_a_unet_alone_is_refused(tmp_path: Path) -> None:
    shapes = {FIRST_CONV: [2, 4, 3, 3], CROSS: [2, 768]}
    with pytest.raises(ValueError, match="has no text encoder"):
        detection.family_of_checkpoint("unet", shapes)
