"""Few-shot, DoCo and AbO on a model of a few thousand numbers, against the formulas written out anew."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pure.calls import with_settings
from pure.fakes import FakeModel, TwoTowers, digest

from erasure_core import Concept, Conditioning, Erasure
from erasure_core.methods import abo as abo_module
from erasure_core.methods import doco as doco_module
from erasure_core.methods import few_shot as few_shot_module
from erasure_core.methods.abo import AbOSettings, Contexts, abo, abo_loss
from erasure_core.methods.captions import captions_of, check_captions, with_target
from erasure_core.methods.doco import DoCoSettings, check_latents, doco
from erasure_core.methods.few_shot import (
    TEMPLATES,
    FewShotSettings,
    Watch,
    drift,
    few_shot,
    next_batch,
    trained_weights,
)
from erasure_core.training.denoising import denoising_error
from erasure_core.training.gan import adversarial_loss, discriminator_loss, patch_discriminator
from erasure_core.training.loop import TrainingError

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


@METHODS
@pytest.mark.parametrize("kind", KINDS)
def test_something_is_learned_and_the_model_stays(run: Callable, kind: str) -> None:
    model = FakeModel(prediction_type=kind)
    before = bits(model)
    erasure = run(model)
    assert bits(model) == before
    assert all(weight.grad is None and not weight.requires_grad for weight in [*model.weights.values()])
    assert max(float(change.abs().max()) for change in dense(erasure).values()) > 1e-4
    (origin,) = erasure.origins
    assert origin.concepts[0].name == "cat" and len(origin.losses) == origin.settings["steps"]
    assert all(map(math.isfinite, origin.losses))


@METHODS
def test_a_seed_reproduces_bit_for_bit(run: Callable) -> None:
    one, again, other = (run(FakeModel(), seed=seed) for seed in (3, 3, 4))
    assert one.origins[0].losses == again.origins[0].losses != other.origins[0].losses
    assert all(torch.equal(a, b) for a, b in zip(dense(one).values(), dense(again).values(), strict=True))


@METHODS
@pytest.mark.parametrize("rank", [None, 2])
def test_the_global_generator_is_left_alone(run: Callable, rank: int | None) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(FakeModel(), rank=rank)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("run", "label"), [(run_few_shot, "few-shot"), (run_doco, "DoCo"), (run_abo, "AbO")])
def test_a_method_goes_by_its_name(run: Callable, label: str) -> None:
    told: list[str] = []
    run(FakeModel(), callback=lambda done, total, what: told.append(what))
    training = [what for what in told if what != "sampling"]
    assert training[0].startswith(f"{label} needs about ")
    assert len(training) > 1 and all(what.startswith(f"{label}, loss ") for what in training[1:])
    method = {"few-shot": few_shot, "DoCo": doco, "AbO": abo}[label]
    with pytest.raises(ValueError, match=f"{label} erases one concept at a time, got 2"):
        method(FakeModel(), "cat\nbird", **({"images": IMAGES} if label == "few-shot" else {}))


def test_abo_preserves_nothing_that_the_text_encoder_reads_as_the_concept() -> None:
    assert run_abo(FakeModel(), preserve=["catamaran"]).deltas
    forgetful = FakeModel()
    forgetful.reads = lambda prompt: tuple(word[:3] for word in prompt.split())
    with pytest.raises(ValueError, match="preserve lists 'catamaran', which is to be erased"):
        run_abo(forgetful, preserve=["catamaran"])


def test_settings_at_their_limits() -> None:
    """What is just allowed, and what is just not."""
    assert run_few_shot(FakeModel(), batch_size=1).deltas and run_abo(FakeModel(), batch_size=1).deltas
    assert run_doco(FakeModel(), batch_size=2, warm_up=0.0).deltas
    assert run_abo(FakeModel(), unconditional_weight=0.0, preserve_weight=0.0, trajectories=1, sampling_steps=1).deltas
    for run, settings, message in (
        (run_doco, {"warm_up": 1.0}, "warm_up must be from 0 to less than 1, got 1.0"),
        (run_doco, {"warm_up": -0.1}, "warm_up must be"),
        (run_doco, {"batch_size": 1}, "batch_size must be at least 2, got 1"),
        (run_doco, {"discriminator_rate": 0.0}, "discriminator_rate must be a finite number above 0"),
        (run_abo, {"preserve_weight": math.nan}, "preserve_weight must be a finite number of at least 0, got nan"),
        (run_abo, {"unconditional_weight": -1.0}, "unconditional_weight must be a finite number of at least 0, got -1"),
        (run_abo, {"unconditional_weight": math.inf}, "unconditional_weight must be"),
        (run_abo, {"trajectories": 0}, "trajectories must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            run(FakeModel(), **settings)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.zeros(4, 4, 4), r"anchor_latents must be \[n, 4, height, width\], got \(4, 4, 4\)"),
        (torch.zeros(0, 4, 8, 8), r"got \(0, 4, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8), r"must be \[n, 4, height, width\], got \(2, 3, 8, 8\)"),
        (torch.full((2, 4, 8, 8), math.nan), "anchor_latents hold NaN or infinite values"),
    ],
)
def test_anchor_latents_that_cannot_be_used(latents: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_doco(FakeModel(), anchor_latents=latents)


def test_anchor_latents_have_the_models_channels_whatever_its_height() -> None:
    fitting = torch.zeros(2, 4, 8, 8)
    assert check_latents(fitting, (4, 6, 7)) is fitting
    with pytest.raises(ValueError, match=r"must be \[n, 4, height, width\], got \(2, 6, 8, 8\)"):
        check_latents(torch.zeros(2, 6, 8, 8), (4, 6, 7))


def test_doco_draws_its_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the captions say of the anchor, in turn, each from its own seed, told to the callback."""
    drawn, told, original = [], [], doco_module.sample_latents

    def record(model, prompts, seeds, **settings):
        drawn.extend(zip(prompts, seeds, strict=True))
        return original(model, prompts, seeds, **settings)

    monkeypatch.setattr(doco_module, "sample_latents", record)
    run_doco(FakeModel(), anchors=5, seed=7, callback=lambda done, total, what: told.append(what))
    assert drawn == [("a dog", 7), ("a photo of a dog", 8), ("the dog", 9), ("a dog", 10), ("a photo of a dog", 11)]
    assert told[0] == "sampling"


