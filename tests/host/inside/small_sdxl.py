"""A small SDXL of random weights in ComfyUI's own classes: two text encoders, a pooled vector, sizes."""

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import torch

WIDTHS = {"l": 32, "g": 48}
SIZES = 6 * 256  # the embedded sizes
POOLED = WIDTHS["g"]
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2],
    "num_res_blocks": [1, 1], "transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2],
    "transformer_depth_middle": 2, "context_dim": sum(WIDTHS.values()), "use_spatial_transformer": True,
    "use_linear_in_transformer": True, "use_temporal_attention": False, "num_classes": "sequential",
    "adm_in_channels": POOLED + SIZES, "legacy": False, "num_heads": -1, "num_head_channels": 16,
}  # fmt: skip


def _config(width: int) -> dict:
    return {
        "vocab_size": 49408, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 77, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "projection_dim": width, "eos_token_id": 49407, "bos_token_id": 49406,
    }  # fmt: skip


class _Towers(comfy.sdxl_clip.SDXLClipModel):
    """As SDXL has them, but narrow."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        torch.nn.Module.__init__(self)
        shared = {
            "device": device, "dtype": dtype, "layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False,
        }  # fmt: skip
        self.clip_l = comfy.sd1_clip.SDClipModel(textmodel_json_config=_config(WIDTHS["l"]), **shared)
        self.clip_g = comfy.sd1_clip.SDClipModel(
            textmodel_json_config=_config(WIDTHS["g"]), special_tokens={"start": 49406, "end": 49407, "pad": 0},
            return_projected_pooled=True, **shared,
        )  # fmt: skip
        self.dtypes = {dtype}


def fill(module: torch.nn.Module, seed: int) -> None:
    """Random weights that keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim < 2:
                weight.fill_(1.0)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)


def model(dtype: torch.dtype = torch.float32, **config):
    """MODEL."""
    settings = comfy.supported_models.SDXL({**UNET, **config})
    settings.set_inference_dtype(dtype, None)
    inner = settings.get_model({})
    fill(inner.diffusion_model, 0)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(inner, device, comfy.model_management.unet_offload_device())


def clip():
    """CLIP."""
    target = comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, _Towers)
    made = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    fill(made.cond_stage_model, 1)
    return made
