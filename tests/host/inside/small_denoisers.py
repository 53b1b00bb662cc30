"""Small models with random weights of ComfyUI's own classes, one for each family, and where text enters them.

The expected layers were read from ComfyUI's code (``comfy/ldm``), not from what the tracer says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import comfy.ldm.flux.model
import comfy.model_patcher
import comfy.supported_models
import torch

TOKENS, WIDTH, POOLED = 6, 24, 20
HEADS = {"num_heads": 2, "axes_dim": [8, 12, 12], "hidden_size": 64}
UNET = {
    "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 64, "channel_mult": [1, 2],
    "num_res_blocks": [1, 1], "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1, "context_dim": WIDTH, "use_spatial_transformer": True,
    "use_linear_in_transformer": False, "use_temporal_attention": False, "adm_in_channels": None, "legacy": False,
}  # fmt: skip
FLUX = HEADS | {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED, "context_in_dim": WIDTH,
    "mlp_ratio": 2.0, "depth": 1, "depth_single_blocks": 1, "theta": 10000, "patch_size": 2, "qkv_bias": True,
    "guidance_embed": True,
}  # fmt: skip
CHROMA = HEADS | {
    "image_model": "chroma", "in_channels": 64, "out_channels": 64, "context_in_dim": WIDTH, "mlp_ratio": 2.0,
    "depth": 1, "depth_single_blocks": 1, "theta": 10000, "patch_size": 2, "qkv_bias": True, "in_dim": 64,
    "out_dim": 64, "hidden_dim": 64, "n_layers": 1,
}  # fmt: skip
RADIANCE = {
    "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16, "nerf_hidden_size": 16,
    "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 4, "nerf_tile_size": 512,
    "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32,
}  # fmt: skip
HUNYUAN_VIDEO = HEADS | {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED,
    "context_in_dim": WIDTH, "mlp_ratio": 2.0, "depth": 1, "depth_single_blocks": 1, "theta": 256,
    "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False,
    "use_cond_type_embedding": False, "vision_in_dim": None,
}  # fmt: skip
if "txt_ids_dims" in comfy.ldm.flux.model.FluxParams.__dataclass_fields__:  # newer hosts ask for more
    FLUX |= {"txt_ids_dims": []}
    CHROMA |= {"txt_ids_dims": [], "vec_in_dim": None}
    RADIANCE |= {"use_x0": False, "use_sequential_txt_ids": False}
    HUNYUAN_VIDEO |= {"meanflow_sum": False}
COSMOS = {
    "max_img_h": 64, "max_img_w": 64, "max_frames": 8, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 96, "num_blocks": 1, "num_heads": 2,
    "mlp_ratio": 2.0, "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d", "use_adaln_lora": True,
    "adaln_lora_dim": 16,
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 96, "n_layers": 1, "n_refiner_layers": 1,
    "n_heads": 2, "n_kv_heads": 1, "multiple_of": 8, "ffn_dim_multiplier": 1.0, "norm_eps": 1e-5, "qk_norm": True,
    "cap_feat_dim": WIDTH, "axes_dims": [16, 16, 16], "axes_lens": [300, 64, 64],
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 96, "out_dim": 16, "num_heads": 2, "ffn_dim": 128,
    "num_layers": 1, "patch_size": (1, 2, 2), "freq_dim": 256, "in_dim": 16, "text_dim": WIDTH, "qk_norm": True,
    "cross_attn_norm": True, "eps": 1e-6,
}  # fmt: skip
MASK = {"attention_mask": torch.ones(1, TOKENS, dtype=torch.long)}
WHOLE = (0, WIDTH)
BLOCKS = ("input_blocks.1", "input_blocks.3", "middle_block", "output_blocks.0", "output_blocks.1", "output_blocks.2",
          "output_blocks.3")  # fmt: skip
CROSS = {
    f"{block}.1.transformer_blocks.0.attn2.{kind}": ("context", "text", WHOLE)
    for block in BLOCKS
    for kind in ("to_k", "to_v")
}


def pooled(name: str, width: int = POOLED) -> dict[str, tuple]:
    return {name: ("pooled", "text", (0, width))}


def context(*names: str, kind: str = "text") -> dict[str, tuple]:
    return {name: ("context", kind, WHOLE) for name in names}


@dataclass(frozen=True)
class Family:
    """``entries`` are by layer the text that it reads, the entry's kind and its columns."""

    config: str
    unet: dict
    entries: dict[str, tuple]
    options: dict = field(default_factory=dict)
    leaks: tuple[str, ...] = ()
    unread: tuple[str, ...] = ("pooled",)


