"""Erasures as values: scaling, adding, compressing, applying, carrying over."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pure.fakes import LAYERS, FakeModel, TwoTowers, digest

from erasure_core import Concept, Dense, Erasure, LowRank, Origin, UnsupportedModelError, rece, uce
from erasure_core.erasures.erasure import widened
from erasure_core.methods.rece import ReceSettings
from erasure_core.model import CONTEXT, POOLED

ORIGIN = Origin("test", (Concept("cat"),), {}, "0" * 16)
FIRST = next(iter(LAYERS))


@pytest.fixture(scope="module")
def erasure() -> Erasure:
    return rece(FakeModel(), "cat -> dog", ReceSettings(loops=2), preserve=["", "bird"])


def dense(erasure: Erasure) -> dict[str, torch.Tensor]:
    return {name: delta.dense() for name, delta in erasure.deltas.items()}


def same(one: dict, other: dict, tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance)


def mixed() -> Erasure:
    """A dense change of a matrix of rank 2, a bias, a convolution and a low-rank change; no context map."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    deltas = {
        "text_encoder.layer.weight": Dense(noise(16, 2) @ noise(2, 16)),
        "text_encoder.layer.bias": Dense(noise(16)),
        "unet.conv_in.weight": Dense(noise(4, 4, 3, 3)),
        "unet.out.weight": LowRank(noise(10, 3), noise(3, 8)),
    }
    return Erasure(deltas, (ORIGIN,))


@settings(max_examples=20)
@given(st.floats(-2, 2))
def test_scaling(strength: float) -> None:
    for erasure in (mixed(), rece(FakeModel(), "cat")):
        expected = {name: strength * change for name, change in dense(erasure).items()}
        same(dense(erasure.scaled(strength)), expected)
        if erasure.maps:
            found = erasure.scaled(strength).maps[CONTEXT].change.dense()
            torch.testing.assert_close(found, strength * erasure.maps[CONTEXT].change.dense())


def test_an_erasure_in_full_strength_is_not_copied(erasure: Erasure) -> None:
    assert erasure.scaled(1.0) is erasure


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e30, -100.5])
def test_a_strength_that_ruins_every_model(erasure: Erasure, strength: float) -> None:
    with pytest.raises(ValueError, match=r"^strength must be from -100 to 100, got "):
        erasure.scaled(strength)


def test_erasures_multiply_and_sum(erasure: Erasure) -> None:
    other = uce(FakeModel(), "red fish")
    same(dense(0.5 * erasure), dense(erasure.scaled(0.5)))
    same(dense(erasure * 2), dense(erasure.scaled(2)))
    same(dense(sum([erasure, other])), dense(erasure + other))
    assert sum([erasure]) is erasure
    for senseless in (lambda: erasure + 1, lambda: 1 + erasure, lambda: erasure * erasure, lambda: "2" * erasure):
        with pytest.raises(TypeError):
            senseless()


def copies(erasure: Erasure, tmp_path) -> list[Erasure]:
    """What takes the same concept from the same weights as ``erasure``, which is RECE's of 'cat -> dog'."""
    return [
        erasure,
        erasure.scaled(0.5),
        erasure.compressed(max_rank=1),
        Erasure.load(erasure.save(tmp_path / "a.safetensors")),
        uce(FakeModel(), "Cats"),
        rece(FakeModel(), ["bird", "cat -> fox"]),
        erasure + uce(FakeModel(), "red fish"),
    ]


def test_what_would_count_twice_is_no_sum(erasure: Erasure, tmp_path) -> None:
    for other in copies(erasure, tmp_path):
        for one, two in ((erasure, other), (other, erasure)):
            with pytest.raises(ValueError, match="^both erasures take '(cat -> dog|Cats|cat -> fox)' from the same we"):
                one + two


def test_what_would_count_twice_is_not_applied(erasure: Erasure, tmp_path) -> None:
    model = FakeModel()
    before = digest(model.weights)
    for other in copies(erasure, tmp_path):
        with erasure.applied_to(model):
            inside = digest(model.weights)
            with pytest.raises(ValueError, match="^the model has an erasure of '.*' already that was computed on "):
                other.over(model)
            with pytest.raises(ValueError, match="^the model has an erasure of '.*' already"), other.applied_to(model):
                pass
            assert digest(model.weights) == inside
        with pytest.raises(ValueError, match="^the model has an erasure of"), other.applied_to(erasure.over(model)):
            pass
    assert digest(model.weights) == before
    with erasure.applied_to(model), uce(FakeModel(), "red fish").applied_to(model):
        pass


