"""AbO's first updates against its loss, written out anew on a small model; what it draws from and preserves."""

from __future__ import annotations

import pytest
import torch
from pure.fakes import Adam, FakeModel, TwoTowers, Uneven
from pure.learned import run_abo

from erasure_core import Conditioning
from erasure_core.methods import abo as abo_module
from erasure_core.methods.abo import AbOSettings, Prompts, abo
from erasure_core.sampling.ddim import trajectories

OBJECT = ("{}", "a {}", "a photo of a {}", "a picture of the {}")
STYLE = ("{}", "in the style of {}", "a picture in the style of {}", "{} style")


@pytest.mark.parametrize(
    ("concept", "given", "kind", "alternative", "preserve"),
    [
        ("red fish", "", "object", "", ["bird", "owl", ""]),
        ("red fish -> dog", "", "object", "dog", ["bird"]),
        ("monet", "dog", "style", "dog", []),
        ("monet -> dog", "owl", "style", "owl", []),  # the argument counts
    ],
)
def test_abo_is_its_formula(concept: str, given: str, kind: str, alternative: str, preserve: list[str]) -> None:
    model, name, steps = Uneven(tokens=12), concept.partition(" -> ")[0], 3
    settings = AbOSettings(
        kind, steps, learning_rate=1e-3, batch_size=3, trajectories=5, sampling_steps=4, unconditional_weight=0.5,
        preserve_weight=0.25, guidance=2.0,
    )  # fmt: skip
    erasure = abo(model, concept, settings, alternative=given, preserve=preserve, seed=6)

    wordings = OBJECT if kind == "object" else STYLE
    named, other = ([one.format(text) for one in wordings] if text else [""] for text in (name, alternative))
    prompts = [named[0], other[0], named[1], other[1 % len(other)], named[2]]
    latents, times = trajectories(model, prompts, range(6, 11), steps=4, guidance=2.0)
    contexts, alternatives = (model.encode_prompts(texts) for texts in (named, other))
    empty = model.encode_prompts([""]).expand(3)
    draws = torch.Generator().manual_seed(6)
    weights, adam, losses = {name: weight.clone() for name, weight in model.weights.items()}, Adam(1e-3), []
    for _ in range(steps):
        which = torch.randint(20, (3,), generator=draws)
        x, t = latents[which], times[which]
        which = torch.randint(4, (3,), generator=draws)
        for weight in weights.values():
            weight.requires_grad_()
        edited = model.with_weights(weights)
        e, c = (edited.predict_noise(x, t, text) for text in (empty, contexts[which]))
        e0 = model.predict_noise(x, t, empty)
        guide = model.predict_noise(x, t, alternatives[which]) - e0 if alternative else 0
        loss = ((c - e - guide) ** 2).mean() + 0.5 * ((e - e0) ** 2).mean()
        if preserve:
            kept = model.encode_prompts(preserve)[torch.randint(len(preserve), (3,), generator=draws)]
            loss = loss + 0.25 * ((edited.predict_noise(x, t, kept) - model.predict_noise(x, t, kept)) ** 2).mean()
        losses.append(float(loss.detach()))
        weights = adam.step(weights, dict(zip(weights, torch.autograd.grad(loss, [*weights.values()]), strict=True)))

    (origin,) = erasure.origins
    assert origin.losses == pytest.approx(losses, rel=1e-4)
    assert [(one.name, one.instead) for one in origin.concepts] == [(name, alternative)]
    assert origin.settings["preserve"] == preserve and origin.settings["unconditional_weight"] == 0.5
    for name, weight in weights.items():
        torch.testing.assert_close(erasure.deltas[name].dense(), weight - model.weights[name], rtol=1e-3, atol=1e-6)


def test_prompts_with_content_name_the_same_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are those of the prompts that the loss compares; without an alternative there is no content."""
    drawn: list[str] = []

    def record(model, prompts, seeds, **settings):
        drawn.extend(prompts)
        return trajectories(model, prompts, seeds, **settings)

    monkeypatch.setattr(abo_module, "trajectories", record)
    settings = AbOSettings("style", 2, learning_rate=1e-3, trajectories=8, sampling_steps=2, content=True)
    abo(Uneven(tokens=16), "oil -> ink", settings)
    assert [prompt.replace("oil", "ink") for prompt in drawn[::2]] == drawn[1::2] and len(set(drawn)) == 8
    assert not any(prompt.split() == ["oil"] for prompt in drawn)
    drawn.clear()
    abo(Uneven(tokens=16), "oil", settings)
    assert drawn == ["oil", "", "in the style of oil", "", "a picture in the style of oil", "", "oil style", ""]


def test_what_is_drawn_belongs_together() -> None:
    """Wording i of the concept faces wording i of the alternative, the empty prompt every one."""
    model = TwoTowers(tokens=12)
    prompts = Prompts.of(model, *([one.format(name) for one in STYLE] for name in ("monet", "dog")), ["bird", "owl"])
    drawn = prompts.draw(20, torch.Generator().manual_seed(0))
    known = {text: model.encode_prompts([text])[0] for text in
             [one.format(name) for one in STYLE for name in ("monet", "dog")] + ["", "bird", "owl"]}  # fmt: skip

    def told(drawn: Conditioning) -> str:
        (found,) = [
            text
            for text, one in known.items()
            if all(torch.allclose(*both, atol=1e-6) for both in zip(one.tensors, drawn.tensors, strict=True))
        ]
        return found

    pairs = {(told(a), told(b)) for a, b in zip(drawn.concept, drawn.alternative, strict=True)}
    assert pairs == {(one.format("monet"), one.format("dog")) for one in STYLE}
    assert {told(one) for one in drawn.preserved} == {"bird", "owl"}
    assert [told(one) for one in drawn.empty] == [""] * 20


def test_abo_trains_the_layer_of_the_pooled_vector_too() -> None:
    erasure = abo(TwoTowers(), "cat -> dog", AbOSettings(steps=2, trajectories=2, sampling_steps=3, learning_rate=1e-3))
    change = erasure.deltas[TwoTowers.LABEL].dense()
    assert set(erasure.deltas) == set(TwoTowers().weights) and change.abs().max() > 1e-4


def test_abo_preserves_nothing_that_the_text_encoder_reads_as_the_concept() -> None:
    assert run_abo(FakeModel(), preserve=["catamaran"]).deltas
    forgetful = FakeModel()
    forgetful.reads = lambda prompt: tuple(word[:3] for word in prompt.split())
    with pytest.raises(ValueError, match="preserve lists 'catamaran', which is to be erased"):
        run_abo(forgetful, preserve=["catamaran"])


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
