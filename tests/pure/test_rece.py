"""RECE and UCE on a model of a few thousand numbers."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from pure.calls import with_settings
from pure.fakes import LAYERS, FakeModel, digest

from erasure_core import Concept, DiffusionModel, UnsupportedModelError, edit_map, rece, uce
from erasure_core.closed_form.align import aligned_rows
from erasure_core.closed_form.already_erased import ErasedAlreadyError, remaining_share
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.linalg import SingularSystemError, stacked
from erasure_core.concepts.common import EVERYDAY_CAPTIONS
from erasure_core.erasures.low_rank import LowRank
from erasure_core.methods import METHODS
from erasure_core.methods.rece import RECE, ReceSettings, erase_statistics, rece_with_statistics, relative_change
from erasure_core.methods.uce import UceSettings
from erasure_core.model import CONTEXT, TextEntry


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


def change(erasure, name: str = next(iter(LAYERS))) -> torch.Tensor:
    return erasure.deltas[name].dense()


def values(model: FakeModel, prompt: str, name: str = next(iter(LAYERS))) -> torch.Tensor:
    return model.encode_prompts([prompt]).context[0] @ model.weights[name].T


def test_the_fake_is_a_model(model: FakeModel) -> None:
    assert isinstance(model, DiffusionModel)


def test_uce_is_the_published_minimiser(model: FakeModel) -> None:
    found = uce(model, "cat -> dog", preserve=["bird"])
    encoded = model.encoded(["cat", "dog", "bird"])
    context = encoded.conditioning.context
    concept, target = aligned_rows(*context[:2], *encoded.last_content[:2])
    edit = edit_map([concept], [target], [context[2]], erase_scale=1, preserve_scale=0.1, ridge=0.1)
    for name, weight in model.weights.items():
        torch.testing.assert_close(weight + change(found, name), (weight.double() @ edit).float(), rtol=1e-4, atol=1e-4)


def test_nothing_named_to_preserve_means_the_empty_prompt(model: FakeModel) -> None:
    assert torch.equal(change(uce(model, "cat")), change(uce(model, "cat", preserve=[""])))


def test_a_concept_gets_its_targets_keys_and_values(model: FakeModel) -> None:
    before, wanted, kept = values(model, "cat"), values(model, "dog"), values(model, "bird")
    with uce(
        model, "cat -> dog", UceSettings(erase_scale=1e3, preserve_scale=1e3, ridge=1e-3), preserve=["bird"]
    ).applied_to(model):
        torch.testing.assert_close(values(model, "cat")[1:], wanted[1:], rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(values(model, "bird"), kept, rtol=1e-2, atol=1e-2)
    assert torch.equal(values(model, "cat"), before)


def test_a_loop_erases_more(model: FakeModel) -> None:
    """What is left of the concept, seen by the context that best brings it back, shrinks with each loop."""
    from erasure_core.closed_form.derived_contexts import derived_context
    from erasure_core.closed_form.linalg import gram_matrix

    context = model.encode_prompts(["cat"]).context[0].double()
    weights = [weight.double() for weight in model.weights.values()]
    gram = gram_matrix(weights)
    left = []
    for loops in range(4):
        erasure = rece(model, "cat -> dog", ReceSettings(loops=loops, regularization=0.1))
        edit = torch.eye(model.context_dim, dtype=torch.float64) + erasure.maps[CONTEXT].change.dense().double()
        best = derived_context(context, gram, edit, regularization=0.1)
        left.append(sum(float((w @ edit @ best.T - w @ context.T).norm()) for w in weights))
    assert left == sorted(left) and left[-1] > 1.2 * left[0]


def test_the_order_of_concepts_does_not_matter(model: FakeModel) -> None:
    one = rece(model, "cat -> dog\nbird\nred fish -> fish", ReceSettings(loops=2))
    other = rece(model, "red fish -> fish\ncat -> dog\nbird", ReceSettings(loops=2))
    torch.testing.assert_close(change(one), change(other), rtol=1e-4, atol=1e-5)


def test_many_concepts_have_at_most_the_rank_of_the_context(model: FakeModel) -> None:
    erasure = rece(model, [f"thing{number}" for number in range(40)], ReceSettings(loops=1))
    assert 0 < erasure.rank <= model.context_dim
    assert len(erasure.concepts) == 40


def test_one_down_is_shared(model: FakeModel) -> None:
    erasure = rece(model, "cat", ReceSettings(loops=2))
    assert len({id(delta.down) for delta in erasure.deltas.values()}) == 1


def test_what_made_it(model: FakeModel) -> None:
    (origin,) = rece(model, "cat -> dog", ReceSettings(loops=2, ridge=0.5), preserve=["bird", " bird"]).origins
    assert origin.method == "rece" and origin.concepts == (Concept("cat", "dog"),)
    assert origin.settings == {
        "loops": 2, "regularization": 0.1, "erase_scale": 1.0, "preserve_scale": 0.1, "ridge": 0.5,
        "relative_ridge": 0.0,
        "amplification": 1.0, "name_only": False, "exactness": 1e-3, "preserve": ["bird"],
        "clip_skip": 0, "everyday_captions": False,
    }  # fmt: skip
    assert origin.fingerprint != rece(FakeModel(seed=1), "cat").origins[0].fingerprint
    assert uce(model, "cat").origins[0].method == "uce"


def test_amplification_goes_on_along_the_same_change(model: FakeModel) -> None:
    plain = rece(model, "cat -> dog", ReceSettings(loops=2))
    torch.testing.assert_close(
        change(rece(model, "cat -> dog", ReceSettings(loops=2, amplification=1.5))), 1.5 * change(plain)
    )
    assert rece(model, "cat", ReceSettings(amplification=1.5)).rank == rece(model, "cat").rank


def test_no_loops_is_uce(model: FakeModel) -> None:
    assert torch.equal(change(rece(model, "cat", ReceSettings(loops=0))), change(uce(model, "cat")))


def test_uce_passes_on_what_it_is_given(model: FakeModel) -> None:
    settings = {"preserve": ["bird"], "erase_scale": 2.0, "preserve_scale": 0.7, "ridge": 0.3}
    one, other = (
        uce(model, "cat -> dog", **with_settings(UceSettings, **settings)),
        rece(model, "cat -> dog", **with_settings(ReceSettings, loops=0, **settings)),
    )
    assert torch.equal(change(one), change(other)) and not torch.equal(change(one), change(uce(model, "cat -> dog")))
    assert all(one.origins[0].settings[name] == value for name, value in settings.items())


def test_the_model_is_only_read(model: FakeModel) -> None:
    before = digest(model.weights)
    rece(model, "cat -> dog", ReceSettings(loops=2))
    assert digest(model.weights) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loops": -1}, "loops must be a whole number of at least 0, got -1"),
        ({"loops": 1.5}, "loops must be a whole number"),
        ({"loops": True}, "loops must be a whole number"),
        ({"amplification": 0.0}, "amplification must be a finite number above 0"),
        ({"regularization": 0}, "regularization must be a finite number above 0"),
        ({"regularization": float("nan")}, "regularization must be"),
        ({"erase_scale": -1}, "erase_scale must be a finite number above 0, got -1"),
        ({"erase_scale": 0}, "erase_scale must be"),
        ({"preserve_scale": float("inf")}, "preserve_scale must be"),
        ({"ridge": 0}, "ridge must be"),
        ({"ridge": -0.1}, "ridge must be"),
        ({"exactness": 1.0}, "exactness must be from 0 to less than 1, got 1.0"),
        ({"exactly": [" Cat"]}, "exactly lists 'Cat', which is to be erased"),
        ({"preserve": ["Cat"]}, "preserve lists 'Cat', which is to be erased"),
    ],
)
def test_settings_that_cannot_be_used(model: FakeModel, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rece(model, "cat", **with_settings(ReceSettings, **settings))


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"ridge": 1e-300}, "raise ridge from 1e-300"),
        ({"erase_scale": 1e30}, r"lower erase_scale from 1e\+30"),
        ({"preserve_scale": 1e300, "loops": 2}, r"lower preserve_scale from 1e\+300"),
        ({"loops": 1000}, "lower loops from 1000"),
        ({"amplification": 1e6}, r"lower amplification from 1e\+06"),
        ({"amplification": 1e6, "regularization": 1e-6}, r"lower amplification from 1e\+06, raise regularization"),
    ],
)
def test_an_edit_that_goes_too_far_names_what_was_set(model: FakeModel, settings: dict, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"; {remedy}"):
        rece(model, "cat -> dog", ReceSettings(**settings))


def test_a_singular_system_is_told_as_such(model: FakeModel) -> None:
    with pytest.raises(SingularSystemError, match="singular, so the edit is not determined; raise ridge from 1e-300$"):
        rece(model, "cat", ReceSettings(ridge=1e-300))


def test_a_prompt_beyond_the_window_is_quoted(model: FakeModel) -> None:
    with pytest.raises(ValueError, match="a b c d e f g"):
        rece(model, "a b c d e f g")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_damaged_weights_are_named(model: FakeModel, bad: float) -> None:
    name = list(LAYERS)[2]
    model.weights[name][3, 4] = bad
    with pytest.raises(UnsupportedModelError, match=f"{name} holds NaN or infinite"):
        rece(model, "cat")


def test_a_damaged_text_encoder(model: FakeModel) -> None:
    model._embedding = lambda word: torch.full((model.context_dim,), float("nan"))
    with pytest.raises(ValueError, match="context holds NaN"):
        rece(model, "cat")


def test_clip_and_model_of_different_widths(model: FakeModel) -> None:
    model.weights = {name: weight[:, :20] for name, weight in model.weights.items()}
    with pytest.raises(UnsupportedModelError, match="20 wide but CLIP gives 24"):
        rece(model, "cat")


def test_layers_that_read_text_of_different_widths_are_named(model: FakeModel) -> None:
    name = max(LAYERS)
    model.weights[name] = model.weights[name][:, :20]
    with pytest.raises(UnsupportedModelError, match=f"^{name} reads text 20 wide, other layers 24 wide$"):
        rece(model, "cat")


def test_a_model_without_text_cross_attention(model: FakeModel) -> None:
    model.weights = {}
    with pytest.raises(UnsupportedModelError, match="no linear layer of the model reads text"):
        rece(model, "cat")


def test_a_text_entry_without_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel()
    monkeypatch.setattr(model, "text_entries", lambda: {CONTEXT: TextEntry({})})
    with pytest.raises(UnsupportedModelError, match="a text entry of the model has no weights"):
        rece(model, "cat -> dog")


def test_going_on_from_statistics_tells_of_its_prompts_and_takes_more(model: FakeModel) -> None:
    seen = []
    more = {"statistics": gather_statistics(model, "cat", "bird"), "exactly": ["owl"]}
    erasure, found = rece_with_statistics(
        model, [Concept("dog")], ReceSettings(1, 0.1), **more, callback=lambda *told: seen.append(told)
    )
    assert found.exactly == ("owl",) and erasure.origins[0].settings["exactly"] == ["owl"]
    assert seen[0][2] == "encoding prompts" and seen[-1][2] == "done" and seen[-1][0] == seen[-1][1]


def test_progress_counts_up_and_can_cancel(model: FakeModel) -> None:
    seen = []
    rece(model, "cat", ReceSettings(loops=2), callback=lambda *report: seen.append(report))
    counts = [done for done, _, _ in seen]
    assert counts == sorted(counts) and counts[-1] == seen[-1][1] and all(what for *_, what in seen)

    many = [f"thing {number}" for number in range(100)]
    encoding = []
    rece(model, "cat", preserve=many, callback=lambda done, total, what: encoding.append(what == "encoding prompts"))
    assert sum(encoding) > 5, "a long list is not one silent step"

    def cancel(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    before = digest(model.weights)
    with pytest.raises(KeyboardInterrupt):
        rece(model, "cat", callback=cancel)
    assert digest(model.weights) == before


@pytest.mark.parametrize("name", ["rece", "uce"])
def test_every_method_runs_at_every_preset(name: str, model: FakeModel) -> None:
    method = METHODS[name]
    assert method.summary and {"object", "style", "explicit"} <= set(method.presets)
    for preset in method.presets.values():
        assert method.run(model, "cat", preset).deltas.keys() == LAYERS.keys()


def test_a_prompt_can_be_left_exactly_alone(model: FakeModel) -> None:
    before, wanted, other = values(model, "bird"), values(model, "dog"), values(model, "owl")
    erasure = rece(model, "cat -> dog", ReceSettings(exactness=1e-7), exactly=["bird"])
    with erasure.applied_to(model):
        torch.testing.assert_close(values(model, "bird"), before, rtol=1e-5, atol=1e-4)
        assert (values(model, "owl") - other).norm() > 0.05 * other.norm()
        assert (values(model, "cat") - wanted).norm() < (values(FakeModel(), "cat") - wanted).norm()
    assert erasure.origins[0].settings["exactly"] == ["bird"]
    assert erasure.origins[0].settings["exact_error"][CONTEXT] < 1e-5


def test_what_an_exact_prompt_changes_nevertheless_is_told(model: FakeModel) -> None:
    erasure = rece(model, "cat", ReceSettings(exactness=0.3), exactly=["bird", "owl"])
    before = [values(model, prompt, name) for prompt in ("bird", "owl") for name in LAYERS]
    with erasure.applied_to(model):
        after = [values(model, prompt, name) for prompt in ("bird", "owl") for name in LAYERS]
    moved, whole = (sum(float(v.square().sum()) for v in one) for one in
                    ([b - a for a, b in zip(after, before, strict=True)], before))  # fmt: skip
    told = erasure.origins[0].settings["exact_error"][CONTEXT]
    assert told == pytest.approx((moved / whole) ** 0.5, rel=1e-3) and 0.01 < told < 0.3


def test_exact_prompts_that_take_up_everything(model: FakeModel) -> None:
    with pytest.raises(ValueError, match=r"takes up all 24 directions.*list fewer prompts \(exactly\)"):
        rece(model, "cat", ReceSettings(exactness=0), exactly=["bird", "owl", "dog", "wolf fish"])


def test_names_only_edits_one_row_of_each_concept(model: FakeModel) -> None:
    erasure = rece(model, "cat -> dog\nred fish", ReceSettings(loops=1, name_only=True))
    assert erasure.rank == 4
    encoded = model.encode_prompts(["cat", "dog", "red fish", " ", ""]).context.double()
    rows = [encoded[0, 1:2], encoded[2, 2:3]], [encoded[1, 1:2], encoded[3, 0:1]]
    edit = edit_map(*rows, [encoded[4]], erase_scale=1, preserve_scale=0.1, ridge=0.1)
    for name, weight in model.weights.items():
        found = weight + change(uce_of_names(model, "cat -> dog\nred fish"), name)
        torch.testing.assert_close(found, (weight.double() @ edit).float(), rtol=1e-4, atol=1e-4)


def uce_of_names(model: FakeModel, concepts: str):
    return rece(model, concepts, ReceSettings(loops=0, name_only=True))


def test_how_much_what_is_read_changes() -> None:
    """By hand: rows along the first axis, a layer that triples it, an edit that adds a half of it."""
    half = LowRank(torch.tensor([[0.5], [0.0]]), torch.tensor([[1.0, 0.0]]))
    rows, gram = torch.diag(torch.tensor([4.0, 0.0])).double(), torch.diag(torch.tensor([9.0, 1.0])).double()
    assert relative_change(half, rows, gram) == pytest.approx(0.5)
    assert relative_change(half, 0 * rows, gram) == 0
    assert relative_change(half, rows.flip(0, 1), gram) == 0


def test_progress_says_what_is_done(model: FakeModel) -> None:
    told: list[tuple[int, int, str]] = []
    rece(model, "cat", ReceSettings(loops=2), callback=lambda *one: told.append(one))
    whole = told[-1][1]
    loop = "erasing what would bring it back, loop"
    assert told[-6:] == [
        (whole - 4, whole, "gathering weights"), (whole - 3, whole, "erasing"), (whole - 3, whole, f"{loop} 1 of 2"),
        (whole - 2, whole, f"{loop} 2 of 2"), (whole - 1, whole, "forming the changes"), (whole, whole, "done"),
    ]  # fmt: skip
    assert told[0] == (0, whole, "encoding prompts") and len(told) > 6


def test_progress_is_one_count(model: FakeModel) -> None:
    told = []
    rece(model, [f"thing{number}" for number in range(40)], callback=lambda *one: told.append(one))
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    assert len({total for _, total, _ in told}) == 1 and told[-1][0] == told[-1][1]


def test_what_is_past_its_target_is_not_erased_again(model: FakeModel) -> None:
    first = rece(model, "red fish", ReceSettings(amplification=1.4))
    statistics = gather_statistics(model, "the Red Fish\nred fish", [""])
    for again in (first.applied_to(model), nullcontext(first.over(model))):
        with again as erased:
            for attempt in (
                lambda: uce(erased, "red fish"),
                lambda: rece(erased, "red fish", ReceSettings(name_only=True)),
                lambda: erase_statistics(erased, statistics, ReceSettings(1, 0.1)),
            ):
                with pytest.raises(ErasedAlreadyError, match="fish' is erased .* already, .* of 'red fish'"):
                    attempt()
            rece(erased, "bird")
    assert rece(model, "red fish", ReceSettings(amplification=1.4)).origins == first.origins
    with first.scaled(0.5).applied_to(model):
        rece(model, "red fish")


@pytest.mark.parametrize("again", ["red fish", "red fish -> bird"])
def test_what_a_closed_form_has_erased_without_a_map_is_not_erased_again(model: FakeModel, again: str) -> None:
    """As sums of erasures one on top of the other, and baked checkpoints: how far it went cannot be computed."""
    first = rece(model, "red fish", ReceSettings(amplification=1.4))
    with first.applied_to(model):
        second = rece(model, "wolf")
    both = first + second
    assert not both.maps
    statistics = gather_statistics(model, again, [""])
    with both.applied_to(model):
        for attempt in (lambda: rece(model, again), lambda: erase_statistics(model, statistics, ReceSettings(1, 0.1))):
            with pytest.raises(ErasedAlreadyError, match="'red fish.*' is erased .* already, .* of 'red fish', 'wolf'"):
                attempt()
        assert [one.name for one in rece(model, f"{again}\ngreen leaf").concepts] == ["green leaf"]


def test_erasing_more_leaves_what_is_erased_as_it_is(model: FakeModel, caplog) -> None:
    first = rece(model, "red fish", ReceSettings(amplification=1.4))
    with first.applied_to(model) as erased:
        both, alone = (rece(erased, concepts) for concepts in ("bird\nred fish", "bird"))
        with_uce = uce(erased, "red fish\nbird")
    assert both.origins == alone.origins
    for name, delta in both.deltas.items():
        assert torch.equal(delta.dense(), alone.deltas[name].dense())
    assert [one.name for one in with_uce.concepts] == ["bird"]
    assert caplog.messages == ["'red fish': erased from this model already, so left as it is."] * 2


def test_how_far_a_concept_has_gone(model: FakeModel) -> None:
    read, target, other = model.text_rows(["red fish", " ", "bird"])
    assert remaining_share([], read, target) == 1
    first = rece(
        model, "red fish", ReceSettings(ridge=1e-6, preserve_scale=1e-6, amplification=1.5, loops=0), preserve=["bird"]
    )
    assert remaining_share([first], read, target) == pytest.approx(-0.5, abs=0.02)
    assert remaining_share([first.scaled(0.4)], read, target) == pytest.approx(0.4, abs=0.02)
    with first.applied_to(model):
        second = rece(model, "bird")
        with second.applied_to(model):
            nested = {name: weight.clone() for name, weight in model.weights.items()}
    weight, away = stacked(model.weights.values()), stacked(nested.values())
    for one in (read, other):
        (concept, empty) = (kind[CONTEXT][0].rows[kind[CONTEXT][0].last_content].double() for kind in (one, target))
        gone = torch.linalg.lstsq(weight, (away @ (concept - empty))[:, None]).solution[:, 0]
        expected = float(gone @ (concept - empty) / (concept - empty).square().sum())
        assert remaining_share([first, second], one, target) == pytest.approx(expected, abs=1e-3)


def test_weights_that_require_gradients_leave_no_graph_behind(model: FakeModel) -> None:
    for weight in model.weights.values():
        weight.requires_grad_()
    erasure = rece(model, "cat")
    assert not any(delta.up.requires_grad or delta.down.requires_grad for delta in erasure.deltas.values())
    assert not any(one.change.up.requires_grad for one in erasure.maps.values())


def test_everyday_captions_are_preserved_but_for_those_that_name_what_is_erased(model: FakeModel) -> None:
    (origin,) = rece(model, "dogs -> cat\nred", preserve=["owl"]).origins
    held = [caption for caption in EVERYDAY_CAPTIONS if not {"dog", "red"} & set(caption.replace(",", "").split())]
    assert origin.settings["preserve"] == ["owl", "", *held] and 15 < len(held) < len(EVERYDAY_CAPTIONS)
    (origin,) = rece(model, "dog", RECE["published"]).origins
    assert origin.settings["preserve"] == [""]


def test_captions_follow_what_is_erased_and_restored_later(model: FakeModel) -> None:
    """As if all had been asked for at once."""
    settings = RECE["several"]
    _, kept = rece_with_statistics(model, [Concept("cat")], settings)
    _, both = rece_with_statistics(model, [Concept("dog")], settings, statistics=kept)
    _, at_once = rece_with_statistics(model, [Concept("cat"), Concept("dog")], settings)
    _, back = rece_with_statistics(model, [], settings, statistics=both, restore=["dog"])
    assert set(both.preserve) == set(at_once.preserve) and set(back.preserve) == set(kept.preserve) == {
        "",
        *EVERYDAY_CAPTIONS,
    }
    assert "a dog on a red background" not in both.preserve
