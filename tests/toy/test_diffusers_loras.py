"""Our files through the LoRA loaders of diffusers' own pipelines, in small: those of UNets and of transformers."""

from __future__ import annotations

import inspect
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from erasure_core import Concept, Dense, Erasure, LowRank, Origin
from erasure_core.diffusers.clip_tokenizer import clip_tokenizer
from erasure_core.erasures import erasure_file
from erasure_core.erasures.erasure_file import MAPS
from erasure_core.erasures.erasure_record import ContextMap
from erasure_core.erasures.programs import readers_of

pytest.importorskip("peft")

import diffusers  # noqa: E402
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
READS_POOLED = tuple(int(one) for one in diffusers.__version__.split(".")[:2]) >= (0, 39)  # docs/limits.md says so too


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


def sdxl_in_its_blocks():
    """With three levels of two layers, as kohya's scripts know SDXL."""
    pipe = sdxl()
    blocks = {
        "block_out_channels": (32, 32, 64), "layers_per_block": 2, "attention_head_dim": (2, 2, 4),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
    }  # fmt: skip
    pipe.register_modules(unet=UNet2DConditionModel(**UNET | SDXL | blocks).eval())
    return pipe


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


@pytest.fixture(params=[sd, sdxl, sdxl_in_its_blocks])
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
    if len(pipe.unet.down_blocks) == 3 and not READS_POOLED:
        with pytest.raises(ValueError, match="label_emb_0_0"):
            pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
        return
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    after = weights(pipe)
    assert set(after) == set(before)
    for name, weight in before.items():
        arrives = name in deltas and (READS_POOLED or ".add_embedding." not in name)
        expected = weight + deltas[name].dense() if arrives else weight
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_whole_changes_are_refused_not_passed_over(pipe, tmp_path: Path, kind: str) -> None:
    """diffusers reads low-rank changes only, and says so: whole ones, as of biases, need ComfyUI or our own loader."""
    name = f"text_encoder.text_model.encoder.layers.0.mlp.fc1.{kind}"
    path = made({name: Dense(torch.ones_like(weights(pipe)[name]))}).save(tmp_path / "erasure.safetensors")
    with pytest.raises(ValueError, match=r"(?s)not been correctly renamed.*mlp_fc1\.diff"):
        pipe.load_lora_weights(str(tmp_path), weight_name=path.name)


def test_kohya_knows_sdxl_by_its_checkpoints_names(tmp_path: Path) -> None:
    """The file that ``test_every_change_arrives`` loads is the one that sd-scripts have modules for."""
    pipe = sdxl_in_its_blocks()
    deltas = {
        f"unet.{name}.weight": LowRank(torch.randn(module.out_features, 2), torch.randn(2, module.in_features))
        for name, module in pipe.unet.named_modules()
        if name.endswith(("attn2.to_k", "attn2.to_v", "add_embedding.linear_1"))
    }
    path = made(deltas).save(tmp_path / "erasure.safetensors")
    with safe_open(path, "pt") as file:
        found = {key.split(".")[0] for key in file.keys()}  # noqa: SIM118
    depths = {"input_blocks_4_1": 2, "input_blocks_5_1": 2, "input_blocks_7_1": 3, "input_blocks_8_1": 3,
              "middle_block_1": 3, "output_blocks_0_1": 3, "output_blocks_1_1": 3, "output_blocks_2_1": 3,
              "output_blocks_3_1": 2, "output_blocks_4_1": 2, "output_blocks_5_1": 2}  # fmt: skip
    assert found == {"lora_unet_label_emb_0_0"} | {
        f"lora_unet_{block}_transformer_blocks_{i}_attn2_to_{kind}"
        for block, depth in depths.items()
        for i in range(depth)
        for kind in "kv"
    }


