"""Few-shot, DoCo and AbO as their tests run them: on a model of a few thousand numbers, for a few steps."""

from __future__ import annotations

import pytest
import torch
from pure.calls import with_settings
from pure.fakes import FakeModel, digest

from erasure_core import Erasure
from erasure_core.methods.abo import AbOSettings, abo
from erasure_core.methods.doco import DoCoSettings, doco
from erasure_core.methods.few_shot import FewShotSettings, few_shot

IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(9))
KINDS = ("epsilon", "v_prediction")
SHORT = ("a cat", "a photo of a cat", "the cat")


def run_few_shot(model: FakeModel, **settings) -> Erasure:
    return few_shot(
        model, "cat", images=IMAGES, **with_settings(FewShotSettings, **{"learning_rate": 1e-3, "steps": 4, **settings})
    )


def run_doco(model: FakeModel, **settings) -> Erasure:
    settings = {"learning_rate": 1e-3, "steps": 6, "batch_size": 4, "anchors": 4, "captions": SHORT, **settings}
    if "anchor_latents" in settings:
        settings["captions"] = ()
    return doco(model, "cat -> dog", **with_settings(DoCoSettings, **settings))


def run_abo(model: FakeModel, **settings) -> Erasure:
    settings = {
        "learning_rate": 1e-3, "steps": 4, "trajectories": 2, "sampling_steps": 3, "batch_size": 4, **settings
    }  # fmt: skip
    return abo(model, "cat -> dog", **with_settings(AbOSettings, **settings))


METHODS = pytest.mark.parametrize("run", [run_few_shot, run_doco, run_abo])


def bits(model: FakeModel) -> tuple[str, str]:
    return digest(model.weights), digest(model.text)


def dense(erasure: Erasure) -> dict[str, torch.Tensor]:
    return {name: delta.dense() for name, delta in erasure.deltas.items()}


class Watched(FakeModel):
    """Notes how many latents go through it at a time while gradients are needed."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []

    def predict_noise(self, latents, timesteps, conditioning):
        if torch.is_grad_enabled():
            self.sizes.append(len(latents))
        return super().predict_noise(latents, timesteps, conditioning)


class NotDrawn(FakeModel):
    def predict_noise(self, latents, timesteps, conditioning):
        pytest.fail("the model was asked for a picture")
