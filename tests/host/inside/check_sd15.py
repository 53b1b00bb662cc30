"""A full-size SD 1.5: files give the weights of the direct patch in the stock loader, and every method can train."""

import hashlib
import logging
import os

import comfy.sd
import comfy.utils
import pytest
import torch
from pack.erasure_core import Erasure, rece
from pack.erasure_core.methods.abo import abo
from pack.erasure_core.methods.doco import doco
from pack.erasure_core.methods.few_shot import few_shot
from pack.erasure_core.model import CONTEXT, fingerprint
from pack.nodes import host, host_training

CHECKPOINT = os.environ["SD15_CHECKPOINT"]


@pytest.fixture(scope="module")
def loaded():
    with torch.inference_mode():
        return comfy.sd.load_checkpoint_guess_config(CHECKPOINT)[:3]


@torch.inference_mode()
def test_the_file_gives_the_weights_of_the_direct_patch(loaded, tmp_path, caplog):
    model, clip, _ = loaded
    seen = host.ComfyModel(model, clip)
    assert (seen.context_dim, seen.tokens, seen.prediction_type) == (768, 77, "epsilon")
    original = seen.text_entries()[CONTEXT].weights
    assert len(original) == 32
    erasure = rece(seen, "van gogh -> art", preserve=["", "monet"])
    direct = host.ComfyModel(*host.apply_erasure(model, clip, erasure)).text_entries()[CONTEXT].weights

    path = erasure.save(tmp_path / "no-van-gogh.safetensors")
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    with caplog.at_level(logging.WARNING):
        stock = host.ComfyModel(
            *comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
        ).text_entries()[CONTEXT].weights
    assert "not loaded" not in caplog.text
    for name, weight in direct.items():
        assert torch.equal(weight, stock[name])
        expected = original[name] + erasure.deltas[name].dense()
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-5)
        assert not torch.equal(weight, original[name])
    assert fingerprint(original) == erasure.origins[0].fingerprint == Erasure.load(path).origins[0].fingerprint


def digest(module) -> str:
    hashed = hashlib.sha256()
    for weight in module.state_dict().values():
        hashed.update(weight.numpy().tobytes())
    return hashed.hexdigest()


@torch.inference_mode()
def test_every_method_trains(loaded, monkeypatch):
    """One step each, on small latents; the checkpoint is in inference tensors, its text encoder in float16."""
    model, clip, vae = loaded
    parts = (model.model, clip.cond_stage_model)
    before = [digest(part) for part in parts]
    assert clip.cond_stage_model.clip_l.transformer.dtype == torch.float16
    with host_training.trainable(model, clip, vae) as seen:
        assert seen.latent_shape() == (4, 64, 64)
        monkeypatch.setattr(seen, "latent_shape", lambda: (4, 8, 8))
        frozen = seen.encode_prompts(["a cat"]).context
        trained = seen.with_weights(seen.weights_of("text_encoder")).encode_prompts(["a cat"]).context
        torch.testing.assert_close(trained, frozen, rtol=0, atol=1e-3)
        few_shot(seen, "cat", torch.rand(1, 3, 64, 64), steps=1, batch_size=1)
        doco(seen, "cat -> dog", anchor_latents=torch.randn(2, 4, 16, 16), steps=1, warm_up=0, batch_size=2)
        erasure = abo(seen, "cat -> dog", steps=1, trajectories=1, sampling_steps=1, batch_size=1, rank=4)
    assert len(erasure.deltas) == 32
    assert [digest(part) for part in parts] == before