SMALL = {"in_channels": 4, "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
LUMINA = {
    "in_channels": 4, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 24,
    "dim": 32, "axes_dims": [4, 4, 8], "axes_lens": [64, 16, 16], "all_patch_size": (2,), "all_f_patch_size": (1,),
}  # fmt: skip
FLUX = SMALL | {"patch_size": 1, "num_single_layers": 1, "joint_attention_dim": 24, "axes_dims_rope": (4, 4, 8)}
SD3 = SMALL | {"sample_size": 8, "patch_size": 1, "joint_attention_dim": 24, "caption_projection_dim": 32}
VIDEO = SMALL | {"out_channels": 4}
TEXT, POOLED = "time_text_embed.text_embedder.linear_1", {"pooled_projection_dim": 20}
READ = {
    "Flux": ("Flux", "FluxTransformer2DModel", FLUX | POOLED,
             {"txt_in": "context_embedder", "vector_in.in_layer": TEXT}),
    "Flux 2": ("Flux2", "Flux2Transformer2DModel", FLUX | {"axes_dims_rope": (4, 4, 4, 4)},
               {"txt_in": "context_embedder"}),
    "SD 3": ("StableDiffusion3", "SD3Transformer2DModel", SD3 | POOLED | {"out_channels": 4},
             {"context_embedder": "context_embedder", "y_embedder.mlp.0": TEXT}),
    "AuraFlow": ("AuraFlow", "AuraFlowTransformer2DModel",
                 {key: value for key, value in SD3.items() if key != "num_layers"}
                 | {"num_mmdit_layers": 1, "num_single_dit_layers": 1, "pos_embed_max_size": 64, "out_channels": 4},
                 {"cond_seq_linear": "context_embedder"}),
    "Qwen-Image": ("QwenImage", "QwenImageTransformer2DModel",
                   VIDEO | {"in_channels": 16, "joint_attention_dim": 24, "axes_dims_rope": (4, 4, 8)},
                   {"txt_in": "txt_in"}),
    "Z-Image": ("ZImage", "ZImageTransformer2DModel", LUMINA, {"cap_embedder.1": "cap_embedder.1"}),
    "LTX-Video": ("LTX", "LTXVideoTransformer3DModel", VIDEO | {"cross_attention_dim": 32, "caption_channels": 24},
                  {"caption_projection.linear_1": "caption_projection.linear_1"}),
    "HiDream": ("HiDreamImage", "HiDreamImageTransformer2DModel",
                VIDEO | {"patch_size": 2, "num_single_layers": 1, "caption_channels": [24, 16], "text_emb_dim": 20,
                         "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": (8, 4, 4),
                         "max_resolution": (16, 16), "llama_layers": (0, 1)},
                {name: name for name in ("caption_projection.0.linear", "caption_projection.1.linear",
                                         "caption_projection.2.linear", "p_embedder.pooled_embedder.linear_1")}),
}  # fmt: skip
"""By family: the pipeline, its transformer, and the layers that text enters through, ComfyUI's names to diffusers'."""
NOT_READ = {
    "Chroma": ("Chroma", "ChromaTransformer2DModel",
               FLUX | {"approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 1},
               {"txt_in": "context_embedder"}),
    "Wan": ("Wan", "WanTransformer3DModel",
            VIDEO | {"text_dim": 24, "freq_dim": 16, "ffn_dim": 32, "rope_max_seq_len": 32},
            {"text_embedding.0": "condition_embedder.text_embedder.linear_1"}),
    "Mochi": ("Mochi", "MochiTransformer3DModel",
              SMALL | POOLED | {"text_embed_dim": 24, "time_embed_dim": 16, "max_sequence_length": 6},
              {"t5_y_embedder.to_kv": "time_embed.pooler.to_kv", "t5_y_embedder.to_q": "time_embed.pooler.to_q",
               "t5_yproj": "time_embed.caption_proj"}),
    "HunyuanVideo": ("HunyuanVideo", "HunyuanVideoTransformer3DModel",
                     VIDEO | POOLED | {"num_single_layers": 1, "num_refiner_layers": 1, "text_embed_dim": 24,
                                       "rope_axes_dim": (4, 4, 8)},
                     {"txt_in.input_embedder": "context_embedder.proj_in", "vector_in.in_layer": TEXT,
                      "txt_in.c_embedder.in_layer": f"context_embedder.{TEXT}"}),
    "Lumina 2": ("Lumina2", "Lumina2Transformer2DModel",
                 {"sample_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 32, "num_layers": 1,
                  "num_refiner_layers": 1, "num_attention_heads": 2, "num_kv_heads": 1, "cap_feat_dim": 24,
                  "axes_dim_rope": (4, 4, 8), "axes_lens": (64, 16, 16), "multiple_of": 8},
                 {"cap_embedder.1": "time_caption_embed.caption_embedder.1"}),
}  # fmt: skip


class Transformer:
    """A family's transformer of a few thousand weights, and a file as ComfyUI's nodes save one for it."""

    def __init__(self, kind: str, model: str, config: dict, names: dict[str, str], folder: Path):
        torch.manual_seed(0)
        self.pipeline = getattr(diffusers, f"{kind}Pipeline")
        self.module = getattr(diffusers, model)(**config).eval()
        self.before = {name: weight.detach().clone() for name, weight in self.module.named_parameters()}
        shapes = {ours: self.before[f"{theirs}.weight"].shape for ours, theirs in names.items()}
        deltas = {ours: LowRank(torch.randn(n, 2), 0.1 * torch.randn(2, m)) for ours, (n, m) in shapes.items()}
        self.erasure = made({f"unet.{ours}.weight": delta for ours, delta in deltas.items()})
        self.changes = {f"{theirs}.weight": deltas[ours].dense() for ours, theirs in names.items()}
        self.folder = folder
        self.erasure.save(folder / "erasure.safetensors")

    def load(self) -> dict[str, torch.Tensor]:
        """The weights after the pipeline's own loader has read the file; all its other parts are missing."""
        parts = inspect.signature(self.pipeline.__init__).parameters.values()
        missing = dict.fromkeys(one.name for one in parts if one.default is one.empty and one.name != "self")
        pipe = self.pipeline(**missing | {"transformer": self.module})
        pipe.load_lora_weights(str(self.folder), weight_name="erasure.safetensors")
        self.module.fuse_lora()
        self.module.unload_lora()
        return dict(self.module.named_parameters())


@pytest.mark.parametrize("name", READ if READS_POOLED else sorted(READ.keys() - {"Flux 2", "Qwen-Image", "Z-Image"}))
def test_every_change_of_a_transformer_arrives(name: str, tmp_path: Path) -> None:
    one = Transformer(*READ[name], tmp_path)
    after = one.load()
    assert set(after) == set(one.before)
    for key, weight in one.before.items():
        torch.testing.assert_close(after[key], weight + one.changes.get(key, 0), rtol=1e-4, atol=1e-5)
    assert name in readers_of(one.erasure).split("diffusers (0.39 and newer) for ")[1]


@pytest.mark.parametrize("name", NOT_READ)
def test_what_diffusers_does_not_read_is_not_said_to_be_read(name: str, tmp_path: Path) -> None:
    """Of these it reads nothing, or says that it cannot: never a part."""
    one = Transformer(*NOT_READ[name], tmp_path)
    try:
        after = one.load()
    except (ValueError, IndexError):
        after = one.before
    assert all(torch.equal(after[key], weight) for key, weight in one.before.items())
    assert name not in readers_of(one.erasure)


def test_context_maps_in_a_tensor_are_passed_over(pipe, tmp_path: Path, monkeypatch, caplog) -> None:
    """Those that the header cannot hold: diffusers leaves them out, and says so; all changes arrive."""
    monkeypatch.setattr(erasure_file, "MOST_IN_HEADER", 0)
    before = weights(pipe)
    name = next(name for name in before if name.endswith("attn2.to_k.weight"))
    change = LowRank(torch.randn(len(before[name]), 2), 0.1 * torch.randn(2, before[name].shape[1]))
    one = ContextMap(LowRank(torch.randn(before[name].shape[1], 2), change.down), (name,))
    path = replace(made({name: change}), maps={"context": one}).save(tmp_path / "erasure.safetensors")
    assert MAPS in load_file(path) and torch.equal(Erasure.load(path).maps["context"].change.up, one.change.up)
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    assert "dora_scale" in caplog.text
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    after = weights(pipe)
    for other, weight in before.items():
        expected = weight + change.dense() if other == name else weight
        torch.testing.assert_close(after[other], expected, rtol=1e-4, atol=1e-5)
