"""Weights of ComfyUI-GGUF itself: not among the tests, since that pack is on no registry.

COMFYUI_GGUF names a clone of it, and the package ``gguf`` has to be there; run as ``test_inside.run_inside`` does.
"""

import importlib.util
import os
import sys

import comfy.ops
import comfy.sample
import comfy.sd
import comfy.utils
import folder_paths
import make_checkpoint
import pytest
import torch
from pack.erasure_core import rece
from pack.erasure_core.model import entry_weights
from pack.nodes.comfy_host.model import ComfyModel
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.weights import stored

LAYER = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
NAME = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
REAL = os.environ["COMFYUI_GGUF"]


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q4_0"])
def test_with_the_pack_itself(tmp_path, monkeypatch, kind):
    import gguf

    checkpoint, unet = tmp_path / "sd15.safetensors", tmp_path / "sd15.gguf"
    make_checkpoint.make("sd15", checkpoint)
    file = comfy.utils.load_torch_file(str(checkpoint))
    writer = gguf.GGUFWriter(unet, "sd1")
    for name, weight in file.items():
        if name.startswith(make_checkpoint.UNET):
            kept = gguf.GGMLQuantizationType[kind if weight.ndim == 2 else "F16" if weight.ndim > 1 else "F32"]
            numbers = gguf.quants.quantize(weight.float().numpy(), kept)
            writer.add_tensor(name.removeprefix(make_checkpoint.UNET), numbers, raw_dtype=kept)
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()

    spec = importlib.util.spec_from_file_location("gguf_pack", f"{REAL}/__init__.py", submodule_search_locations=[REAL])
    sys.modules["gguf_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["gguf_pack"])
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(unet))
    (model,) = sys.modules["gguf_pack"].NODE_CLASS_MAPPINGS["UnetLoaderGGUF"]().load_unet("sd15.gguf")
    _, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), te_model_options=make_checkpoint.SMALL_TEXT)

    own = file["model." + LAYER + ".weight"].float()
    assert stored(model, LAYER + ".weight").precision == f"GGUF {kind}"
    seen = ComfyModel(model, clip)
    read = entry_weights(seen)[NAME]
    assert 0 < (read - own).norm() < 0.1 * own.norm()
    erasure = rece(seen, "cat -> dog")
    edited, _ = apply_erasure(model, clip, erasure)
    before, after = sampled(model, clip), sampled(edited, clip)
    assert torch.equal(entry_weights(seen)[NAME], read)
    assert not torch.allclose(before, after) and torch.equal(sampled(model, clip), before)


def sampled(model, clip) -> torch.Tensor:
    context = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    empty = torch.zeros(1, 4, 8, 8)
    return comfy.sample.sample(model, noise, 1, 2.0, "euler", "normal", context, context, empty, seed=1)