def test_doco_says_how_many_seconds_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of ten steps took its 4 seconds, as many as belong to the discriminator alone."""
    clock = iter([100.0, 102.0, 105.0])
    monkeypatch.setattr("erasure_core.training.loop.time.monotonic", lambda: next(clock))
    with pytest.raises(TrainingError, match=r"seconds: after 4 only .* more than 4 are needed here, 20 for all 10 st"):
        run_doco(FakeModel(), steps=10, warm_up=0.2, seconds=4.0)


def test_few_shot_watches_eight_pictures_at_fixed_timesteps() -> None:
    model, latents = FakeModel(), torch.arange(3.0)[:, None, None, None].expand(3, 4, 4, 4)
    watch = Watch(model, latents, "a cat", seed=2)
    clean, noise, times = watch._batch
    assert clean[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1] and times.tolist() == [6, 18, 31, 43, 56, 68, 81, 93]
    assert watch.growth(model) == 1
    other = FakeModel(seed=1)
    text = model.encode_prompts(["a cat"]).expand(8)
    before, after = (denoising_error(one, clean, noise, times, text) for one in (model, other))
    assert watch.growth(other) == pytest.approx(float(after / before))


def test_few_shot_draws_noise_where_there_are_no_pictures() -> None:
    drawn = next_batch(torch.empty(0, 4, 5, 6), 3, 0, torch.Generator().manual_seed(1))
    assert drawn.shape == (3, 4, 5, 6) and 0.5 < drawn.std() < 1.5


def test_pictures_may_be_black_and_white() -> None:
    assert run_images(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)).deltas
    for bad in (1.5, -0.5):
        with pytest.raises(ValueError, match="from 0 to 1"):
            run_images(torch.full((2, 3, 4, 4), bad))
    with pytest.raises(ValueError, match=r"images must be \[n, 3, height, width\] .*, got \(2, 1, 4, 4\)"):
        run_images(torch.zeros(2, 1, 4, 4))


def run_images(images: torch.Tensor) -> Erasure:
    return few_shot(FakeModel(), "cat", FewShotSettings(learning_rate=1e-3, steps=2), images=images)


def test_few_shot_needs_layers_that_have_names() -> None:
    model = FakeModel()
    model.weights_of = lambda scope: {f"text_encoder.{part}": torch.ones(2, 2) for part in ("fc1.weight", "fc1.bias")}
    with pytest.raises(ValueError, match="the text encoder has no layers that can be told by their names"):
        run_few_shot(model)


@METHODS
def test_a_cancel_leaves_everything(run: Callable) -> None:
    model, steps = FakeModel(), []
    before = bits(model)

    def cancel(done: int, total: int, what: str) -> None:
        steps.append(done)
        if "loss" in what and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, callback=cancel)
    assert steps[-1] == 2 and bits(model) == before


@METHODS
def test_a_nan_leaves_everything_and_says_so(run: Callable) -> None:
    model = FakeModel()
    model.alphas_cumprod = model.alphas_cumprod.clone()
    model.alphas_cumprod[::2] = math.nan
    before = bits(model)
    with pytest.raises(TrainingError, match="nothing was changed"):
        run(model, steps=30)
    assert bits(model) == before


@METHODS
def test_it_works_under_no_grad_and_saves(run: Callable, tmp_path) -> None:
    with torch.no_grad():
        erasure = run(FakeModel())
    back = Erasure.load(erasure.save(tmp_path / "a.safetensors"))
    assert back.origins == erasure.origins and back.origins[0].losses
    assert all(torch.equal(a, b) for a, b in zip(dense(back).values(), dense(erasure).values(), strict=True))


@METHODS
def test_low_rank(run: Callable) -> None:
    erasure = run(FakeModel(), rank=2)
    assert erasure.rank == 2
    matrices = [delta for delta in erasure.deltas.values() if delta.dense().ndim == 2]
    assert all(torch.linalg.matrix_rank(delta.dense()) <= 2 for delta in matrices)
    assert any(delta.dense().abs().max() > 0 for delta in matrices)


class Watched(FakeModel):
    """Notes how many latents go through it at a time while gradients are needed."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []

    def predict_noise(self, latents, timesteps, conditioning):
        if torch.is_grad_enabled():
            self.sizes.append(len(latents))
        return super().predict_noise(latents, timesteps, conditioning)


