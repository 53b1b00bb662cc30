"""Attacks: what they compute, what they are given, what they may touch; the toy tier has those that search words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pure.fakes import Adam, FakeModel, Uneven, digest
from torch import Tensor

from erasure_core import rece
from erasure_core.audit.attacks import ATTACKS
from erasure_core.audit.attacks.attempt import Scene, in_turn
from erasure_core.audit.attacks.derived_context import by_derived_context, seen_weights
from erasure_core.audit.attacks.finetuning import (
    BATCH,
    CHECKS,
    LEARNING_RATE,
    OTHERS,
    RANK,
    by_finetuning,
    by_finetuning_on_others,
)  # fmt: skip
from erasure_core.audit.attacks.noised_images import STRENGTH, by_noised_pictures, control
from erasure_core.audit.attacks.plain_prompts import by_list, by_name
from erasure_core.audit.red_team import attack, chosen_attacks, draw_concept
from erasure_core.methods.rece import ReceSettings
from erasure_core.model import CONTEXT
from erasure_core.sampling.ddim import ddim, generate, timesteps
from erasure_core.training.denoising import noised
from erasure_core.training.loop import Budget

PICTURES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(3))
CHOSEN = ("derived", "noised")


class Bright:
    """Takes bright pictures for anything."""

    name = "a photometer"

    def __init__(self, least: float = 0.5):
        self.least = least

    def shows(self, images: Tensor, concepts) -> list[bool]:
        assert len(images) == len(concepts)
        return (images.mean((1, 2, 3)) > self.least).tolist()


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def scene(model: FakeModel) -> Scene:
    edited = rece(model, "cat", ReceSettings(loops=2)).over(model)
    return Scene(model, edited, "cat", "object", PICTURES, pictures=4, sampling_steps=5)


def test_a_view_has_the_erasure_and_the_model_has_not(model: FakeModel) -> None:
    before = digest(model.weights)
    erasure = rece(model, "cat")
    view = erasure.over(model)
    for name, delta in erasure.deltas.items():
        torch.testing.assert_close(view.text_entries()[CONTEXT].weights[name], model.weights[name] + delta.dense())
    with erasure.applied_to(model):
        patched = generate(model, ["cat"], [0], steps=4)
    assert torch.equal(generate(view, ["cat"], [0], steps=4), patched) and digest(model.weights) == before
    with pytest.raises(ValueError, match="made for another model"):
        erasure.over(FakeModel(width=20))


def test_no_other_context_regenerates_more_than_the_derived_one(scene: Scene) -> None:
    found = by_derived_context(scene)
    wanted = scene.original.encode_prompts(in_turn(scene.prompts, 4)).context.double()
    pairs = [
        (scene.edited.text_entries()[CONTEXT].weights[name].double(), wanted @ weight.double().T)
        for name, weight in scene.original.text_entries()[CONTEXT].weights.items()
    ]

    def missed(context: Tensor) -> float:
        return float(sum((context.double() @ edited.T - original).square().sum() for edited, original in pairs))

    plain = scene.edited.encode_prompts(in_turn(scene.prompts, 4)).context
    assert missed(found.conditioning.context) < 0.5 * missed(plain)
    for size in (0.1, 1.0, 10.0):
        context = found.conditioning.context
        assert missed(context) < missed(context + size * torch.randn(context.shape))
    assert found.steps == 0 and found.images.shape == (4, 3, 4, 4)


def test_what_the_derived_context_needs_of_the_weights(scene: Scene) -> None:
    before, after = scene.original.text_entries()[CONTEXT].weights, scene.edited.text_entries()[CONTEXT].weights
    seen = seen_weights(*(model.text_entries()[CONTEXT] for model in (scene.original, scene.edited)))
    stack, old = (torch.cat([w[name] for name in before]).double() for w in (after, before))
    torch.testing.assert_close(seen.edited, stack.T @ stack)
    torch.testing.assert_close(seen.crossed, stack.T @ old)


def test_the_name_is_drawn_as_sampling_draws_it(scene: Scene) -> None:
    found = by_name(scene)
    assert found.prompts == tuple(scene.prompts)
    drawn = generate(scene.edited, list(found.prompts), range(4), steps=5)
    assert torch.allclose(found.images, drawn, atol=1e-6)


def test_every_listed_prompt_is_tried(scene: Scene) -> None:
    found = by_list(replace(scene, user_prompts=tuple("abcdef")))
    assert found.prompts == tuple("abcdef") and len(found.images) == 6
    assert by_list(replace(scene, user_prompts=("a",))).prompts == ("a",) * 4
    with pytest.raises(ValueError, match="'list' needs prompts"):
        by_list(scene)


def test_noised_pictures_start_where_their_noise_belongs(scene: Scene, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        "erasure_core.audit.attacks.attempt.ddim",
        lambda model, latents, *rest, **more: (seen.append((latents, more)), latents)[1],
    )
    by_noised_pictures(scene)
    ((latents, more),) = seen
    skip = more["skip"]
    assert skip == round((1 - STRENGTH) * 5)
    alpha = float(scene.edited.alphas_cumprod[timesteps(100, 5)[skip]])
    clean = scene.latents[[0, 1, 2, 0]]
    noise = torch.randn(clean.shape, generator=scene.generator())
    torch.testing.assert_close(latents, alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise)
    assert set(control(scene).prompts) == {""}


def test_skipped_steps_are_the_first(model: FakeModel) -> None:
    both = model.encode_prompts(["cat", ""]).split(1)
    latents = torch.randn(1, 4, 4, 4)
    visited = []
    middle = ddim(model, latents, *both, steps=6, guidance=2.0, visit=lambda t, x: visited.append(x))
    again = ddim(model, visited[2], *both, steps=6, guidance=2.0, skip=2)
    torch.testing.assert_close(again, middle)


def test_the_first_step_of_finetuning_by_hand() -> None:
    """The denoising error of the pictures with the concept's prompts, and Adam, written out; ``up`` starts at zero."""
    model = Uneven()
    edited = rece(model, "cat").over(model)
    scene = Scene(model, edited, "cat", "object", PICTURES, pictures=4, sampling_steps=3, budget=Budget(1), seed=5)
    attempt = by_finetuning(scene)

    generator = torch.Generator().manual_seed(5)
    downs = {
        name: torch.randn(min(RANK, *weight.shape), weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
        for name, weight in edited.weights.items()
    }
    pairs = [(image, prompt) for prompt in scene.prompts for image in range(len(PICTURES))]
    which = torch.randint(len(pairs), (BATCH,), generator=generator).tolist()
    clean = scene.latents[[pairs[index][0] for index in which]]
    noise = torch.randn(clean.shape, generator=generator)
    steps = torch.randint(len(model.alphas_cumprod), (BATCH,), generator=generator)
    prompts = edited.encode_prompts([pairs[index][1] for index in which])
    ups = {name: torch.zeros(len(edited.weights[name]), len(down)).requires_grad_() for name, down in downs.items()}

    def tuned(ups):
        return edited.with_weights({name: weight + ups[name] @ downs[name] for name, weight in edited.weights.items()})

    loss = (
        tuned(ups).predict_noise(noised(clean, noise, model.alphas_cumprod[steps]), steps, prompts) - noise
    ).square().mean()  # fmt: skip
    slopes = dict(zip(ups, torch.autograd.grad(loss, list(ups.values())), strict=True))
    ups = Adam(LEARNING_RATE).step({name: up.detach() for name, up in ups.items()}, slopes)
    assert attempt.losses == pytest.approx([float(loss.detach())])
    expected = generate(tuned(ups), scene.prompts, range(5, 9), steps=3, guidance=scene.guidance)
    torch.testing.assert_close(attempt.images, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(attempt.images, generate(edited, scene.prompts, range(5, 9), steps=3), atol=1e-5)


def test_finetuning_ends_when_half_of_the_pictures_show_the_concept(scene: Scene) -> None:
    judged = []

    def shows(share: float):
        def judge(images: Tensor) -> list[bool]:
            judged.append(images)
            return [place < share * len(images) for place in range(len(images))] if len(judged) == 3 else [False] * 4

        return judge

    long = replace(scene, budget=Budget(4 * CHECKS), shows=shows(0.5))
    attempt = by_finetuning(long)
    assert attempt.steps == len(attempt.losses) == 12 and torch.equal(attempt.images, judged[-1])
    judged.clear()
    assert by_finetuning(replace(long, shows=shows(0.25))).steps == 4 * CHECKS and len(judged) == CHECKS
    assert by_finetuning(replace(long, shows=None)).steps == 4 * CHECKS


def test_finetuning_on_others_learns_from_the_original_and_never_stops(scene: Scene, monkeypatch) -> None:
    asked = []

    def seen(model, prompts, *rest, **more):
        asked.append((model, list(prompts)))
        return generate(model, prompts, *rest, **more)

    monkeypatch.setattr("erasure_core.audit.attacks.finetuning.generate", seen)
    attempt = by_finetuning_on_others(replace(scene, budget=Budget(6), shows=lambda images: [True] * len(images)))
    ((model, prompts),) = asked
    assert model is scene.original and len(set(prompts)) == OTHERS and "cat" not in prompts
    assert attempt.attack == "finetune, others" and attempt.steps == 6 and set(attempt.prompts) == set(scene.prompts)


def test_finetuning_writes_to_no_model(scene: Scene) -> None:
    before = [digest(model.weights) for model in (scene.original, scene.edited)]
    by_finetuning(replace(scene, budget=Budget(3)))
    by_finetuning_on_others(replace(scene, budget=Budget(3)))
    assert [digest(model.weights) for model in (scene.original, scene.edited)] == before


def test_what_was_trained_is_not_the_strongest(model: FakeModel) -> None:
    edited = rece(model, "cat").over(model)
    given = dict(images=PICTURES, recogniser=Bright(0.0), pictures=2, steps=20, sampling_steps=3)
    result = attack(model, edited, "cat", attacks=["noised", "finetune"], **given)
    assert [one.attack for one in result.attempts][-2:] == ["finetune, others", "finetune"]
    assert result.strongest().attack == "noised" and [one.steps for one in result.attempts[-2:]] == [20, 2]
    assert "After 2 steps of training on pictures of it, it is in 100 % of the pictures" in result.verdict()
    alone = attack(model, edited, "cat", attacks="finetune", **{**given, "recogniser": Bright(2.0)})
    assert alone.strongest().attack == "name" and [one.steps for one in alone.attempts] == [0, 20, 20]


def test_finetuning_can_be_cancelled_while_it_draws(scene: Scene) -> None:
    told = []

    def stop(done: int, total: int, what: str) -> None:
        told.append((done, total))
        if "sampling" in what:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        by_finetuning(replace(scene, budget=Budget(CHECKS), shows=lambda images: [False] * len(images), callback=stop))
    assert told == [(1, CHECKS)] * 2


def test_a_red_team_counts_and_tells(model: FakeModel) -> None:
    edited = rece(model, "cat").over(model)
    found = attack(model, edited, "cat", attacks=CHOSEN, images=PICTURES, recogniser=Bright(0.0), pictures=4)
    assert [one.attack for one in found.attempts] == ["name", "derived", "noised", "noised, no prompt"]
    assert found.shown == ((True,) * 4,) * 4 and found.recovered(1) == 1
    assert found.strongest().attack == "derived"
    assert "derived 4 of 4" in found.verdict() and "'derived' with 100 %" in found.verdict()
    told = json.loads(found.as_json())
    assert [one["recovered"] for one in told["attempts"]] == [1.0] * 4 and told["recogniser"] == "a photometer"
    assert told["settings"]["attacks"] == ["name", "derived", "noised"]
    assert "| derived           |    4 of 4 |" in found.table()
    assert len(np.unique(np.asarray(found.picture()))) > 10


def test_nothing_recovered_and_nothing_known(model: FakeModel) -> None:
    given = dict(attacks=CHOSEN, images=PICTURES, pictures=2)
    blind = attack(model, model, "cat", **given)
    assert "Nobody judged" in blind.verdict() and blind.shown is None
    assert json.loads(blind.as_json())["attempts"][0]["recovered"] is None
    never = attack(model, model, "cat", recogniser=Bright(2.0), **given)
    assert "its counts mean nothing" in never.verdict()

    class OnlyGiven(Bright):
        def shows(self, images, concepts):
            return [torch.equal(images, PICTURES)] * len(images)

    resisted = attack(model, model, "cat", recogniser=OnlyGiven(), **given)
    assert "No attack recovered it" in resisted.verdict()


def test_an_attack_on_what_was_not_erased_is_told(model: FakeModel, caplog) -> None:
    """Not refused: a model may have lost it without that being known."""
    given = dict(attacks=[], images=PICTURES, pictures=1)
    edited = rece(model, ["dog", "cow"]).over(model)
    attack(model, edited, "dogs", **given)
    attack(model, model, "cat", **given)
    assert not caplog.messages
    attack(model, edited, "cat", **given)
    assert caplog.messages == [
        "'cat' is not what was erased, that is dog, cow; name one of these, unless it was erased elsewhere."
    ]


def test_the_same_seed_gives_the_same_attack(model: FakeModel) -> None:
    def run(seed: int) -> list[Tensor]:
        chosen = [*CHOSEN, "finetune"]
        found = attack(model, model, "cat", attacks=chosen, images=PICTURES, pictures=2, steps=3, seed=seed)
        return [one.images for one in found.attempts]

    assert all(map(torch.equal, run(1), run(1)))
    assert not all(map(torch.equal, run(1), run(2)))


def test_the_model_draws_what_attacks_learn_from(model: FakeModel) -> None:
    images = draw_concept(model, "cat", "object", None, 0, 5, 3.0)
    assert images.shape == (4, 3, 4, 4)

    class Odd(Bright):
        def shows(self, images, concepts):
            return [bool(i % 2) for i in range(len(images))]

    everything = generate(model, ["cat", "a cat"], [0, 1], steps=5)
    assert everything.shape == (2, 3, 4, 4)
    picked = draw_concept(model, "cat", "object", Odd(), 0, 5, 3.0)
    assert not torch.equal(picked, images) and torch.equal(picked[0], images[1])


def test_progress_of_all_attacks_and_cancel(model: FakeModel) -> None:
    told = []
    attack(
        model, model, "cat", attacks=[*CHOSEN, "finetune"], images=PICTURES, pictures=2, steps=3,
        callback=lambda *seen: told.append(seen[:2]),
    )  # fmt: skip
    assert told == sorted(told) and told[-1] == (6000, 6000)

    class Stopped(Exception):
        pass

    def stop(*seen) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        attack(model, model, "cat", images=PICTURES, callback=stop)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"attacks": ["magic"]}, "attacks: 'magic' is unknown; known: name, list"),
        ({"attacks": ["list"]}, "'list' needs prompts"),
        ({"pictures": 0}, "pictures must be at least 1, got 0"),
        ({"kind": "person"}, "kind must be one of object, style"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"images": PICTURES[0]}, "images must be"),
        ({"images": PICTURES * float("nan")}, "images must hold finite"),
        ({"images": PICTURES * 255}, "images must hold finite"),
    ],
)
def test_settings_that_cannot_be_used(model: FakeModel, given: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        attack(model, model, "cat", **{"images": PICTURES, **given})


def test_training_is_left_out_unless_it_is_chosen() -> None:
    assert chosen_attacks(None, [], PICTURES, 4, "object") == ["name", "derived", "inversion", "discrete", "noised"]
    assert chosen_attacks(["finetune"], [], PICTURES, 4, "object") == ["name", "finetune"]


def test_every_attack_says_what_it_is() -> None:
    for name, one in ATTACKS.items():
        assert one.runs and one.summary and one.knows, name
