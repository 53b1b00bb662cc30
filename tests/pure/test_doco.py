"""DoCo: its first updates, published and ours, against its formula (arXiv 2405.15304); anchors and discriminator."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pure.fakes import Adam, FakeModel, Uneven
from pure.learned import dense, run_doco
from torch import Tensor
from torch.func import functional_call

from erasure_core import Conditioning
from erasure_core.methods import doco as doco_module
from erasure_core.methods.doco import DOCO, DoCoSettings, check_latents, doco
from erasure_core.training.gan import (
    ConditionalDiscriminator,
    adversarial_loss,
    clipped,
    discriminator_loss,
    patch_discriminator,
)
from erasure_core.training.loop import TrainingError

BETAS = 0.5, 0.999
CAPTIONS = ["red fish", "a red fish in water", "two red fish", "the red fish", "red fish and chips"]
SHOWN = [caption.replace("red fish", "dog") for caption in CAPTIONS]
PRESERVED = ["bird", "green boat"]
LATENTS = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(2))
PUBLISHED = DoCoSettings(steps=6, warm_up=0.3, batch_size=3, learning_rate=1e-2, discriminator_rate=2e-3)
OURS = replace(PUBLISHED, flips=False, batch_norm=False, conditional=True, discriminator_updates=3, preserve_weight=0.7)


def slopes(loss: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def cut(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradients, no longer than 1 all together."""
    length = torch.cat([one.flatten() for one in found.values()]).norm()
    return {name: one / max(1.0, float(length)) for name, one in found.items()}


def critic_of(settings: DoCoSettings) -> torch.nn.Module:
    if settings.conditional:
        return ConditionalDiscriminator((4, 8, 8), 6, 24, batch_norm=settings.batch_norm)
    return patch_discriminator((4, 8, 8), 6, batch_norm=settings.batch_norm)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("settings", [PUBLISHED, OURS], ids=["published", "ours"])
