"""What the learned methods share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pure.fakes import FakeModel, TwoTowers

from erasure_core import UnsupportedModelError
from erasure_core.sampling.ddim import split_prediction
from erasure_core.training.denoising import conditioning_gradient, denoising_error, denoising_target, noised
from erasure_core.training.gan import patch_discriminator, preserving
from erasure_core.training.loop import Budget, TrainingError, check_fell, gradients, train
from erasure_core.training.trainable import StandIns, layers_of

quick = settings(max_examples=30)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_training_stops_after_its_steps_and_tells_each_loss() -> None:
    told = []
    losses = train(lambda step: torch.tensor(float(step)), Budget(4), callback=lambda *seen: told.append(seen))
    assert losses == (0, 1, 2, 3)
    assert [seen[:2] for seen in told] == [(1, 4), (2, 4), (3, 4), (4, 4)] and "loss 3" in told[-1][2]


def test_training_stops_when_its_seconds_are_over(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    clock = iter(range(1000, 1100))
    monkeypatch.setattr("erasure_core.training.loop.time.monotonic", lambda: float(next(clock)))
    assert len(train(lambda step: torch.tensor(1.0), Budget(50, seconds=3.5))) == 4
    assert "training: ended after 4 of 50 steps, when 3.5 seconds had passed" in caplog.text


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 5e4])
def test_training_stops_at_a_loss_that_makes_no_sense(bad: float) -> None:
    values = iter([1.0, 2.0, bad, 1.0])
    with pytest.raises(TrainingError, match=r"step 3|in 3 steps"):
        train(lambda step: torch.tensor(next(values)), Budget(4))


@pytest.mark.parametrize(
    ("losses", "explodes"),
    [([0.5, 999], False), ([0.5, 1001], True), ([0.5, -1001], True), ([20, 19_000], False), ([20, 2.1e4], True)],
)
def test_a_loss_explodes_at_a_thousand_times_the_first(losses: list[float], explodes: bool) -> None:
    """Or at a thousand, where it began below 1."""
    values = iter(losses)
    if not explodes:
        assert train(lambda step: torch.tensor(float(next(values))), Budget(2)) == tuple(losses)
        return
    with pytest.raises(TrainingError, match=rf"from {losses[0]:.3g} to .* in 2 steps; nothing was changed"):
        train(lambda step: torch.tensor(float(next(values))), Budget(2))


def test_a_parameter_that_the_loss_does_not_know_has_no_gradient() -> None:
    known, unknown = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = gradients((known * 2).sum(), [known, unknown])
    assert [one.tolist() for one in found] == [[2, 2], [0, 0, 0]]


@pytest.mark.parametrize("kind", [FakeModel, TwoTowers])
def test_the_gradient_of_a_conditioning_is_found_latent_by_latent(kind: type[FakeModel]) -> None:
    model = kind(prediction_type="v_prediction")
    clean, noise = torch.randn(2, 3, 4, 4, 4, generator=generator())
    conditioning = model.encode_prompts(["cat", "dog", ""])
    times = torch.tensor([3, 50, 90])
    leaf = conditioning.clone().requires_grad_()
    whole = denoising_error(model, clean, noise, times, leaf)
    error, slope = conditioning_gradient(model, clean, noise, times, conditioning)
    torch.testing.assert_close(error, whole.detach())
    for found, expected in zip(slope.tensors, torch.autograd.grad(whole, leaf.tensors), strict=True):
        torch.testing.assert_close(found, expected)
    assert not error.requires_grad and not any(one.requires_grad for one in slope.tensors)


def test_low_rank_stand_ins_begin_with_rows_of_length_one() -> None:
    """And draw them from their own generator."""
    state = torch.get_rng_state()
    one, other = (StandIns({"a": torch.zeros(5, 4000)}, 3, generator(seed)) for seed in (1, 2))
    up, down = one.parameters
    assert not up.any() and down.norm(dim=1).tolist() == pytest.approx([1, 1, 1], rel=0.1)
    assert not torch.equal(down, other.parameters[1]) and torch.equal(torch.get_rng_state(), state)


def test_a_loss_that_has_risen_is_told() -> None:
    check_fell([1.0] + 9 * [0.5] + [1.9])
    check_fell([1.0] + 8 * [9.0])
    with pytest.raises(TrainingError):
        check_fell([1.0] + 9 * [9.0])
    check_fell(10 * [0.0])
    with pytest.raises(TrainingError, match=r"rose from 1 to 2\.5 in 20 steps; nothing was changed"):
        check_fell([1.0] + 17 * [0.1] + [2.0, 3.0])


def test_training_ends_when_it_is_enough() -> None:
    done = []
    losses = train(lambda step: torch.tensor(1.0), Budget(9), enough=lambda: bool(done.append(1)) or len(done) == 3)
    assert len(losses) == 3


def test_a_cancel_ends_training_within_a_step() -> None:
    seen = []

    def cancel(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(lambda step: seen.append(step) or torch.tensor(1.0), Budget(9), callback=cancel)
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("steps", "seconds", "message"), [(0, None, "steps"), (1.5, None, "steps"), (1, 0, "seconds"), (1, -2.0, "seconds")]
)
def test_budgets_that_make_no_sense(steps, seconds, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message} must be"):
        Budget(steps, seconds)


@pytest.mark.parametrize("rank", [None, 2])
def test_stand_ins_start_as_the_weights_and_give_what_was_learned(rank: int | None) -> None:
    weights = {"a.weight": torch.randn(6, 4, generator=generator()), "a.bias": torch.ones(6)}
    stand_ins = StandIns(weights, rank, generator())
    for name, weight in stand_ins.weights().items():
        assert torch.equal(weight, weights[name])
    optimiser = torch.optim.Adam(stand_ins.parameters, 0.1)
    for _ in range(3):
        sum(weight.square().sum() for weight in stand_ins.weights().values()).backward()
        optimiser.step()
    deltas, learned = stand_ins.deltas(), stand_ins.weights()
    assert list(deltas) == list(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(weight + deltas[name].dense(), learned[name].detach())
        assert not torch.equal(weight, learned[name])
    if rank:
        assert deltas["a.weight"].rank == rank
    assert torch.equal(weights["a.bias"], torch.ones(6)) and not weights["a.weight"].requires_grad


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize(("share", "changed"), [(1e-6, True), (1e-8, False)])
def test_a_change_is_one_relative_to_its_weight(size: float, share: float, changed: bool) -> None:
    stand_ins = StandIns({"a.weight": torch.full((4, 4), size)}, 1, generator())
    with torch.no_grad():
        for factor in stand_ins.parameters:
            factor.fill_(math.sqrt(size * share))
    if changed:
        assert stand_ins.deltas()["a.weight"].dense().mean() == pytest.approx(size * share)
        return
    with pytest.raises(TrainingError, match="training changed nothing; raise the learning rate, or steps"):
        stand_ins.deltas()


def test_stand_ins_take_inference_tensors() -> None:
    with torch.inference_mode():
        weights = {"a.weight": torch.ones(2, 2)}
    stand_ins = StandIns(weights, None, generator())
    stand_ins.weights()["a.weight"].square().sum().backward()
    assert torch.equal(stand_ins.parameters[0].grad, torch.full((2, 2), 2.0))


def test_stand_ins_refuse_what_cannot_be_trained() -> None:
    with pytest.raises(UnsupportedModelError, match=r"a\.weight holds NaN"):
        StandIns({"a.weight": torch.tensor([[math.nan]])}, None, generator())
    with pytest.raises(ValueError, match="rank must be at least 1"):
        StandIns({"a.weight": torch.ones(2, 2)}, 0, generator())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_target_is_what_gives_the_clean_latents_back(kind: str) -> None:
    clean, noise = torch.randn(2, 3, 4, 5, 5, generator=generator())
    alphas = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    latents, target = noised(clean, noise, alphas), denoising_target(kind, clean, noise, alphas)
    torch.testing.assert_close(split_prediction(kind, target, latents, alphas)[0], clean, rtol=1e-4, atol=1e-5)
    one, _ = split_prediction(kind, target[:1], latents[:1], 0.9)
    torch.testing.assert_close(one, clean[:1], rtol=1e-4, atol=1e-5)


def test_a_prediction_type_that_is_unknown() -> None:
    with pytest.raises(ValueError, match="prediction type 'sample' is unknown; known: epsilon, v_prediction"):
        denoising_target("sample", *torch.zeros(2, 1, 4, 2, 2), torch.tensor([0.5]))


def test_layers_are_counted_by_name() -> None:
    assert layers_of(FakeModel().text) == 2
    with pytest.raises(UnsupportedModelError, match="no layers"):
        layers_of(["embeddings.weight"])


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_surgery_never_raises_the_preserved_loss_to_first_order(seed: int, scale: float) -> None:
    unlearn, preserve = torch.randn(2, 3, 4, generator=generator(seed), dtype=torch.float64)
    step = preserving(scale * unlearn, preserve)
    assert (step * preserve).sum() >= -1e-9 * scale
    assert step.norm() <= scale * unlearn.norm() * (1 + 1e-9)
    assert torch.equal(preserving(step, torch.zeros_like(step)), step)


def test_surgery_is_a_true_projection() -> None:
    """The part along the preserved gradient goes whole, whatever its length; without a conflict nothing does."""
    preserve = torch.tensor([10.0, 0.0])
    assert torch.equal(preserving(torch.tensor([-3.0, 4.0]), preserve), torch.tensor([0.0, 4.0]))
    agreeing = torch.tensor([3.0, 4.0])
    assert preserving(agreeing, preserve) is agreeing


@pytest.mark.parametrize(("side", "stages"), [(64, 4), (32, 4), (8, 2), (4, 1)])
def test_the_discriminator_fits_the_latents(side: int, stages: int) -> None:
    judge = patch_discriminator((4, side, side), seed=1)
    convolutions = [layer for layer in judge if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256, 512][:stages] + [1]
    norms = [layer for layer in judge if isinstance(layer, torch.nn.BatchNorm2d)]
    assert len(norms) == stages - 1
    assert judge(torch.zeros(2, 4, side, side)).shape == (2, 1, side >> stages, side >> stages)


def test_the_discriminator_reproduces_from_its_seed_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = (patch_discriminator((4, 8, 8), seed=2) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
