"""The embedded model in ComfyUI's own classes, from the weights that diffusers' and transformers' read."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from ...erasure_core.toy import config
from ...erasure_core.toy.captions import learned_words

TAESD = 64  # channels, fixed in ComfyUI


def load_toy():
    """Return MODEL, CLIP and VAE of the embedded model in float32, with normal tensors, so that they can be trained."""
    with torch.inference_mode(False):
        return _model(), _clip(), _vae()


def empty_latent() -> dict[str, Tensor]:
    """Return a LATENT of one picture of the embedded model's size."""
    size = config.UNET["sample_size"]
    shape = (1, config.VAE["latent_channels"], size, size)
    return {"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())}


def is_toy(model) -> bool:
    """Return whether a MODEL is the embedded one, patched or not."""
    return isinstance(getattr(model.model, "model_config", None), _Config)


class _Ratio(Fraction):
    """A factor for ComfyUI's base width: 96 times 4/3 must be the int 128."""

    def __mul__(self, other):
        return int(super().__mul__(other))

    __rmul__ = __mul__


class _Latents(comfy.latent_formats.LatentFormat):
    """The toy's latents. Their colours are not linear in them, so that a sampler's previews decode them first."""

    latent_channels = config.VAE["latent_channels"]
    scale_factor = config.VAE["scaling_factor"]
    latent_rgb_factors = torch.eye(3).tolist()

    def latent_rgb_factors_reshape(self, latents: Tensor) -> Tensor:
        """Return the images ``[n, 3, h, w]`` of latents, with values from -1 to 1, on the CPU."""
        return _decoder().decode(latents.float().cpu())


class _Denoiser(comfy.model_base.BaseModel):
    """The toy's denoiser, which has learned pictures of one size only."""

    def extra_conds(self, **given):
        """Return the conditions of a sampling. Raises ``ValueError`` for latents of another size."""
        if given.get("noise") is not None:
            self.check_size(given["noise"])
        return super().extra_conds(**given)

    def check_size(self, latents: Tensor) -> None:
        """Raise ``ValueError`` for latents ``[n, c, h, w]`` of another size than the toy's."""
        side, size = config.PICTURE, config.UNET["sample_size"]
        height, width = (side // size * one for one in latents.shape[-2:])
        if (height, width) != (side, side):
            raise ValueError(
                f"the toy model draws {side} x {side} pixels and nothing else, got {width} x {height}; connect the "
                "LATENT of 'Load Toy Model (Erasure)', or set Empty Latent Image, or scale your pictures, to that size"
            )


class _Config(comfy.supported_models.SD15):
    unet_extra_config = {"num_heads": config.UNET["attention_head_dim"], "num_head_channels": -1}
    latent_format = _Latents
    supported_inference_dtypes = [torch.float32]
    sampling_settings = {"linear_start": config.SCHEDULE["beta_start"], "linear_end": config.SCHEDULE["beta_end"]}

    @property
    def vocabulary(self) -> frozenset[str]:
        return learned_words()

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self):
        return False

    def get_model(self, state_dict, prefix="", device=None):
        return _Denoiser(self, model_type=self.model_type(state_dict, prefix), device=device)


class _TextEncoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(config.TEXT_ENCODER),
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class _ClipModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=_TextEncoder)


def _unet_config() -> dict:
    widths, layers = config.UNET["block_out_channels"], config.UNET["layers_per_block"]
    crossed = ["CrossAttn" in kind for kind in config.UNET["down_block_types"]]
    return {
        "image_size": config.UNET["sample_size"],
        "in_channels": config.UNET["in_channels"],
        "out_channels": config.UNET["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [_Ratio(width, widths[0]) for width in widths],
        "num_res_blocks": [layers] * len(widths),
        "transformer_depth": [int(cross) for cross in crossed for _ in range(layers)],
        "transformer_depth_output": [int(cross) for cross in crossed for _ in range(layers + 1)],
        "transformer_depth_middle": -2 if config.UNET["mid_block_type"] is None else 1,
        "context_dim": config.UNET["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_temporal_attention": False,
        "adm_in_channels": None,
        "use_checkpoint": False,
        "legacy": False,
    }


def _model():
    settings = _Config(_unet_config())
    settings.set_inference_dtype(torch.float32, None)
    model = settings.get_model({})
    names = comfy.utils.unet_to_diffusers(settings.unet_config)
    tensors = {names[name]: tensor for name, tensor in config.weights("unet").items()}
    model.diffusion_model.load_state_dict(tensors)
    offload = comfy.model_management.unet_offload_device()
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model.to(offload), load_device=device, offload_device=offload)


def _clip():
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, _ClipModel)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    tensors = config.weights("text_encoder")
    tensors["text_projection.weight"] = torch.eye(config.TEXT_ENCODER["hidden_size"])
    missing, unexpected = clip.load_sd(tensors)
    if missing or unexpected:
        raise ValueError(f"the text encoder's weights do not fit: missing {missing}, unexpected {unexpected}")
    return clip


def _vae():
    tensors = {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}
    for name, tensor in config.weights("vae").items():
        part, _, number, rest = name.split(".", 3)
        place = int(number) + (part == "decoder")  # ComfyUI's decoder starts with a clamp of its own
        tensors[f"taesd_{part}.{place}.{rest}"] = _padded(tensor)
    return comfy.sd.VAE(sd=tensors, dtype=torch.float32)


@cache
def _decoder():
    with torch.inference_mode(False):
        return _vae().first_stage_model


def _padded(tensor: Tensor) -> Tensor:
    """Pad inner channels with zeros, which changes no output: every layer between is a ReLU or an upsampling."""
    ends = (3, config.VAE["latent_channels"])
    shape = [size if size in ends or place > 1 else TAESD for place, size in enumerate(tensor.shape)]
    padded = torch.zeros(shape)
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    return padded
