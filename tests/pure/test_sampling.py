"""DDIM on a model whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from pure.fakes import FakeModel

from erasure_core import Conditioning, rece
from erasure_core.sampling.ddim import (
    ddim,
    generate,
    guided,
    initial_latents,
    invert,
    split_prediction,
    timesteps,
    trajectories,
)


def test_an_image_depends_on_its_own_prompt_and_seed_only() -> None:
    model = FakeModel()
    prompts, seeds = ["cat", "red fish", "cat", "dog", ""], [3, 4, 5, 3, 9]
    together = generate(model, prompts, seeds, steps=5)
    assert together.shape == (5, 3, 4, 4)
    torch.testing.assert_close(generate(model, prompts, seeds, steps=5, batch=2), together)
    for image, prompt, seed in zip(together, prompts, seeds, strict=True):
        torch.testing.assert_close(generate(model, [prompt], [seed], steps=5)[0], image)
    assert not torch.allclose(together[0], together[2]) and not torch.allclose(together[0], together[3])


def test_the_same_seeds_give_the_same_images() -> None:
    runs = [generate(FakeModel(), ["cat", "dog"], [1, 2], steps=3) for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_model_that_knows_the_noise_gets_the_clean_latents_back(kind: str) -> None:
    """With the true noise and any number of steps, DDIM lands on the mixture that the last alpha leaves."""
    model = FakeModel(prediction_type=kind)
    clean = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    noise = initial_latents(model, [7])

    def truth(latents, moments, context):
        signal = model.alphas_cumprod[moments[0]].sqrt().float()
        return noise if kind == "epsilon" else signal * noise - (1 - signal**2).sqrt() * clean

    model.predict_noise = truth
    steps = 10
    first = float(model.alphas_cumprod[timesteps(100, steps)[0]])
    latents = first**0.5 * clean + (1 - first) ** 0.5 * noise
    empty = model.encode_prompts([""])
    found = ddim(model, latents, empty, empty, steps=steps, guidance=1)
    last = float(model.alphas_cumprod[0])
    torch.testing.assert_close(found, last**0.5 * clean + (1 - last) ** 0.5 * noise)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_inversion_finds_the_noise_that_comes_back(kind: str, guidance: float) -> None:
    """To rounding once the fixed point is reached, far worse with the plain inversion of DDIM."""
    model = FakeModel(prediction_type=kind)
    clean = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    cat, empty = model.encode_prompts(["cat", ""]).split(1)
    both = cat.expand(2), empty
    settings = {"steps": 10, "guidance": guidance}
    errors = {}
    for refinements in (1, 3, 60):
        noise = invert(model, clean, *both, **settings, refinements=refinements)
        errors[refinements] = float((ddim(model, noise, *both, **settings) - clean).norm() / clean.norm())
    assert errors[60] < 1e-4 < errors[3] < errors[1]


def test_every_step_is_visited_with_its_latents() -> None:
    """Of the way back by inversion, and of the way that trajectories draw, which leads away from the empty prompt."""
    model, seen = FakeModel(), []
    empty, cat = model.encode_prompts(["", "cat"]).split(1)
    settings = {"steps": 4, "guidance": 3.0}
    noise = invert(model, torch.ones(1, 4, 4, 4), cat, empty, **settings, visit=lambda *step: seen.append(step))
    assert [when for when, _ in seen] == list(reversed(timesteps(100, 4))) and seen[-1][1] is noise
    walk: list[torch.Tensor] = []
    ddim(model, initial_latents(model, [5]), cat, empty, **settings, visit=lambda when, latents: walk.append(latents))
    latents, times = trajectories(model, ["cat"], [5], **settings)
    assert torch.equal(latents, torch.cat(walk)) and times.tolist() == timesteps(100, 4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_prediction_is_split_so_that_it_adds_up(kind: str) -> None:
    latents, output = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    clean, noise = split_prediction(kind, output, latents, 0.3)
    torch.testing.assert_close(0.3**0.5 * clean + 0.7**0.5 * noise, latents)
    expected = noise if kind == "epsilon" else 0.3**0.5 * noise - 0.7**0.5 * clean
    torch.testing.assert_close(expected, output)


def test_an_unknown_prediction_type() -> None:
    with pytest.raises(ValueError, match="'sample' is unknown"):
        split_prediction("sample", torch.zeros(1), torch.zeros(1), 0.5)


class Heard(FakeModel):
    """Puts out the first number of the context, and notes the contexts and latents it is asked about."""

    def __init__(self):
        super().__init__()
        self.asked: list[int] = []

    def predict_noise(self, latents: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
        self.asked.append(len(latents))
        return text.context[:, 0, 0][:, None, None, None].expand_as(latents)


def rows(*values: float) -> Conditioning:
    return Conditioning(torch.tensor(values)[:, None, None])


@pytest.mark.parametrize(("guidance", "expected"), [(0.0, [2.0, 2.0]), (3.0, [11.0, -4.0]), (7.5, [24.5, -13.0])])
def test_guidance_scales_the_difference(guidance: float, expected: list[float]) -> None:
    """From 2 for the empty prompt towards 5 and 0: ``empty + guidance * (context - empty)``, not the other way."""
    found = guided(Heard(), torch.zeros(2, 4, 4, 4), 50, rows(5.0, 0.0), rows(2.0), guidance)
    assert torch.equal(found, torch.tensor(expected)[:, None, None, None].expand(2, 4, 4, 4))


def test_guidance_of_one_is_the_prompt_alone() -> None:
    """At half the price."""
    model = Heard()
    assert torch.equal(guided(model, torch.zeros(1, 4, 4, 4), 50, rows(5.0), rows(2.0), 1), torch.full((1, 4, 4, 4), 5))
    guided(model, torch.zeros(3, 4, 4, 4), 50, rows(5.0, 1.0, 2.0), rows(2.0), 3)
    assert model.asked == [1, 6]


def test_guidance_leads_away_from_the_negative_prompt() -> None:
    """By hand, for one step of DDIM: the model's answer under "dog" is what guidance starts from."""
    model = FakeModel()
    cat, dog = model.encode_prompts(["cat", "dog"]).split(1)
    noise = initial_latents(model, [3])
    when, signal = torch.tensor([1]), float(model.alphas_cumprod[1]) ** 0.5
    away, to = (model.predict_noise(noise, when, one) for one in (dog, cat))
    output = away + 5 * (to - away)
    clean = (noise - (1 - signal**2) ** 0.5 * output) / signal
    ahead = float(model.alphas_cumprod[0])
    expected = model.decode_latents(ahead**0.5 * clean + (1 - ahead) ** 0.5 * output)
    found = {text: generate(model, ["cat"], [3], steps=1, guidance=5.0, negative=text) for text in ("dog", "", "cat")}
    torch.testing.assert_close(found["dog"], expected)
    assert not torch.allclose(found["dog"], found[""])
    torch.testing.assert_close(found["cat"], generate(model, ["cat"], [3], steps=1, guidance=1))