def test_doco_is_its_formula(settings: DoCoSettings, kind: str) -> None:
    model = Uneven(prediction_type=kind)
    erasure = doco(
        model, "red fish", settings, anchor="dog", anchor_latents=LATENTS, captions=CAPTIONS, preserve=PRESERVED, seed=6
    )

    draws = torch.Generator().manual_seed(6)
    judge = critic_of(settings)
    critic = {name: weight.detach() for name, weight in judge.named_parameters()}
    weights = {name: weight.clone() for name, weight in model.weights.items()}
    concept, anchor, kept = (model.encode_prompts(prompts) for prompts in (CAPTIONS, SHOWN, [*SHOWN, *PRESERVED]))
    ours, theirs = Adam(1e-2, settings.momentum, 0.999, decay=1e-2), Adam(2e-3, *BETAS)
    losses, conflicts, past = [], [], []
    for step in range(6):
        which = torch.randint(5, (3,), generator=draws)
        clean = LATENTS[which]
        if settings.flips:
            mirrored = torch.rand(3, generator=draws) < 0.5
            clean = torch.stack([one.flip(-1) if turn else one for one, turn in zip(clean, mirrored, strict=True)])
        times = torch.randint(100, (3,), generator=draws)
        noise = torch.randn(clean.shape, generator=draws)
        a = model.alphas_cumprod[times].sqrt().float()[:, None, None, None]
        b = (1 - model.alphas_cumprod[times]).sqrt().float()[:, None, None, None]
        noisy = a * clean + b * noise
        for weight in weights.values():
            weight.requires_grad_()

        def output(own: dict[str, Tensor], text: Conditioning, noisy=noisy, times=times) -> Tensor:
            return model.with_weights(own).predict_noise(noisy, times, text)

        def seen(output: Tensor, noisy=noisy, a=a, b=b) -> Tensor:
            """The clean latents that a model's output implies."""
            return (noisy - b * output) / a if kind == "epsilon" else a * noisy - b * output

        def verdict(own: dict[str, Tensor], clean: Tensor, context) -> Tensor:
            if settings.conditional:
                return functional_call(judge, own, (clean, *context))
            return functional_call(judge, own, (clean,))

        def loss_of(own: dict[str, Tensor], real: Tensor, fake: Tensor, context) -> Tensor:
            """0 is the anchor, 1 is the concept."""
            real = real.clone().requires_grad_()
            told = verdict(own, real, context)
            loss = (F.softplus(told).mean() + F.softplus(-verdict(own, fake, context)).mean()) / 2
            steep = torch.autograd.grad(told.sum(), real, create_graph=True)[0].flatten(1).norm(dim=1)
            return loss + settings.gradient_penalty * (steep * steep).mean()

        context = noisy, model.alphas_cumprod[times], anchor[which]
        real = seen(output(model.weights, anchor[which])).detach()
        fake = seen(output(weights, concept[which]))
        now, lessons = (real, fake.detach(), context), []
        for _ in range(settings.discriminator_updates):
            lesson = [now]
            if settings.replay and past:
                lesson += [past[one] for one in torch.randint(len(past), (3,), generator=draws).tolist()]
            critic = {name: weight.detach().requires_grad_() for name, weight in critic.items()}
            loss = sum(loss_of(critic, *one) for one in lesson) / len(lesson)
            lessons.append(float(loss.detach()))
            critic = theirs.step(critic, slopes(loss, critic))
        losses.append(lessons[0])
        past.append(now)
        if step < 2:
            continue
        unlearn = cut(slopes(F.softplus(verdict(critic, fake, context)).mean(), weights))
        truth = noise if kind == "epsilon" else a * noise - b * clean
        text, weight = anchor[which], settings.preserve_weight
        if weight:
            text = kept[torch.randint(7, (3,), generator=draws)]
            truth = output(model.weights, text).detach()
        keep = cut(slopes((output(weights, text) - truth).square().mean(), weights))
        for name, gradient in unlearn.items():
            inner = (gradient * keep[name]).sum()
            conflicts.append(bool(inner < 0))
            if inner < 0:
                unlearn[name] = gradient - inner / (keep[name] * keep[name]).sum() * keep[name]
            unlearn[name] = unlearn[name] + weight * keep[name]
        weights = ours.step(weights, unlearn)

    assert any(conflicts) and not all(conflicts), "the surgery is not tried both ways"
    assert erasure.origins[0].losses == pytest.approx(losses, rel=1e-4)
    for name, weight in weights.items():
        change = weight.detach() - model.weights[name]  # Adam turns rounding of small gradients into whole steps
        assert float((erasure.deltas[name].dense() - change).norm()) < 1e-2 * float(change.norm())


def test_presets_are_those_of_the_authors_commands() -> None:
    """The rate is theirs, 6e-6, times the batch, as their option scale_lr has it."""
    published, style = DOCO["published"], DOCO["published-style"]
    assert published == DoCoSettings() and published.learning_rate == pytest.approx(6e-6 * published.batch_size)
    assert (published.steps, published.warm_up_steps, published.discriminator_rate) == (2000, 1000, 1e-4)
    assert style == replace(published, kind="style", discriminator_rate=5e-4)
    assert not published.needs_common and DOCO["object"].needs_common


def test_large_gradients_are_cut_together() -> None:
    large, small = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])], [torch.tensor([0.3]), torch.zeros(2)]
    assert [one.tolist() for one in clipped(large, 1.0)] == [pytest.approx([0.6, 0.0]), [[pytest.approx(0.8)]]]
    assert all(torch.equal(*pair) for pair in zip(clipped(small, 1.0), small, strict=True))
    assert [one.tolist() for one in clipped([torch.zeros(2)], 1.0)] == [[0.0, 0.0]]


def test_a_conditional_discriminator_reads_each_of_its_inputs() -> None:
    judge = ConditionalDiscriminator((4, 8, 8), 3, 24)
    clean, latents = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alphas, text = torch.tensor([0.9, 0.1], dtype=torch.float64), FakeModel().encode_prompts(["cat", "dog"])
    given = {"clean": clean, "latents": latents, "alphas": alphas, "captions": text}
    found = judge(**given)
    assert found.shape[:2] == (2, 1)
    for name, other in {
        "clean": clean.flip(0), "latents": latents.flip(0), "alphas": alphas.flip(0), "captions": text[[1, 0]]
    }.items():  # fmt: skip
        assert not torch.allclose(judge(**{**given, name: other}), found, atol=1e-5), f"it does not read {name}"