def test_two_ways_to_erase_a_concept_from_different_weights_add_up(erasure: Erasure) -> None:
    """As RECE's of the UNet and few-shot's of the text encoder; or the second of what the first has left."""
    made = replace(erasure.origins[0], method="few_shot")
    text = Erasure({"text_encoder.layer.weight": mixed().deltas["text_encoder.layer.weight"]}, (made,))
    assert (erasure + text).concepts == (Concept("cat", "dog"),) * 2
    left = replace(erasure, origins=(replace(made, method="rece", fingerprint="of what is left"),))
    assert (erasure + left).concepts == (Concept("cat", "dog"),) * 2


def test_adding(erasure: Erasure) -> None:
    other = uce(FakeModel(), "red fish")
    both = erasure + other
    same(dense(both), {name: change + dense(other)[name] for name, change in dense(erasure).items()})
    assert both.concepts == (Concept("cat", "dog"), Concept("red fish"))
    assert both.origins == erasure.origins + other.origins
    parts = [one.maps[CONTEXT].change.dense() for one in (erasure, other)]
    torch.testing.assert_close(both.maps[CONTEXT].change.dense(), sum(parts))


def test_adding_where_only_one_changes_a_weight(erasure: Erasure) -> None:
    both = erasure + mixed()
    assert not both.maps
    same(dense(both), {**dense(erasure), **dense(mixed())})


@pytest.mark.parametrize("swapped", [False, True])
def test_a_sum_is_as_inexact_as_the_less_exact_of_both(erasure: Erasure, swapped: bool) -> None:
    pair = replace(erasure, error=0.25), replace(uce(FakeModel(), "red fish"), error=0.5)
    one, other = pair[::-1] if swapped else pair
    assert (one + other).error == 0.5


def test_what_was_computed_on_different_weights_adds_up_without_maps(erasure: Erasure) -> None:
    """The second's map is of other weights, so the sum of both maps is of none."""
    elsewhere = uce(FakeModel(seed=5), "red fish")
    assert erasure.maps and elsewhere.maps
    for both in (erasure + elsewhere, elsewhere + erasure):
        assert not both.maps
        with pytest.raises(ValueError, match="made by .*, .* keeps no context map"):
            both.rebased_on(FakeModel())
    sum_of_two = erasure + uce(FakeModel(), "bird")
    assert sum_of_two.maps and not (sum_of_two + elsewhere).maps
    both = replace(uce(FakeModel(), "bird"), origins=uce(FakeModel(), "bird").origins + elsewhere.origins)
    assert not (erasure + both).maps and not (both + erasure).maps
    model = FakeModel()
    with erasure.applied_to(model):
        assert not (erasure + uce(model, "red fish")).maps


def test_maps_of_different_layers_do_not_add_up(erasure: Erasure) -> None:
    (entry,), bird = erasure.maps, uce(FakeModel(), "bird")
    fewer = replace(bird, maps={entry: replace(bird.maps[entry], names=bird.maps[entry].names[1:])})
    other = replace(bird, maps={"other": bird.maps[entry]})
    shifted = replace(bird, maps={entry: replace(bird.maps[entry], columns=(0, 24))})
    for one in (fewer, other, shifted):
        assert not (erasure + one).maps and not (one + erasure).maps


def test_a_map_of_some_columns_is_zero_in_the_others() -> None:
    """The pooled text of SDXL comes first in its layer; a place in the middle has zeros on both sides."""
    down = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert widened(down, (0, 2), 5).tolist() == [[1, 2, 0, 0, 0], [3, 4, 0, 0, 0]]
    assert widened(down, (1, 3), 4).tolist() == [[0, 1, 2, 0], [0, 3, 4, 0]]
    assert widened(down, (3, 5), 5).tolist() == [[0, 0, 0, 1, 2], [0, 0, 0, 3, 4]]
    assert widened(down, None, 2) is down


def test_adding_low_rank_to_dense() -> None:
    one = Erasure({FIRST: LowRank(torch.ones(3, 1), torch.ones(1, 2))}, (ORIGIN,))
    other = Erasure({FIRST: Dense(torch.ones(3, 2))}, (replace(ORIGIN, concepts=(Concept("dog"),)),))
    assert torch.equal((one + other).deltas[FIRST].dense(), torch.full((3, 2), 2.0))


def test_adding_erasures_of_different_models(erasure: Erasure) -> None:
    with pytest.raises(ValueError, match=r"different models: .* is \(12, 24\) in one, \(12, 20\) in the other"):
        erasure + uce(FakeModel(width=20), "cat")
    with pytest.raises(TypeError):
        erasure + 1