def test_timesteps_are_stable_diffusions() -> None:
    assert timesteps(1000, 4) == [751, 501, 251, 1]
    assert timesteps(1000, 1) == [1]


def test_an_erasure_changes_what_is_drawn_and_leaves_the_model() -> None:
    model = FakeModel()
    before = generate(model, ["cat"], [1], steps=3)
    with rece(model, "cat -> dog").applied_to(model):
        assert not torch.allclose(generate(model, ["cat"], [1], steps=3), before)
    assert torch.equal(generate(model, ["cat"], [1], steps=3), before)


def test_progress_and_cancelling() -> None:
    seen = []
    generate(FakeModel(), ["a"] * 5, range(5), steps=3, batch=2, callback=lambda *report: seen.append(report))
    assert [done for done, _, _ in seen] == list(range(1, 10)) and {total for _, total, _ in seen} == {9}

    def cancel(*_) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        generate(FakeModel(), ["a"], [1], callback=cancel)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "at least one"),
        ({"seeds": [1, 2]}, "got 2 and 1"),
        ({"steps": 0}, "steps must be from 1 to 99, got 0"),
        ({"steps": 100}, "steps must be"),
        ({"batch": 0}, "batch must be"),
    ],
)
def test_settings_that_cannot_be_used(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(FakeModel(), **{"prompts": ["cat"], "seeds": [1], **changes})


def test_settings_at_their_limits_are_taken() -> None:
    assert generate(FakeModel(), ["cat", "dog"], [1, 2], steps=99, batch=1).isfinite().all()
    told = []
    generate(FakeModel(), ["cat"], [1], steps=1, callback=lambda *one: told.append(one))
    assert told == [(1, 1, "sampling")]


@pytest.mark.parametrize("guidance", [math.nan, math.inf, -1.0, 1e30])
def test_guidance_that_draws_nothing(guidance: float) -> None:
    with pytest.raises(ValueError, match="guidance must be from 0 to 100, got"):
        generate(FakeModel(), ["cat"], [0], guidance=guidance)