def test_few_shot_needs_the_activations_of_one_latent() -> None:
    model = Watched()
    run_few_shot(model, batch_size=3, steps=2)
    assert model.sizes == [1] * 7  # the first tells what memory is needed


@pytest.mark.parametrize("run", [run_doco, run_abo])
def test_gradient_checkpointing_changes_memory_only(run: Callable) -> None:
    """Latents go through the model one at a time while gradients are needed, and the result is the same."""
    model = Watched()
    plain = dense(run(FakeModel()))
    found = dense(run(model, gradient_checkpointing=True))
    assert model.sizes and set(model.sizes) == {1}
    for name, change in plain.items():
        torch.testing.assert_close(found[name], change, rtol=1e-3, atol=1e-5)


@METHODS
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"kind": "colour"}, "kind must be one of object, style, got 'colour'"),
        ({"seconds": 0.0}, "seconds must be"),
    ],
)
def test_settings_that_make_no_sense(run: Callable, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(FakeModel(), **settings)


class NotRead(FakeModel):
    """Fails when anything is computed."""

    def encode_prompts(self, prompts):
        pytest.fail("a prompt was encoded")

    def weights_of(self, scope):
        pytest.fail("weights were read")


@METHODS
@pytest.mark.parametrize("settings", [{"steps": 0}, {"rank": 0}, {"seconds": -1.0}, {"batch_size": 0}, {"kind": "hue"}])
def test_settings_are_refused_before_anything_is_computed(run: Callable, settings: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} must be "):
        run(NotRead(), **settings)


class NotDrawn(FakeModel):
    def predict_noise(self, latents, timesteps, conditioning):
        pytest.fail("the model was asked for a picture")


@METHODS
def test_a_rank_that_no_change_has_is_refused(run: Callable) -> None:
    run(FakeModel(), rank=20 if run is not run_few_shot else 24)
    with pytest.raises(ValueError, match="^rank must be at most (20|24), more than which no change .*, got 100000$"):
        run(NotDrawn(), rank=100_000)


@pytest.mark.parametrize("kind", KINDS)
def test_few_shot_is_its_formula(kind: str) -> None:
    """The first updates against a literal re-implementation: Adam with coupled weight decay, minus the error."""
    model, steps, rate = FakeModel(prediction_type=kind), 3, 1e-3
    erasure = run_few_shot(model, steps=steps, learning_rate=rate, seed=6, batch_size=2)
    mine, losses = dense(erasure), []

    draws = torch.Generator().manual_seed(6)
    latents = model.encode_images(IMAGES[torch.randperm(4, generator=draws)])
    weights = {name: weight.clone() for name, weight in trained_weights(model.text).items()}
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    for step in range(steps):
        clean = latents[[(2 * step) % 4, (2 * step + 1) % 4]]
        which = torch.randint(len(TEMPLATES["object"]), (2,), generator=draws).tolist()
        times = torch.randint(100, (2,), generator=draws)
        noise = torch.randn(clean.shape, generator=draws)
        a = model.alphas_cumprod[times].float().reshape(2, 1, 1, 1)
        for weight in weights.values():
            weight.requires_grad_()
        prompts = [TEMPLATES["object"][index].format("cat") for index in which]
        text = model.with_weights(weights).encode_prompts(prompts)
        output = model.predict_noise(a.sqrt() * clean + (1 - a).sqrt() * noise, times, text)
        target = noise if kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
        loss = -((output - target) ** 2).mean()
        losses.append(float(loss.detach()))
        grads = torch.autograd.grad(loss, list(weights.values()))
        for (name, weight), grad in zip(list(weights.items()), grads, strict=True):
            grad = grad + 1e-8 * weight.detach()
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * grad, 0.98 * v + 0.02 * grad**2
            moments[name] = (m, v)
            m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.98 ** (step + 1))
            weights[name] = weight.detach() - rate * m_hat / (v_hat.sqrt() + 1e-6)
    assert erasure.origins[0].losses == pytest.approx(losses, rel=1e-4)
    for name, weight in weights.items():
        torch.testing.assert_close(mine[name], weight - model.text[name], rtol=1e-3, atol=1e-6)


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