def test_drawn_anchors_have_the_captions_of_the_concept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The anchor's stand in for the concept's, word for word; what else is in the pictures is the same."""
    drawn, encoded = [], []

    class Recorded(FakeModel):
        def encode_prompts(self, prompts):
            encoded.append(list(prompts))
            return super().encode_prompts(prompts)

    def record(model, prompts, seeds, **settings):
        drawn.extend(zip(prompts, seeds, strict=True))
        return torch.zeros(len(prompts), 4, 4, 4)

    monkeypatch.setattr(doco_module, "sample_latents", record)
    settings = DoCoSettings("style", steps=2, batch_size=2, learning_rate=1e-3)
    doco(Recorded(tokens=16), "oil -> ink", settings, anchors=5, seed=7)
    (pairs,) = [prompts for prompts in encoded if len(prompts) == 10]
    assert [prompt for prompt, _ in drawn] == pairs[:5] and [seed for _, seed in drawn] == [7, 8, 9, 10, 11]
    assert pairs[:5] == [caption.replace("oil", "ink") for caption in pairs[5:]] and len(set(pairs)) == 10


@pytest.mark.parametrize("settings", [DoCoSettings("style"), DOCO["style"]], ids=["published", "ours"])
def test_a_style_without_an_anchor_becomes_that_of_plain_captions(settings: DoCoSettings, monkeypatch) -> None:
    drawn: list[str] = []

    def record(model, prompts, seeds, **settings):
        drawn.extend(prompts)
        return torch.zeros(len(prompts), 4, 4, 4)

    monkeypatch.setattr(doco_module, "sample_latents", record)
    settings = replace(settings, steps=2, batch_size=2, warm_up=0.0, learning_rate=1e-3)
    erasure = doco(FakeModel(tokens=16), "oil", settings, anchors=8)
    assert len(drawn) == 8 and not any("oil" in prompt or "style" in prompt for prompt in drawn)
    assert [str(concept) for concept in erasure.concepts] == ["oil"]


def test_latents_without_captions_go_with_plain_wordings() -> None:
    encoded: list[list[str]] = []

    class Recorded(FakeModel):
        def encode_prompts(self, prompts):
            encoded.append(list(prompts))
            return super().encode_prompts(prompts)

    settings = DoCoSettings(steps=2, batch_size=2, warm_up=0.0, learning_rate=1e-3)
    doco(Recorded(), "cat -> dog", settings, anchor_latents=torch.randn(3, 4, 4, 4))
    wordings = [text.format("dog") for text in ("{}", "a {}", "a photo of a {}", "a picture of the {}")]
    assert encoded[-1] == wordings + [text.replace("dog", "cat") for text in wordings]


def test_captions_of_latents_that_do_not_fit() -> None:
    given = {"anchor_latents": torch.randn(3, 4, 4, 4)}
    with pytest.raises(ValueError, match="captions must be one for each of 3 images, got 2"):
        doco(FakeModel(), "cat -> dog", captions=["a cat", "the cat"], **given)
    with pytest.raises(ValueError, match="captions: 'a dog' does not name 'cat'"):
        doco(FakeModel(), "cat -> dog", captions=["a dog"] * 3, **given)


def test_preserved_prompts_change_less() -> None:
    model = Uneven()
    for preserve_weight, most in ((0.0, 1.0), (20.0, 0.5)):
        settings = replace(OURS, steps=30, preserve_weight=preserve_weight)
        given = {"anchor_latents": LATENTS, "captions": CAPTIONS, "preserve": PRESERVED}
        erasure = doco(model, "red fish -> dog", settings, **given)
        edited = model.with_weights({name: model.weights[name] + one.dense() for name, one in erasure.deltas.items()})
        times, texts = torch.full((2,), 50), model.encode_prompts(PRESERVED)
        moved = [one.predict_noise(LATENTS[:2], times, texts) for one in (model, edited)]
        drift = float((moved[1] - moved[0]).square().mean())
        if not preserve_weight:
            free = drift
        assert drift <= most * free


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
