"""Few-shot by matching: its first updates against its formula, what it holds, and its captions."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from pure.calls import with_settings
from pure.fakes import FakeModel, TwoTowers
from pure.learned import IMAGES, KINDS, NotDrawn, dense

from erasure_core import Concept
from erasure_core.methods import few_shot as few_shot_module
from erasure_core.methods.captions import captions_of, check_captions, with_target
from erasure_core.methods.few_shot import FewShotSettings, drift, few_shot, trained_weights

CAPTIONS = ["a cat in a hat", "the Cat", "red cat", "a cat"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("concept", "without"),
    [("cat -> dog", ["a dog in a hat", "the dog", "red dog", "a dog"]), ("cat", ["in a hat", "", "red", ""])],
)
def test_few_shot_by_matching_is_its_formula(kind: str, concept: str, without: list[str]) -> None:
    """The first updates against a literal re-implementation: what the frozen model gives without the name, and a hold.

    Without a target the goal lies beyond that of the caption without the name, by half of what the name changes.
    """
    model, steps, rate, weight, preserve = FakeModel(prediction_type=kind), 3, 1e-3, 0.7, ["bird", "a fish", ""]
    erasure = few_shot(
        model, concept, images=IMAGES, captions=CAPTIONS, preserve=preserve, seed=6,
        settings=FewShotSettings(
            steps=steps, learning_rate=rate, objective="matching", preserve_weight=weight, negative_guidance=0.5
        ),
    )  # fmt: skip
    mine, losses = dense(erasure), []

    draws = torch.Generator().manual_seed(6)
    order = torch.randperm(4, generator=draws).tolist()
    latents = model.encode_images(IMAGES[order])
    weights = {name: weight.clone() for name, weight in trained_weights(model.text).items()}
    for weight_of in weights.values():
        weight_of.requires_grad_()
    optimiser = torch.optim.Adam(weights.values(), rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-8)
    for step in range(steps):
        places = [(2 * step) % 4, (2 * step + 1) % 4]
        clean, prompts = latents[places], [CAPTIONS[order[place]] for place in places]
        times = torch.randint(100, (2,), generator=draws)
        noise = torch.randn(clean.shape, generator=draws)
        held = [preserve[index] for index in torch.randint(3, (16,), generator=draws).tolist()]
        a = model.alphas_cumprod[times].float().reshape(2, 1, 1, 1)
        noisy, edited = a.sqrt() * clean + (1 - a).sqrt() * noise, model.with_weights(weights)
        goal = model.predict_noise(noisy, times, model.encode_prompts([without[order[place]] for place in places]))
        if "->" not in concept:
            goal = goal - 0.5 * (model.predict_noise(noisy, times, model.encode_prompts(prompts)) - goal)
        error = (model.predict_noise(noisy, times, edited.encode_prompts(prompts)) - goal).square().mean()
        drift = edited.encode_prompts(held).context - model.encode_prompts(held).context
        loss = error + weight * drift.square().mean()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert erasure.origins[0].losses == pytest.approx(losses, rel=1e-4)
    for name, changed in weights.items():
        torch.testing.assert_close(mine[name], changed.detach() - model.text[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [FakeModel, TwoTowers])
def test_the_hold_pulls_the_conditioning_back(kind: type[FakeModel]) -> None:
    """It is nothing where nothing changed, and its gradient is twice the drift over the numbers, pooled vectors too."""
    model, prompts = kind(), ["bird", "a fish"]
    weights = {name: weight.clone().requires_grad_() for name, weight in trained_weights(model.text).items()}
    assert float(drift(model, model.with_weights(weights), prompts).detach()) == 0
    with torch.no_grad():
        for weight in weights.values():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    held = drift(model, model.with_weights(weights), prompts)
    now = model.with_weights(weights).encode_prompts(prompts)
    moved = [(one - was).detach() for one, was in zip(now.tensors, model.encode_prompts(prompts).tensors, strict=True)]
    assert float(held.detach()) == pytest.approx(sum(float(one.square().mean()) for one in moved))
    upward = torch.autograd.grad(now.tensors, list(weights.values()), [2 * one / one.numel() for one in moved])
    for found, expected in zip(torch.autograd.grad(held, list(weights.values())), upward, strict=True):
        torch.testing.assert_close(found, expected)
        assert found.any()


def test_a_hold_keeps_what_is_preserved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, moved = FakeModel(), []
    before = model.encode_prompts(["bird"]).context
    for weight in (0.0, 100.0):
        settings = FewShotSettings(steps=20, learning_rate=1e-3, objective="matching", preserve_weight=weight)
        after = few_shot(model, "cat -> dog", settings, images=IMAGES, preserve="bird").over(model)
        moved.append(float((after.encode_prompts(["bird"]).context - before).norm()))
    assert moved[1] < moved[0] / 2


def test_few_shot_draws_pictures_with_their_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """By matching, captions of everyday contents or those that are given in turn; by ascent, the bare name."""
    drawn: list[tuple[str, int]] = []

    def record(original: Callable) -> Callable:
        def draw(model, prompts, seeds, **settings):
            drawn.extend(zip(prompts, seeds, strict=True))
            return original(model, prompts, seeds, **settings)

        return draw

    for name in ("generate", "sample_latents"):
        monkeypatch.setattr(few_shot_module, name, record(getattr(few_shot_module, name)))

    def run(concept: str, objective: str, **more) -> list[tuple[str, int]]:
        drawn.clear()
        kind = more.pop("kind", "object")
        settings = FewShotSettings(kind, steps=1, learning_rate=1e-3, objective=objective)
        few_shot(FakeModel(tokens=16), concept, settings, seed=5, **more)
        return list(drawn)

    assert run("cat", "ascent", images=2) == [("cat", 0), ("cat", 1)]
    captions = ["a cat", "red cat"]
    assert run("cat -> dog", "matching", images=3, captions=captions) == [("a cat", 5), ("red cat", 6), ("a cat", 7)]
    assert len(run("cat -> dog", "matching")) == 8
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        styles = [prompt for prompt, _ in run("monet", "matching", images=4, kind="style")]
        assert styles == [prompt for prompt, _ in run("monet", "matching", images=4, kind="style")]
    assert len(set(styles)) == 4 and all("monet" in prompt and len(prompt.split()) > 2 for prompt in styles)


@pytest.mark.parametrize("kind", ["object", "style"])
def test_captions_of_a_concept(kind: str) -> None:
    """All name it and something else that is neither it nor its target; the same generator gives the same."""
    concept = Concept("cat", "dog")
    one, again = (captions_of(kind, concept, 200, torch.Generator().manual_seed(2)) for _ in range(2))
    assert one == again and len(set(one)) > 10
    assert all(" cat" in f" {caption}" and " dog" not in caption for caption in one)
    assert not [caption for caption in one if re.search(r"\ba [aeiou]|\ban [^aeiou]", caption)]
    check_captions(one, concept, None)


@pytest.mark.parametrize(
    ("caption", "concept", "expected"),
    [
        ("a Cat on a mat", "cat -> dog", "a dog on a mat"),
        ("a photo of a cat in a hat", "cat", "a photo in a hat"),
        ("a dog in the style of Van  Gogh", "van gogh", "a dog"),
        ("a dog, van gogh style, oil", "van gogh", "a dog, oil"),
        ("a dog by van gogh", "van gogh -> monet", "a dog by monet"),
        ("in the style of noto, a fox", "noto", "a fox"),
        ("cat", "cat", ""),
        ("a catamaran and a cat", "cat", "a catamaran and"),
        (r"a cat \1", r"cat -> \2 dog", r"a \2 dog \1"),
    ],
)
def test_a_caption_without_the_concept(caption: str, concept: str, expected: str) -> None:
    assert with_target(caption, Concept(*concept.split(" -> "))) == expected


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"captions": ["a cat"]}, "captions must be one for each of 4 images, got 1"),
        ({"captions": ["a cat", "a dog"], "images": 2}, "captions: 'a dog' does not name 'cat', which is to be erased"),
        ({"captions": [5], "images": 2}, "captions lists 5, which is not text"),
        ({"images": 0}, "images: the model draws 1 to 1000 pictures itself, not 0"),
        ({"images": True}, "images must be a tensor or a whole number or None, got True"),
        ({"images": "cats"}, "images must be a tensor or a whole number or None, got 'cats'"),
        ({"preserve": ["bird", "Cat"]}, "preserve lists 'Cat', which is to be erased"),
        ({"objective": "guess"}, "objective must be one of ascent, matching, got 'guess'"),
        ({"preserve_weight": -1.0}, "preserve_weight must be a finite number of at least 0, got -1.0"),
        ({"negative_guidance": 101.0}, "negative_guidance must be from 0 to 100, got 101.0"),
    ],
)
def test_what_few_shot_refuses(more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        few_shot(NotDrawn(), "cat", **with_settings(FewShotSettings, **{"images": IMAGES, **more}))