def clip_names(tower: str, layers: int) -> list[str]:
    """As in transformers."""
    parts = [f"self_attn.{one}_proj" for one in "kvq"] + ["self_attn.out_proj", "layer_norm1", "mlp.fc1", "mlp.fc2"]
    stem = f"{tower}.text_model"
    return [
        f"{stem}.embeddings.token_embedding.weight",
        *(f"{stem}.encoder.layers.{n}.{part}.{kind}" for n in range(layers) for part in parts
          for kind in ("weight", "bias")),
        f"{stem}.final_layer_norm.weight",
        f"{tower}.text_projection.weight",
    ]  # fmt: skip


def test_few_shot_trains_what_the_paper_says() -> None:
    """``mlp`` of every layer and ``self_attn`` of the last, which is another one in each of two text encoders."""
    names = clip_names("text_encoder", 12) + clip_names("text_encoder_2", 32)
    found = trained_weights({name: torch.zeros(1) for name in names})
    expected = {
        f"{tower}.text_model.encoder.layers.{n}.mlp.fc{i}.{kind}"
        for tower, layers in (("text_encoder", 12), ("text_encoder_2", 32)) for n in range(layers)
        for i in (1, 2) for kind in ("weight", "bias")
    } | {
        f"{last}.self_attn.{part}_proj.{kind}"
        for last in ("text_encoder.text_model.encoder.layers.11", "text_encoder_2.text_model.encoder.layers.31")
        for part in ("k", "v", "q", "out") for kind in ("weight", "bias")
    }  # fmt: skip
    assert set(found) == expected and len(found) == 4 * 44 + 16