@settings(max_examples=20)
@given(st.integers(1, 24), st.floats(0, 0.9))
def test_compression_keeps_its_word(max_rank: int, tolerance: float) -> None:
    erasure = rece(FakeModel(), "cat -> dog\nbird", ReceSettings(loops=1))
    small = erasure.compressed(max_rank=max_rank, tolerance=tolerance)
    whole, left = dense(erasure), dense(small)
    lost = sum(float((left[name] - whole[name]).square().sum()) for name in whole)
    error = (lost / sum(float(change.square().sum()) for change in whole.values())) ** 0.5
    assert small.error == pytest.approx(error, rel=1e-3, abs=1e-6)
    assert small.rank <= max_rank
    if small.rank < min(max_rank, erasure.rank):
        assert error <= tolerance + 1e-6
    assert len({id(delta.down) for delta in small.deltas.values()}) == 1
    assert small.maps[CONTEXT].change.down is small.deltas[FIRST].down


def test_compression_is_the_best_of_its_rank(erasure: Erasure) -> None:
    stacked = torch.cat(list(dense(erasure).values())).double()
    tail = torch.linalg.svdvals(stacked)[3:]
    assert erasure.compressed(max_rank=3).error == pytest.approx(float(tail.norm() / stacked.norm()), rel=1e-3)


def test_compression_without_a_context_map() -> None:
    small = mixed().compressed(tolerance=1e-6)
    assert small.deltas["text_encoder.layer.weight"].rank == 2
    assert isinstance(small.deltas["text_encoder.layer.bias"], Dense)
    assert isinstance(small.deltas["unet.conv_in.weight"], Dense)
    same(dense(small), dense(mixed()))