FAMILIES = {
    "SD 1.x": Family("SD15", UNET, CROSS),
    "SD 1.x, 9 channels": Family("SD15", UNET | {"in_channels": 9}, CROSS),
    "SD 1.x, instruct": Family("SD15_instructpix2pix", UNET | {"in_channels": 8}, CROSS),
    "SD 2.x": Family("SD20", UNET | {"use_linear_in_transformer": True}, CROSS),
    "SDXL": Family(
        "SDXL",
        UNET | {"use_linear_in_transformer": True, "adm_in_channels": POOLED + 6 * 256, "num_classes": "sequential"},
        CROSS | pooled("label_emb.0.0"),
        unread=(),
    ),
    "SDXL refiner": Family(
        "SDXLRefiner",
        UNET | {"use_linear_in_transformer": True, "adm_in_channels": POOLED + 5 * 256, "num_classes": "sequential"},
        CROSS | pooled("label_emb.0.0"),
        unread=(),
    ),
    "Stable Cascade, stage C": Family(
        "Stable_Cascade_C",
        {"stable_cascade_stage": "c", "c_cond": 32, "c_hidden": [32, 32], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]],
         "c_clip_text": WIDTH, "c_clip_text_pooled": POOLED},
        context("clip_txt_mapper") | pooled("clip_txt_pooled_mapper"),
        unread=(),
    ),
    "Stable Cascade, stage B": Family(
        "Stable_Cascade_B",
        {"stable_cascade_stage": "b", "c_hidden": [32, 32, 32, 32], "nhead": [-1, 2, 2, 2], "c_cond": 32,
         "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]], "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]], "c_clip": POOLED},
        pooled("clip_mapper"),
        unread=("context",),
    ),
    "SD 3": Family(
        "SD3",
        {"in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": 2, "input_size": None,
         "adm_in_channels": POOLED, "num_patches": 256, "pos_embed_max_size": 16, "qk_norm": "rms",
         "pos_embed_scaling_factor": None, "x_block_self_attn_layers": [],
         "context_embedder_config": {
             "target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128}}},
        context("context_embedder") | pooled("y_embedder.mlp.0"),
        unread=(),
    ),
    "AuraFlow": Family(
        "AuraFlow",
        {"dim": 64, "n_layers": 2, "n_double_layers": 1, "n_heads": 2, "global_conddim": 64, "cond_seq_dim": WIDTH,
         "max_seq": 256},
        context("cond_seq_linear"),
    ),
    "PixArt alpha": Family(
        "PixArtAlpha",
        {"image_model": "pixart_alpha", "hidden_size": 96, "depth": 1, "num_heads": 2, "caption_channels": WIDTH,
         "model_max_length": TOKENS, "micro_condition": True},
        context("y_embedder.y_proj.fc1"),
    ),
    "PixArt sigma": Family(
        "PixArtSigma",
        {"image_model": "pixart_sigma", "hidden_size": 96, "depth": 1, "num_heads": 2, "caption_channels": WIDTH,
         "model_max_length": TOKENS, "micro_condition": False, "pe_interpolation": 2},
        context("y_embedder.y_proj.fc1"),
    ),
    "HunyuanDiT": Family(
        "HunyuanDiT",
        {"image_model": "hydit", "depth": 2, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2.0,
         "text_states_dim": WIDTH, "text_states_dim_t5": 16, "text_len": TOKENS, "text_len_t5": 10},
        context("blocks.0.attn2.kv_proj", "blocks.1.attn2.kv_proj")
        | {"mlp_t5.0": ("conditioning_mt5xl", "text", (0, 16))},
        options=MASK | {"conditioning_mt5xl": torch.randn(1, 10, 16),
                        "attention_mask_mt5xl": torch.ones(1, 10, dtype=torch.long)},
        leaks=("pooler.k_proj", "pooler.q_proj", "pooler.v_proj"),
    ),
    "Flux": Family("Flux", FLUX, context("txt_in") | pooled("vector_in.in_layer"), unread=()),
    "Flux fill": Family(
        "FluxInpaint", FLUX | {"in_channels": 96}, context("txt_in") | pooled("vector_in.in_layer"), unread=()
    ),
    "Flux schnell": Family(
        "FluxSchnell", FLUX | {"guidance_embed": False}, context("txt_in") | pooled("vector_in.in_layer"), unread=()
    ),
    "Flux 2": Family(
        "Flux2",
        FLUX | {"image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None,
                "axes_dim": [8, 8, 8, 8], "global_modulation": True, "mlp_silu_act": True, "qkv_bias": False,
                "ops_bias": False},
        context("txt_in"),
    ),
    "Chroma": Family("Chroma", CHROMA, context("txt_in")),
    "Chroma Radiance": Family("ChromaRadiance", CHROMA | RADIANCE, context("txt_in")),
    "Lumina 2": Family("Lumina2", LUMINA, context("cap_embedder.1", kind="rows"), options=MASK),
    "Z-Image": Family(
        "ZImage",
        LUMINA | {"z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 8, "n_kv_heads": 2},
        context("cap_embedder.1", kind="rows"),
        options=MASK,
    ),
    "Qwen-Image": Family(
        "QwenImage",
        {"image_model": "qwen_image", "in_channels": 64, "out_channels": 16, "num_layers": 1,
         "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": WIDTH,
         "axes_dims_rope": (8, 12, 12)},
        context("txt_in", kind="rows"),
    ),
    "OmniGen 2": Family(
        "Omnigen2",
        {"image_model": "omnigen2", "hidden_size": 96, "num_attention_heads": 2, "num_kv_heads": 1, "num_layers": 1,
         "num_refiner_layers": 1, "axes_dim_rope": [16, 16, 16], "axes_lens": [64, 64, 64], "multiple_of": 8,
         "text_feat_dim": WIDTH, "timestep_scale": 1000.0},
        context("time_caption_embed.caption_embedder.1", kind="rows"),
        options=MASK,
    ),
    "HiDream": Family(
        "HiDream",
        {"image_model": "hidream", "attention_head_dim": 32, "num_attention_heads": 2, "axes_dims_rope": [16, 8, 8],
         "caption_channels": [WIDTH, 16], "max_resolution": [64, 64], "in_channels": 16, "out_channels": 16,
         "llama_layers": [0, 2], "num_routed_experts": 2, "num_activated_experts": 1, "num_layers": 1,
         "num_single_layers": 1, "patch_size": 2, "text_emb_dim": POOLED},
        context("caption_projection.2.linear")
        | pooled("p_embedder.pooled_embedder.linear_1")
        | {f"caption_projection.{i}.linear": ("conditioning_llama3", "text", (0, 16)) for i in range(2)},
        options={"conditioning_llama3": torch.randn(1, 3, 5, 16)},
        unread=(),
    ),
    "HunyuanVideo": Family(
        "HunyuanVideo",
        HUNYUAN_VIDEO,
        context("txt_in.input_embedder", "txt_in.c_embedder.in_layer") | pooled("vector_in.in_layer"),
        options=MASK,
        unread=(),
    ),
    "HunyuanImage 2.1": Family(
        "HunyuanImage21",
        HUNYUAN_VIDEO | {"in_channels": 64, "out_channels": 64, "patch_size": [1, 1], "axes_dim": [16, 16],
                         "vec_in_dim": None, "byt5": True, "meanflow": True},
        context("txt_in.input_embedder", "txt_in.c_embedder.in_layer")
        | {"byt5_in.fc1": ("conditioning_byt5small", "rows", (0, 1472))},
        options=MASK | {"conditioning_byt5small": torch.randn(1, 4, 1472)},
    ),
    "HunyuanVideo 1.5": Family(
        "HunyuanVideo15",
        HUNYUAN_VIDEO | {"in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None,
                         "byt5": True, "use_cond_type_embedding": True, "vision_in_dim": 16},
        context("txt_in.input_embedder", "txt_in.c_embedder.in_layer")
        | {"byt5_in.fc1": ("conditioning_byt5small", "rows", (0, 1472))},
        options={"conditioning_byt5small": torch.randn(1, 4, 1472)},
    ),
    "Wan 2.1": Family("WAN21_T2V", WAN, context("text_embedding.0")),
    "Wan 2.1, image to video": Family(
        "WAN21_I2V", WAN | {"model_type": "i2v", "in_dim": 36}, context("text_embedding.0")
    ),
    "Wan 2.2": Family("WAN22_T2V", WAN | {"in_dim": 48, "out_dim": 48}, context("text_embedding.0")),
    "LTX-Video": Family(
        "LTXV",
        {"image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32,
         "num_attention_heads": 2, "caption_channels": WIDTH, "num_layers": 1},
        context("caption_projection.linear_1"),
        options=MASK,
    ),
    "Mochi": Family(
        "GenmoMochi",
        {"image_model": "mochi_preview", "depth": 2, "patch_size": 2, "num_heads": 2, "hidden_size_x": 64,
         "hidden_size_y": 32, "mlp_ratio_x": 192, "mlp_ratio_y": 2.0, "learn_sigma": False, "in_channels": 12,
         "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
         "timestep_mlp_bias": True, "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": WIDTH,
         "t5_token_length": TOKENS},
        context("t5_y_embedder.to_kv", "t5_y_embedder.to_q", "t5_yproj"),
        options=MASK,
    ),
    "Cosmos": Family(
        "CosmosT2V",
        COSMOS | {"image_model": "cosmos", "block_config": "FA-CA-MLP", "block_x_format": "THWBD",
                  "affline_emb_norm": True, "extra_per_block_abs_pos_emb": True,
                  "extra_per_block_abs_pos_emb_type": "learnable"},
        context("blocks.block0.blocks.1.block.attn.to_k.0", "blocks.block0.blocks.1.block.attn.to_v.0"),
    ),
    "Cosmos Predict 2": Family(
        "CosmosT2IPredict2",
        COSMOS | {"image_model": "cosmos_predict2", "rope_enable_fps_modulation": False},
        context("blocks.0.cross_attn.k_proj", "blocks.0.cross_attn.v_proj"),
    ),
}  # fmt: skip


def small(
    family: Family, dtype: torch.dtype = torch.float32, compute: torch.dtype | None = None
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of the family, on the CPU, stored as ``dtype`` and computed in ``compute`` where that is another."""
    settings = getattr(comfy.supported_models, family.config)(family.unet)
    settings.set_inference_dtype(dtype, None if compute == dtype else compute)
    model = settings.get_model({}, device="cpu")
    draw = torch.Generator().manual_seed(0)
    for parameter in model.diffusion_model.parameters():
        values = torch.randn(parameter.shape, generator=draw) / max(1, parameter[0:1].numel()) ** 0.5
        parameter.data.copy_(values if parameter.ndim > 1 else 1 + values / 4)
    for name, buffer in model.diffusion_model.named_buffers():
        if name == "pos_embed":
            buffer.copy_(torch.randn(buffer.shape, generator=draw))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def conditioning(family: Family) -> list:
    """A CONDITIONING of the shape that the family's text encoders give."""
    draw = torch.Generator().manual_seed(1)
    texts = {"pooled_output": torch.randn(1, POOLED, generator=draw)}
    return [[torch.randn(1, TOKENS, WIDTH, generator=draw), texts | family.options]]