@pytest.mark.parametrize("towers", ["both", "text_encoder", "text_encoder_2"])
def test_few_shot_trains_the_text_encoders_that_are_named(towers: str) -> None:
    erasure = few_shot(TwoTowers(), "cat", FewShotSettings(steps=2, learning_rate=1e-3), images=IMAGES, towers=towers)
    wanted = {"text_encoder", "text_encoder_2"} if towers == "both" else {towers}
    assert {name.partition(".")[0] for name in erasure.deltas} == wanted
    assert erasure.origins[0].settings["towers"] == towers
    largest = {name: float(change.abs().max()) for name, change in dense(erasure).items()}
    assert all(change > 1e-4 for change in largest.values()), largest


def test_few_shot_with_a_text_encoder_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="towers is 'text_encoder_2' but the model has text_encoder; 'both' trains"):
        run_few_shot(FakeModel(), towers="text_encoder_2")
    with pytest.raises(ValueError, match="towers must be one of both, text_encoder, text_encoder_2, got 'clip_g'"):
        run_few_shot(FakeModel(), towers="clip_g")


def test_few_shot_leaves_layers_alone_that_the_model_does_not_read() -> None:
    """The last layer is then the last that is read."""
    model = TwoTowers()
    for name, weight in list(model.text.items()):
        if ".layers.1." in name:
            model.text[name.replace(".layers.1.", ".layers.2.")] = weight.clone()
    found = {name.removeprefix("text_encoder.text_model.encoder.") for name in run_few_shot(model).deltas}
    assert "layers.1.self_attn.q_proj.weight" in found and not [name for name in found if ".layers.2." in name]


def test_few_shot_passes_over_its_images_in_turn() -> None:
    latents = torch.arange(3.0).reshape(3, 1, 1, 1)
    seen = [next_batch(latents, 2, step, torch.Generator()).flatten().tolist() for step in range(3)]
    assert seen == [[0, 1], [2, 0], [1, 2]]


def test_few_shot_without_images() -> None:
    erasure = few_shot(FakeModel(), "cat", FewShotSettings(steps=2, learning_rate=1e-3), images=None)
    assert erasure.origins[0].settings["images"] == 0
    assert max(float(change.abs().max()) for change in dense(erasure).values()) > 1e-4


@pytest.mark.parametrize("images", [IMAGES, None])
def test_few_shot_ends_once_the_error_has_grown(images: torch.Tensor | None) -> None:
    model = FakeModel()

    def run(steps: int, growth: float = math.inf) -> Erasure:
        settings = FewShotSettings(steps=steps, learning_rate=1e-3, growth=growth)
        return few_shot(model, "cat", settings, images=images, seed=2)

    erasure = run(200, growth=1.5)
    steps = len(erasure.origins[0].losses)
    assert 2 < steps < 200
    same = run(steps)
    assert all(torch.equal(a, b) for a, b in zip(dense(same).values(), dense(erasure).values(), strict=True))
    latents = torch.empty(0, 4, 4, 4)
    if images is not None:
        latents = model.encode_images(images[torch.randperm(4, generator=torch.Generator().manual_seed(2))])
    watch = Watch(model, latents, TEMPLATES["object"][0].format("cat"), seed=2)
    grown = []
    for count in (steps - 1, steps):
        deltas = dense(run(count))
        grown.append(watch.growth(model.with_weights({n: model.text[n] + change for n, change in deltas.items()})))
    assert grown[0] < 1.5 <= grown[1]


