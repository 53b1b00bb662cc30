"""DoCo's first updates against its formula (arXiv 2405.15304), written out anew on a small model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pure.fakes import Adam, Uneven
from torch import Tensor
from torch.func import functional_call

from erasure_core import Conditioning
from erasure_core.methods.doco import DoCoSettings, doco
from erasure_core.training.gan import patch_discriminator

BETAS = 0.5, 0.999
CONCEPT, ANCHOR = (
    [wording.format(name) for wording in ("{}", "a {}", "a photo of a {}", "a picture of the {}")]
    for name in ("red fish", "dog")
)


def slopes(loss: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_doco_is_its_formula(kind: str) -> None:
    model, latents = Uneven(prediction_type=kind), torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    settings = DoCoSettings(steps=6, warm_up=0.3, batch_size=3, learning_rate=1e-2, discriminator_rate=2e-3)
    erasure = doco(model, "red fish", settings, anchor="dog", anchor_latents=latents, seed=6)

    draws = torch.Generator().manual_seed(6)
    judge = patch_discriminator((4, 8, 8), seed=6)
    critic = {name: weight.detach() for name, weight in judge.named_parameters()}
    weights = {name: weight.clone() for name, weight in model.weights.items()}
    concept, anchor = (model.encode_prompts(prompts) for prompts in (CONCEPT, ANCHOR))
    ours, theirs = Adam(1e-2, *BETAS), Adam(2e-3, *BETAS)
    losses, conflicts = [], []
    for step in range(6):
        clean = latents[torch.randint(5, (3,), generator=draws)]
        times = torch.randint(100, (3,), generator=draws)
        noise = torch.randn(clean.shape, generator=draws)
        which = torch.randint(4, (3,), generator=draws)
        a = model.alphas_cumprod[times].sqrt().float()[:, None, None, None]
        b = (1 - model.alphas_cumprod[times]).sqrt().float()[:, None, None, None]
        noisy = a * clean + b * noise
        for weight in [*weights.values(), *critic.values()]:
            weight.requires_grad_()

        def output(own: dict[str, Tensor], text: Conditioning, noisy=noisy, times=times) -> Tensor:
            return model.with_weights(own).predict_noise(noisy, times, text)

        def seen(output: Tensor, noisy=noisy, a=a, b=b) -> Tensor:
            """The clean latents that a model's output implies."""
            return (noisy - b * output) / a if kind == "epsilon" else a * noisy - b * output

        real = seen(output(model.weights, anchor[which]))
        fake = seen(output(weights, concept[which]))
        told = functional_call(judge, critic, (torch.cat([real, fake.detach()]),))
        loss = (F.softplus(told[:3]).mean() + F.softplus(-told[3:]).mean()) / 2  # 0 is the anchor, 1 is the concept
        losses.append(float(loss.detach()))
        critic = theirs.step(critic, slopes(loss, critic))
        if step < 2:
            continue
        unlearn = slopes(F.softplus(functional_call(judge, critic, (fake,))).mean(), weights)
        truth = noise if kind == "epsilon" else a * noise - b * clean
        keep = slopes((output(weights, anchor[which]) - truth).square().mean(), weights)
        for name, gradient in unlearn.items():
            inner = (gradient * keep[name]).sum()
            conflicts.append(bool(inner < 0))
            if inner < 0:
                unlearn[name] = gradient - inner / (keep[name] * keep[name]).sum() * keep[name]
        weights = ours.step(weights, unlearn)

    assert 3 < sum(conflicts) < len(conflicts) - 3, "the surgery is not tried both ways"
    assert erasure.origins[0].losses == pytest.approx(losses, rel=1e-4)
    for name, weight in weights.items():
        torch.testing.assert_close(erasure.deltas[name].dense(), weight - model.weights[name], rtol=1e-3, atol=1e-5)
