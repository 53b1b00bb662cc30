"""The names of weights in files, and which programs are said to read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from erasure_core import Concept, Dense, Erasure, LowRank, Origin
from erasure_core.erasures import erasure_file
from erasure_core.erasures.file_keys import older_stems, stem, stems
from erasure_core.erasures.programs import readers_of

CROSS = "{}.attentions.{}.transformer_blocks.{}.attn2.to_k"
SD = [CROSS.format("up_blocks.1", 2, 0), CROSS.format("up_blocks.2", 1, 0), CROSS.format("up_blocks.3", 0, 0)]
SDXL = [CROSS.format("down_blocks.1", 0, 1), CROSS.format("mid_block", 0, 9), CROSS.format("up_blocks.0", 2, 9)]
REFINER = [CROSS.format("down_blocks.1", 0, 1), CROSS.format("up_blocks.1", 2, 3), CROSS.format("up_blocks.2", 0, 0)]
LABEL = "add_embedding.linear_1"
ALL = "ComfyUI's Load LoRA, A1111, Forge and diffusers read it"
NEWER = ALL.replace("diffusers", "diffusers (0.39 and newer)")
KEYS = {
    "Flux": {"txt_in": "transformer.context_embedder",
             "vector_in.in_layer": "transformer.time_text_embed.text_embedder.linear_1"},
    "SD 3": {"context_embedder": "transformer.context_embedder",
             "y_embedder.mlp.0": "transformer.time_text_embed.text_embedder.linear_1"},
    "AuraFlow": {"cond_seq_linear": "transformer.context_embedder"},
    "Qwen-Image and Flux 2": {"txt_in": "diffusion_model.txt_in"},
    "Z-Image": {"cap_embedder.1": "diffusion_model.cap_embedder.1"},
    "LTX-Video": {"caption_projection.linear_1": "diffusion_model.caption_projection.linear_1"},
    "HiDream": {f"{layer}": f"diffusion_model.{layer}" for layer in (
        "caption_projection.0.linear", "caption_projection.48.linear", "p_embedder.pooled_embedder.linear_1")},
}  # fmt: skip
OTHERS = {
    "Wan": ["text_embedding.0"],
    "HunyuanVideo": ["txt_in.input_embedder", "txt_in.c_embedder.in_layer", "vector_in.in_layer"],
    "a part of Flux's": ["vector_in.in_layer"],
    "more than SD 3's": ["context_embedder", "y_embedder.mlp.0", "y_embedder.mlp.2"],
    "Stable Cascade": ["clip_txt_mapper", "clip_txt_pooled_mapper"],
}


def made(layers, text=(), whole=()) -> Erasure:
    deltas = {f"unet.{layer}.weight": LowRank(torch.randn(5, 2), torch.randn(2, 3)) for layer in layers}
    deltas |= {name: LowRank(torch.randn(5, 2), torch.randn(2, 3)) for name in text}
    deltas |= {name: Dense(torch.randn(5, 3)) for name in whole}
    return Erasure(deltas, (Origin("test", (Concept("cat"),), {}, "0" * 16),))


def unet_stems(layers) -> list[str]:
    return list(stems([f"unet.{layer}.weight" for layer in layers]).values())


def back_as_it_was(erasure: Erasure, path: Path) -> None:
    back = Erasure.load(path)
    assert list(back.deltas) == list(erasure.deltas)
    for name, delta in erasure.deltas.items():
        assert type(back.deltas[name]) is type(delta)
        torch.testing.assert_close(back.deltas[name].dense(), delta.dense(), rtol=0, atol=0)


def test_sdxl_has_its_checkpoints_names_and_its_refiner_not() -> None:
    others = [
        LABEL,
        "conv_out",
        "time_embedding.linear_2",
        "down_blocks.2.resnets.1.conv_shortcut",
        "down_blocks.0.downsamplers.0.conv",
    ]
    assert unet_stems([*SDXL, *others]) == [
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k",
        "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_k",
        "lora_unet_output_blocks_2_1_transformer_blocks_9_attn2_to_k",
        "lora_unet_label_emb_0_0",
        "lora_unet_out_2",
        "lora_unet_time_embed_2",
        "lora_unet_input_blocks_8_0_skip_connection",
        "lora_unet_input_blocks_3_0_op",
    ]
    for layers in (SD, REFINER, [*REFINER, LABEL]):
        assert unet_stems(layers) == [stem(f"unet.{layer}.weight") for layer in layers]


@pytest.mark.parametrize("family", KEYS)
def test_transformers_that_diffusers_reads(family: str, tmp_path: Path) -> None:
    erasure = made(KEYS[family])
    assert dict(zip(KEYS[family], stems(erasure.deltas).values(), strict=True)) == KEYS[family]
    path = erasure.save(tmp_path / "a.safetensors")
    assert set(load_file(path)) == {
        f"{key}.{part}.weight" for key in KEYS[family].values() for part in ("lora_A", "lora_B")
    }
    back_as_it_was(erasure, path)
    assert readers_of(erasure) == f"ComfyUI's Load LoRA reads it, and so does diffusers (0.39 and newer) for {family}"


@pytest.mark.parametrize("family", OTHERS)
def test_other_transformers(family: str, tmp_path: Path) -> None:
    erasure = made(OTHERS[family])
    assert unet_stems(OTHERS[family]) == [stem(name) for name in erasure.deltas]
    back_as_it_was(erasure, erasure.save(tmp_path / "a.safetensors"))
    assert readers_of(erasure) == "ComfyUI's Load LoRA reads it, diffusers does not"


@pytest.mark.parametrize("layers", [SD, SDXL, [*SDXL, LABEL], *KEYS.values()])
def test_older_files_call_everything_as_kohya_does(layers, tmp_path: Path, monkeypatch) -> None:
    erasure = made(layers, text=["text_encoder.a.weight"])
    new = erasure.save(tmp_path / "new.safetensors")
    monkeypatch.setattr(erasure_file, "stems", older_stems)
    old = erasure.save(tmp_path / "old.safetensors")
    assert all(key.startswith("lora_") for key in load_file(old))
    assert (load_file(old).keys() == load_file(new).keys()) == (layers is SD)
    back_as_it_was(erasure, new)
    back_as_it_was(erasure, old)


def test_whole_changes_of_a_transformer(tmp_path: Path) -> None:
    erasure = made([], whole=["unet.context_embedder.weight", "unet.y_embedder.mlp.0.weight"])
    back_as_it_was(erasure, erasure.save(tmp_path / "a.safetensors"))
    assert readers_of(erasure) == "ComfyUI's Load LoRA reads it, diffusers does not"


@pytest.mark.parametrize(
    ("layers", "text", "told"),
    [
        (SD, [], f"{ALL}, kohya's sd-scripts too"),
        ([], ["text_encoder.a.weight"], f"{ALL}, kohya's sd-scripts too"),
        (SDXL, ["text_encoder_2.a.weight"], f"{ALL}, kohya's sd-scripts too"),
        ([*SDXL, LABEL], [], f"{NEWER}, kohya's sd-scripts all but what reads the pooled text"),
        ([*REFINER, LABEL], [], f"{NEWER}; kohya's sd-scripts do not"),
    ],
)
def test_readers_of_a_unet(layers, text, told) -> None:
    assert readers_of(made(layers, text)) == told
    whole = "ComfyUI's Load LoRA, A1111 and Forge read it; diffusers and kohya's sd-scripts do not read whole weights"
    assert readers_of(made(layers, text, ["text_encoder.b.weight"])) == whole