def test_few_shot_with_a_growth_that_makes_no_sense() -> None:
    for growth in (1.0, math.nan):
        with pytest.raises(ValueError, match="growth must be above 1"):
            few_shot(FakeModel(), "cat", FewShotSettings(growth=growth), images=IMAGES)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(0, 3, 4, 4), r"images must be \[n, 3, height, width\]"),
        (torch.rand(4, 4, 3), r"images must be"),
        (torch.rand(2, 3, 4, 4) * 255, "from 0 to 1"),
        (torch.full((2, 3, 4, 4), math.nan), "finite"),
    ],
)
def test_images_that_cannot_be_used(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few_shot(FakeModel(), "cat", images=images)


def test_few_shot_takes_one_concept_and_by_ascent_no_replacement() -> None:
    with pytest.raises(ValueError, match="one concept at a time"):
        few_shot(FakeModel(), "cat\ndog", images=IMAGES)
    with pytest.raises(ValueError, match="no replacement with the objective 'ascent'; write 'cat' without"):
        few_shot(FakeModel(), "cat -> dog", FewShotSettings(), images=IMAGES)


@pytest.mark.parametrize("alternative", [True, False])
def test_abo_is_its_formula(alternative: bool) -> None:
    """By hand on a model whose output is a number: 3 for the empty prompt, and so on."""

    class Scores:
        def __init__(self, empty: float, concept: float, other: float, kept: float):
            self.values = torch.tensor([empty, concept, other, kept])

        def predict_noise(self, latents, timesteps, conditioning):
            return self.values[conditioning.context[:, 0, 0].long()][:, None, None, None].expand_as(latents)

    def prompt(index: int) -> Conditioning:
        return Conditioning(torch.full((2, 1, 1), float(index)))

    contexts = Contexts(prompt(1), prompt(2) if alternative else None, prompt(0), prompt(3))
    frozen, edited = Scores(3, 10, 5, 7), Scores(2, 8, 99, 6)
    loss = abo_loss(frozen, edited, torch.zeros(2, 1, 1, 1), torch.zeros(2), contexts, 0.5, 0.25)
    guidance = (8 - 2) - ((5 - 3) if alternative else 0)
    assert float(loss) == pytest.approx(guidance**2 + 0.5 * (2 - 3) ** 2 + 0.25 * (6 - 7) ** 2)


def test_abo_is_at_its_goal_when_the_two_guide_alike() -> None:
    model = FakeModel()
    dog = model.encode_prompts(["dog"]).expand(2)
    empty = model.encode_prompts([""]).expand(2)
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    loss = abo_loss(model, model, latents, torch.tensor([3, 50]), Contexts(dog, dog, empty, None), 1.0, 1.0)
    assert float(loss) == 0


def test_abo_states_come_from_both_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    original = abo_module.trajectories

    def record(model, prompts, seeds, **settings):
        seen["prompts"] = prompts
        latents, times = original(model, prompts, seeds, **settings)
        seen["count"] = len(latents)
        return latents, times

    monkeypatch.setattr(abo_module, "trajectories", record)
    run_abo(FakeModel(), trajectories=6, sampling_steps=5)
    assert sum("cat" in prompt for prompt in seen["prompts"]) == 3 and seen["count"] == 30


@pytest.mark.parametrize(("prompt", "problem"), [("dog -> fox", "says what to draw"), ("(dog:1.3)", "sets a weight")])
def test_abo_preserves_prompts_that_are_text(prompt: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"preserve lists '.*', which {problem}"):
        run_abo(FakeModel(), preserve=["", prompt])


@pytest.mark.parametrize("prompt", ["Cat", "the cat's", "cats", "a  cat_"])
def test_abo_does_not_preserve_what_it_erases(prompt: str) -> None:
    with pytest.raises(ValueError, match="preserve lists '.*', which is to be erased"):
        run_abo(FakeModel(), preserve=["", prompt])


def test_abo_tells_of_a_prompt_that_names_what_it_erases(caplog) -> None:
    run_abo(FakeModel(), preserve="two cats on a mat")
    assert "preserve lists 'two cats on a mat', which names 'cat'" in caplog.text


def test_abo_takes_no_concept_for_its_own_alternative() -> None:
    with pytest.raises(ValueError, match="'cats -> the cat' maps a concept to itself"):
        abo(FakeModel(), "cats", alternative="the cat")


def test_abo_says_what_it_trained_and_that_it_samples() -> None:
    told: list[str] = []
    erasure = run_abo(FakeModel(), scope="attention", rank=2, callback=lambda done, total, what: told.append(what))
    assert (erasure.origins[0].settings["scope"], erasure.origins[0].settings["rank"]) == ("attention", 2)
    assert told[0] == "sampling"


def test_abo_with_a_scope_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="scope must be one of cross-attention, attention, unet, got 'vae'"):
        run_abo(FakeModel(), scope="vae")


