"""A full-size SD 1.5: the file, loaded as the stock LoRA loader loads it, gives the weights of the direct patch."""

import logging
import os

import comfy.sd
import comfy.utils
import pytest
import torch
from pack.erasure_core import Erasure, rece
from pack.erasure_core.model import fingerprint
from pack.nodes import host

CHECKPOINT = os.environ["SD15_CHECKPOINT"]


@pytest.fixture(scope="module")
def loaded():
    with torch.inference_mode():
        return comfy.sd.load_checkpoint_guess_config(CHECKPOINT)[:2]


@torch.inference_mode()
def test_the_file_gives_the_weights_of_the_direct_patch(loaded, tmp_path, caplog):
    model, clip = loaded
    seen = host.ComfyModel(model, clip)
    assert (seen.context_dim, seen.tokens, seen.prediction_type) == (768, 77, "epsilon")
    original = seen.cross_attention_weights()
    assert len(original) == 32
    erasure = rece(seen, "van gogh -> art", preserve=["", "monet"])
    direct = host.ComfyModel(*host.apply_erasure(model, clip, erasure)).cross_attention_weights()

    path = erasure.save(tmp_path / "no-van-gogh.safetensors")
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    with caplog.at_level(logging.WARNING):
        stock = host.ComfyModel(
            *comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
        ).cross_attention_weights()
    assert "not loaded" not in caplog.text
    for name, weight in direct.items():
        assert torch.equal(weight, stock[name])
        expected = original[name] + erasure.deltas[name].dense()
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-5)
        assert not torch.equal(weight, original[name])
    assert fingerprint(original) == erasure.origins[0].fingerprint == Erasure.load(path).origins[0].fingerprint
