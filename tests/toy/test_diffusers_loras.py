"""Our files through ``load_lora_weights`` of diffusers' own pipelines, of SD 1.x and of SDXL, in small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erasure_core import Concept, Dense, Erasure, LowRank, Origin
from erasure_core.toy.tokenizer import clip_tokenizer

pytest.importorskip("peft")

from diffusers import (  # noqa: E402
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # noqa: E402

WIDTHS = (32, 48)
UNET = {
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (2, 4),
}  # fmt: skip
SDXL = {
    "transformer_layers_per_block": (1, 2), "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + WIDTHS[1],
    "cross_attention_dim": sum(WIDTHS),
}  # fmt: skip
CHANGED = (
    "attn2.to_k", "attn2.to_v", "add_embedding.linear_1",  # closed forms
    "q_proj", "k_proj", "v_proj", "out_proj", "mlp.fc1", "mlp.fc2",  # few-shot
)  # fmt: skip
PARTS = ("unet", "text_encoder", "text_encoder_2")


def text(kind, width: int):
    return kind(
        CLIPTextConfig(
            hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
            projection_dim=width, bos_token_id=49406, eos_token_id=49407,
        )
    ).eval()  # fmt: skip


def scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(steps_offset=1)


def sd():
    return StableDiffusionPipeline(
        vae=AutoencoderKL(), text_encoder=text(CLIPTextModel, WIDTHS[0]), tokenizer=clip_tokenizer(),
        unet=UNet2DConditionModel(**UNET, cross_attention_dim=WIDTHS[0]).eval(), scheduler=scheduler(),
        feature_extractor=None, safety_checker=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl():
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(), text_encoder=text(CLIPTextModel, WIDTHS[0]), tokenizer=clip_tokenizer(),
        text_encoder_2=text(CLIPTextModelWithProjection, WIDTHS[1]), tokenizer_2=clip_tokenizer(),
        unet=UNet2DConditionModel(**UNET, **SDXL).eval(), scheduler=scheduler(),
    )  # fmt: skip


def weights(pipe) -> dict[str, torch.Tensor]:
    """By the names that files use, whether transformers has a ``text_model`` around its layers or not."""
    found = {}
    for part in PARTS:
        module = getattr(pipe, part, None)
        for name, weight in module.named_parameters() if module is not None else ():
            nested = part != "unet" and not name.startswith(("text_model.", "text_projection."))
            found[f"{part}.text_model.{name}" if nested else f"{part}.{name}"] = weight.detach().clone()
    return found


def made(deltas) -> Erasure:
    return Erasure(deltas, (Origin("test", (Concept("cat"),), {}, "0" * 16),))


@pytest.fixture(params=[sd, sdxl])
def pipe(request):
    torch.manual_seed(0)
    return request.param()


def test_every_change_arrives(pipe, tmp_path: Path) -> None:
    """Low-rank changes of keys and values, of the layer that reads the pooled vector and of both text encoders."""
    before = weights(pipe)
    deltas = {
        name: LowRank(torch.randn(len(weight), 2), 0.1 * torch.randn(2, weight.shape[1]))
        for name, weight in before.items()
        if name.removesuffix(".weight").endswith(CHANGED)
    }
    kinds = {kind for kind in CHANGED for name in deltas if name.removesuffix(".weight").endswith(kind)}
    assert kinds == set(CHANGED) - (set() if hasattr(pipe, "text_encoder_2") else {"add_embedding.linear_1"})
    path = made(deltas).save(tmp_path / "erasure.safetensors")
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    after = weights(pipe)
    assert set(after) == set(before)
    for name, weight in before.items():
        expected = weight + deltas[name].dense() if name in deltas else weight
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_whole_changes_are_refused_not_passed_over(pipe, tmp_path: Path, kind: str) -> None:
    """diffusers reads low-rank changes only, and says so: whole ones, as of biases, need ComfyUI or our own loader."""
    name = f"text_encoder.text_model.encoder.layers.0.mlp.fc1.{kind}"
    path = made({name: Dense(torch.ones_like(weights(pipe)[name]))}).save(tmp_path / "erasure.safetensors")
    with pytest.raises(ValueError, match=r"(?s)not been correctly renamed.*mlp_fc1\.diff"):
        pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