def test_doco_needs_an_anchor() -> None:
    with pytest.raises(ValueError, match="needs an anchor: write 'cat -> ' and the harmless class"):
        doco(FakeModel(), "cat")


def test_doco_waits_for_its_discriminator() -> None:
    """The first update of Adam moves every weight by the learning rate: there is one, after three quiet steps.

    Before it AdamW shortens the weight by the rate's hundredth.
    """
    once, before = dense(run_doco(FakeModel(), steps=4, warm_up=0.75, learning_rate=1e-3)), FakeModel().weights
    moved = max(float((change + 1e-5 * before[name]).abs().max()) for name, change in once.items())
    assert moved == pytest.approx(1e-3, rel=1e-2)
    with pytest.raises(ValueError, match="warm_up 0.99 leaves none of 4 steps"):
        run_doco(FakeModel(), steps=4, warm_up=0.99)


@METHODS
def test_training_that_changes_nothing_is_an_error(run: Callable) -> None:
    for rank in (None, 2):
        with pytest.raises(TrainingError, match="changed nothing; raise the learning rate"):
            run(FakeModel(), learning_rate=1e-12, rank=rank)


def test_doco_losses_by_hand() -> None:
    judge = patch_discriminator((4, 4, 4), seed=0)
    real, fake = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    by_hand = (F.softplus(judge(real)).mean() + F.softplus(-judge(fake)).mean()) / 2
    torch.testing.assert_close(discriminator_loss(judge, real, fake), by_hand)
    torch.testing.assert_close(adversarial_loss(judge, fake), F.softplus(judge(fake)).mean())


def test_doco_keeps_the_two_sides_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The discriminator learns from detached pictures; the generator's step leaves it no gradient."""
    told = []
    teach = doco_module._teach

    def watched_teach(judge, optimiser, penalty, lesson):
        told.extend((sides.real.requires_grad, sides.fake.requires_grad) for sides in lesson)
        assert all(parameter.grad is None for parameter in judge.parameters()), "the generator's step reached it"
        return teach(judge, optimiser, penalty, lesson)

    monkeypatch.setattr(doco_module, "_teach", watched_teach)
    run_doco(FakeModel())
    assert len(told) == 6 and not any(a or b for a, b in told)


def test_doco_that_ends_before_the_model_learns_is_an_error() -> None:
    with pytest.raises(TrainingError, match="seconds: after 1e-09 only the discriminator had learned"):
        doco(FakeModel(), "cat -> dog", DoCoSettings(steps=10, warm_up=0.5), anchors=2, seconds=1e-9)