def test_compression_that_would_not_shrink_keeps_a_dense_change() -> None:
    erasure = Erasure({FIRST: Dense(torch.eye(6))}, (ORIGIN,))
    assert isinstance(erasure.compressed(tolerance=1e-6).deltas[FIRST], Dense)


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"max_rank": 0}, "max_rank"), ({"tolerance": 1.0}, "tolerance"), ({"tolerance": -0.1}, "tolerance")],
)
def test_limits_that_cannot_be_used(erasure: Erasure, limits: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        erasure.compressed(**limits)


def test_applying_and_restoring(erasure: Erasure) -> None:
    model = FakeModel()
    before, originals = digest(model.weights), dict(model.weights)
    with erasure.applied_to(model) as same_model:
        assert same_model is model
        for name, change in dense(erasure).items():
            torch.testing.assert_close(model.weights[name], originals[name] + change)
    assert digest(model.weights) == before
    assert all(model.weights[name] is originals[name] for name in originals)


def test_restoring_after_an_exception(erasure: Erasure) -> None:
    model = FakeModel()
    before, originals = digest(model.weights), dict(model.weights)
    with pytest.raises(KeyboardInterrupt), erasure.applied_to(model):
        raise KeyboardInterrupt
    assert digest(model.weights) == before
    assert all(model.weights[name] is originals[name] for name in originals)


def test_erasures_nest(erasure: Erasure) -> None:
    model = FakeModel()
    before = digest(model.weights)
    with erasure.applied_to(model):
        second = uce(model, "red fish")
        inside = digest(model.weights)
        with second.applied_to(model):
            assert digest(model.weights) != inside
        assert digest(model.weights) == inside
    assert digest(model.weights) == before
    assert second.origins[0].fingerprint != erasure.origins[0].fingerprint


def test_an_erasure_cannot_be_changed(erasure: Erasure) -> None:
    with pytest.raises(FrozenInstanceError):
        erasure.error = 1.0
    with pytest.raises(TypeError):
        erasure.deltas[FIRST] = None


def test_rebasing_is_computing_on_the_other_model() -> None:
    """Exact for one step, whose map does not depend on the weights."""
    other = FakeModel(seed=5)
    carried = uce(FakeModel(), "cat -> dog").rebased_on(other)
    computed = uce(other, "cat -> dog")
    same(dense(carried), dense(computed))
    assert carried.origins == computed.origins


def test_rebasing_loops_on_a_model_with_the_same_gram_matrix() -> None:
    """A rotation of each layer's output leaves what the loop sees as it was."""
    model, other = FakeModel(), FakeModel()
    for name, weight in model.weights.items():
        square = torch.randn(len(weight), len(weight), generator=torch.Generator().manual_seed(9))
        other.weights[name] = torch.linalg.qr(square)[0] @ weight
    carried = rece(model, "cat -> dog", ReceSettings(loops=2)).rebased_on(other)
    same(dense(carried), dense(rece(other, "cat -> dog", ReceSettings(loops=2))), 1e-3)


def test_what_cannot_be_rebased() -> None:
    with pytest.raises(ValueError, match="made by test keeps no context map"):
        mixed().rebased_on(FakeModel())
    with pytest.raises(ValueError, match="read as context 24 wide, the model reads it as context 20 wide"):
        uce(FakeModel(), "cat").rebased_on(FakeModel(width=20))


@pytest.fixture
def halved(monkeypatch) -> Erasure:
    """As ``erasure``, but with changes too large for float32."""
    monkeypatch.setattr("erasure_core.erasures.erasure.MOST_BYTES", 1500)
    return rece(FakeModel(), "cat -> dog", ReceSettings(loops=2), preserve=["", "bird"])


def test_large_changes_are_kept_in_half_precision(erasure: Erasure, halved: Erasure) -> None:
    assert {delta.up.dtype for delta in halved.deltas.values()} == {torch.float16}
    exact, found = dense(erasure), dense(halved)
    lost = sum(float((found[name] - exact[name]).square().sum()) for name in exact)
    whole = sum(float(change.square().sum()) for change in exact.values())
    assert 0 < halved.error < 1e-3 and erasure.error == 0
    assert (lost / whole) ** 0.5 == pytest.approx(halved.error, rel=0.3)
    same(dense(halved.rebased_on(FakeModel(seed=5))), dense(erasure.rebased_on(FakeModel(seed=5))), 5e-3)
    assert halved.rebased_on(FakeModel(seed=5)).error > 0


def test_half_precision_goes_through_what_is_made_of_it(erasure: Erasure, halved: Erasure, tmp_path) -> None:
    bird = uce(FakeModel(), "bird")
    same(dense(halved + bird), dense(erasure + bird), 5e-3)
    same(dense(halved.compressed(tolerance=1e-6)), dense(erasure), 5e-3)
    back = Erasure.load(halved.save(tmp_path / "half.safetensors"))
    same(dense(back), dense(halved), 0)
    assert back.error == halved.error
    erasure.save(tmp_path / "whole.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.8 * sizes[1]


def test_changes_out_of_the_range_of_half_precision(halved: Erasure) -> None:
    model = FakeModel()
    model.weights = {name: 1e7 * weight for name, weight in model.weights.items()}
    with pytest.raises(UnsupportedModelError, match="too large for float16"):
        halved.rebased_on(model)


def test_an_erasure_says_what_it_is(erasure: Erasure) -> None:
    assert repr(erasure) == f"<Erasure: rece of 'cat -> dog'; changes 4 weights, rank {erasure.rank}>"
    assert "test of 'cat'; changes 4 weights" in repr(mixed())
    both = erasure + replace(mixed(), deltas={FIRST: Dense(torch.ones(12, 24))})
    assert repr(both).startswith("<Erasure: rece of 'cat -> dog'; test of 'cat'; changes 4 weights")
    whole = Erasure({FIRST: Dense(torch.ones(3, 2))}, (replace(ORIGIN, concepts=(Concept("a"), Concept("b"))),))
    assert repr(whole) == "<Erasure: test of 'a', 'b'; changes 1 weights, whole weights>"


def test_what_is_carried_is_known_without_the_changes(erasure: Erasure) -> None:
    half = erasure.carried(0.5)
    assert not half.deltas and half.origins == erasure.origins
    assert torch.equal(half.maps[CONTEXT].change.dense(), 0.5 * erasure.maps[CONTEXT].change.dense())


def test_a_view_of_a_model_has_the_changes_of_both_parts(erasure: Erasure) -> None:
    model = FakeModel()
    name, before = next(iter(model.text)), model.encode_prompts(["cat"]).context
    text = Erasure({name: Dense(torch.ones(24, 24, dtype=torch.float64) / 9)}, (ORIGIN,))
    view = (erasure + text).over(model)
    assert view.text[name].dtype == torch.float32
    torch.testing.assert_close(view.text[name], model.text[name] + 1 / 9)
    torch.testing.assert_close(view.weights[FIRST], model.weights[FIRST] + erasure.deltas[FIRST].dense())
    assert not torch.equal(view.encode_prompts(["cat"]).context, before)
    assert torch.equal(model.encode_prompts(["cat"]).context, before)
    assert [one.origins for one in text.over(erasure.over(model)).erasures] == [erasure.origins, text.origins]
    for wrong in ({name: Dense(torch.ones(3, 2))}, {"unet.elsewhere.weight": Dense(torch.ones(3, 2))}):
        with pytest.raises(ValueError, match=r"changes (unet.elsewhere|text_encoder).* as \(3, 2\); it was made"):
            Erasure(wrong, (ORIGIN,)).over(model)


def test_rebasing_keeps_the_maps() -> None:
    """So that what is rebased can be rebased again."""
    erasure = rece(TwoTowers(), "red fish -> dog")
    rebased = erasure.rebased_on(TwoTowers(seed=5))
    assert rebased.maps.keys() == {CONTEXT, POOLED}
    for name, one in erasure.maps.items():
        other = rebased.maps[name]
        assert (other.names, other.columns) == (one.names, one.columns)
        assert torch.equal(other.change.dense(), one.change.dense())
    same(dense(rebased.rebased_on(TwoTowers())), dense(erasure))


def test_rebasing_on_weights_of_any_precision(erasure: Erasure) -> None:
    model = FakeModel()
    for dtype in (torch.float64, torch.bfloat16):
        model.weights = {name: weight.to(dtype) for name, weight in FakeModel().weights.items()}
        rebased = erasure.rebased_on(model)
        assert {delta.up.dtype for delta in rebased.deltas.values()} == {torch.float32}
        same(dense(rebased), dense(erasure), 0.1 if dtype == torch.bfloat16 else 1e-5)


def test_half_precision_begins_above_its_limit(erasure: Erasure, monkeypatch) -> None:
    numbers = 4 * erasure.maps[CONTEXT].change.down.numel() * len(LAYERS)
    for most, dtype in ((numbers, torch.float32), (numbers - 1, torch.float16)):
        monkeypatch.setattr("erasure_core.erasures.erasure.MOST_BYTES", most)
        assert {delta.up.dtype for delta in erasure.rebased_on(FakeModel()).deltas.values()} == {dtype}


def test_half_precision_with_a_pooled_vector(monkeypatch) -> None:
    exact = rece(TwoTowers(), "red fish -> dog")
    monkeypatch.setattr("erasure_core.erasures.erasure.MOST_BYTES", 1)
    halved = exact.rebased_on(TwoTowers())
    assert {delta.up.dtype for delta in halved.deltas.values()} == {torch.float16}
    same(dense(halved), dense(exact), 5e-3)
    assert not halved.deltas[TwoTowers.LABEL].dense()[:, TwoTowers.POOLED_WIDTH :].any()


def test_compression_of_changes_without_a_map_has_limits_too() -> None:
    small = mixed().compressed(max_rank=1)
    ranks = {name: delta.rank for name, delta in small.deltas.items() if isinstance(delta, LowRank)}
    assert ranks == {"text_encoder.layer.weight": 1, "unet.out.weight": 1} and 0.1 < small.error < 1
    same(dense(mixed().compressed(max_rank=3, tolerance=0.0)), dense(mixed()))
    nothing = Erasure({FIRST: LowRank(torch.zeros(3, 1), torch.ones(1, 2))}, (ORIGIN,))
    assert nothing.compressed(max_rank=1).error == 0


def test_compression_with_a_map_keeps_other_changes_apart(erasure: Erasure) -> None:
    name = "unet.out.weight"
    draws = torch.Generator().manual_seed(1)
    other = LowRank(torch.randn(9, 5, generator=draws), torch.randn(5, 8, generator=draws))
    small = replace(erasure, deltas={**erasure.deltas, name: other}).compressed(max_rank=2)
    assert small.deltas[name].rank == 2 and small.deltas[FIRST].rank == 2
    best = torch.linalg.svdvals(other.dense())[2:].norm()
    torch.testing.assert_close((small.deltas[name].dense() - other.dense()).norm(), best)


def test_a_dense_change_is_kept_where_low_rank_is_as_large() -> None:
    """Of rank 2, 6 by 3: 18 numbers either way."""
    change = torch.zeros(6, 3)
    change[0, 0] = change[1, 1] = 1
    assert isinstance(Erasure({FIRST: Dense(change)}, (ORIGIN,)).compressed(tolerance=1e-6).deltas[FIRST], Dense)


def test_an_erasure_is_compared_copied_and_sent_to_other_processes(erasure: Erasure) -> None:
    assert erasure == erasure and len({erasure, erasure}) == 1
    for other in (copy.copy(erasure), copy.deepcopy(erasure), pickle.loads(pickle.dumps(erasure))):
        assert other != erasure and other.origins == erasure.origins and other.maps.keys() == erasure.maps.keys()
        for name, delta in erasure.deltas.items():
            assert torch.equal(other.deltas[name].dense(), delta.dense())
