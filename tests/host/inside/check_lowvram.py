"""A model that is partly in the device's memory, as ``--lowvram`` and ``--novram`` leave it.

Those options need a GPU, and ComfyUI takes neither beside ``--cpu``; what they do to a model can be asked of it.
"""

import comfy.model_management
import comfy.sd
import make_checkpoint
import pytest
import torch
from pack.erasure_core import rece
from pack.erasure_core.model import entry_weights, fingerprint
from pack.nodes.comfy_host.model import ComfyModel, text_weights
from pack.nodes.comfy_host.patches import apply_erasure

CPU = torch.device("cpu")
ROOM = {"half of it": 80_000_000, "next to nothing": 1}
"""Bytes of the weights that may be loaded."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = tmp_path_factory.mktemp("lowvram") / "sd15.safetensors"
    make_checkpoint.make("sd15", path)
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(path), te_model_options=make_checkpoint.SMALL_TEXT)
        path.unlink()
        return model, clip, rece(ComfyModel(model, clip), "van gogh -> art")


def predicted(patcher, context: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return patcher.model.apply_model(noise, torch.tensor([1.0]), c_crossattn=context)


def exact(patcher, context: torch.Tensor) -> torch.Tensor:
    patcher.patch_model(CPU)
    try:
        return predicted(patcher, context)
    finally:
        patcher.unpatch_model(CPU)


@torch.inference_mode()
@pytest.mark.parametrize("room", ROOM)
def test_a_partly_loaded_model(loaded, room):
    """Its weights are read as ever, by it and by those who share them; what it draws is the erased model's."""
    model, clip, erasure = loaded
    comfy.model_management.unload_all_models()
    seen = ComfyModel(model, clip)
    context = seen.text.encode(["a painting by van gogh"]).conditioning.context
    before, made_on = exact(model, context), fingerprint(entry_weights(seen))
    edited, _ = apply_erasure(model, clip, erasure)
    expected, made = exact(edited, context), {name: w.clone() for name, w in text_weights(edited).items()}
    assert not torch.allclose(before, expected, rtol=1e-2, atol=1e-2)

    edited.patch_model(CPU, lowvram_model_memory=ROOM[room])
    try:
        torch.testing.assert_close(predicted(edited, context), expected, rtol=1e-4, atol=1e-4)
        if ROOM[room] == 1:
            assert any(getattr(module, "weight_function", None) for module in edited.model.modules())
        assert fingerprint(text_weights(model)) == made_on
        for name, weight in text_weights(edited).items():
            assert torch.equal(weight, made[name])
        again = rece(ComfyModel(edited, clip), "monet -> art")
    finally:
        edited.unpatch_model(CPU)
    whole = rece(ComfyModel(edited, clip), "monet -> art")
    assert again.origins[0].fingerprint == whole.origins[0].fingerprint != made_on
    for name, delta in again.deltas.items():
        assert torch.equal(delta.dense(), whole.deltas[name].dense())
    assert torch.equal(exact(model, context), before)
