"""What few-shot, DoCo and AbO promise alike, on a model of a few thousand numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pure.fakes import FakeModel
from pure.learned import IMAGES, KINDS, METHODS, NotDrawn, Watched, bits, dense, run_abo, run_doco, run_few_shot

from erasure_core import Erasure
from erasure_core.methods.abo import abo
from erasure_core.methods.doco import doco
from erasure_core.methods.few_shot import few_shot
from erasure_core.training.loop import TrainingError


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


@METHODS
def test_a_rank_that_no_change_has_is_refused(run: Callable) -> None:
    run(FakeModel(), rank=20 if run is not run_few_shot else 24)
    with pytest.raises(ValueError, match="^rank must be at most (20|24), more than which no change .*, got 100000$"):
        run(NotDrawn(), rank=100_000)


@METHODS
def test_training_that_changes_nothing_is_an_error(run: Callable) -> None:
    for rank in (None, 2):
        with pytest.raises(TrainingError, match="changed nothing; raise the learning rate"):
            run(FakeModel(), learning_rate=1e-12, rank=rank)
