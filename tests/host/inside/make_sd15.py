"""Writes a full-size SD 1.5 checkpoint of random weights in fp16, 2 GB: ``make_sd15.py FILE``, ComfyUI on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from conftest import load_comfy
from safetensors.torch import save_file

load_comfy()

import comfy.ldm.models.autoencoder  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.supported_models  # noqa: E402

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
    "context_dim": 768, "use_spatial_transformer": True, "use_linear_in_transformer": False,
    "use_temporal_attention": False, "adm_in_channels": None, "legacy": False, "dtype": torch.float16,
}  # fmt: skip
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    """Every weight's name in the file, and its shape."""
    with torch.device("meta"):
        parts = {
            "model.": comfy.supported_models.SD15(UNET).get_model({}, device="meta"),
            "cond_stage_model.": comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16).clip_l,
            "first_stage_model.": comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=VAE, embed_dim=4),
        }
    named = {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}
    unknown = ("logit_scale", "text_projection.weight")
    kept = {name: value for name, value in named.items() if not name.endswith(unknown) and "model_sampling" not in name}
    return {name: tuple(value.shape) for name, value in kept.items()}


def filled(shape: tuple[int, ...], pool: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Weights that keep activations near 1, cut from a pool of normal numbers; norms at 1."""
    if len(shape) < 2:
        return torch.ones(shape, dtype=torch.float16)
    count = torch.Size(shape).numel()
    start = int(torch.randint(len(pool) // 2, (1,), generator=draw))
    repeats = -(-(start + count) // len(pool))
    numbers = pool.repeat(repeats)[start : start + count] if repeats > 1 else pool[start : start + count]
    return (numbers.reshape(shape) / torch.Size(shape[1:]).numel() ** 0.5).half()


def main(path: str) -> None:
    draw = torch.Generator().manual_seed(0)
    pool = torch.randn(8_000_000, generator=draw)
    tensors = {}
    for name, shape in shapes().items():
        tensors[name] = torch.zeros(shape).half() if name.endswith("bias") else filled(shape, pool, draw)
    save_file(tensors, path)
    print(f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors.values()) / 1e6:.0f} M weights")


if __name__ == "__main__":
    main(sys.argv[1])
