"""Every method can train a full-size SD 1.5."""

import hashlib
import os

import comfy.sd
import pytest
import torch
from pack.erasure_core.methods.abo import AbOSettings, abo
from pack.erasure_core.methods.doco import DoCoSettings, doco
from pack.erasure_core.methods.few_shot import FewShotSettings, few_shot
from pack.nodes.comfy_host.trainable_model import trainable

CHECKPOINT = os.environ["SD15_CHECKPOINT"]


@pytest.fixture(scope="module")
def loaded():
    with torch.inference_mode():
        return comfy.sd.load_checkpoint_guess_config(CHECKPOINT)[:3]


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
    with trainable(model, clip, vae) as seen:
        assert seen.latent_shape() == (4, 64, 64)
        monkeypatch.setattr(seen, "latent_shape", lambda: (4, 8, 8))
        frozen = seen.encode_prompts(["a cat"]).context
        trained = seen.with_weights(seen.weights_of("text_encoder")).encode_prompts(["a cat"]).context
        torch.testing.assert_close(trained, frozen, rtol=0, atol=1e-3)
        few_shot(seen, "cat", FewShotSettings(steps=1, batch_size=1), images=torch.rand(1, 3, 64, 64))
        doco(
            seen, "cat -> dog", DoCoSettings(steps=1, warm_up=0, batch_size=2), anchor_latents=torch.randn(2, 4, 16, 16)
        )
        erasure = abo(seen, "cat -> dog", AbOSettings(steps=1, trajectories=1, sampling_steps=1, batch_size=1), rank=4)
    assert len(erasure.deltas) == 32
    assert [digest(part) for part in parts] == before
