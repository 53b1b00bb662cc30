"""AbO's loss, on models whose output is known, and the goal that its focus gives it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pure.fakes import FakeModel, Uneven

from erasure_core import Conditioning
from erasure_core.methods.abo import AbOSettings, Contexts, abo, abo_loss, focused


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


@pytest.mark.parametrize("focus", [0.0, 0.25, 2.0])
def test_focus_changes_the_goal_where_the_two_guide_apart(focus: float) -> None:
    concept, other = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    goal = focused(concept, other, focus)
    for one, two, three in zip(concept, other, goal, strict=True):
        apart = [[float(((one - two)[:, y, x] ** 2).mean()) for x in range(3)] for y in range(3)]
        for y in range(3):
            for x in range(3):
                share = (apart[y][x] / max(map(max, apart))) ** focus
                expected = share * two[:, y, x] + (1 - share) * one[:, y, x]
                torch.testing.assert_close(three[:, y, x], expected)
    assert torch.equal(focused(concept, concept, focus), concept), "prompts that guide alike have no largest difference"


@pytest.mark.parametrize("alternative", [True, False])
def test_the_loss_with_focus_has_the_goal_of_both(alternative: bool) -> None:
    frozen, edited = Uneven(), Uneven(seed=1)
    latents, times = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3)), torch.tensor([3, 50])
    cat, dog, empty = (frozen.encode_prompts([text] * 2) for text in ("cat", "dog", ""))
    contexts = Contexts(cat, dog if alternative else None, empty, None)
    e, c = (edited.predict_noise(latents, times, text) for text in (empty, cat))
    e0, c0, d0 = (frozen.predict_noise(latents, times, text) for text in (empty, cat, dog))
    goal = focused(c0 - e0, d0 - e0 if alternative else torch.zeros_like(e0), 0.5)
    expected = ((c - e - goal) ** 2).mean() + 0.5 * ((e - e0) ** 2).mean()
    torch.testing.assert_close(abo_loss(frozen, edited, latents, times, contexts, 0.5, 1.0, 0.5), expected)


def test_focus_needs_an_alternative() -> None:
    """Without one the concept guides nowhere, not only where it guided most."""
    settings = AbOSettings(steps=2, learning_rate=1e-3, trajectories=2, sampling_steps=2)
    changes = [
        [abo(Uneven(), text, replace(settings, focus=focus)).deltas for focus in (0.0, 0.5)]
        for text in ("cat", "cat -> dog")
    ]
    alike = [all(torch.equal(one.dense(), other[name].dense()) for name, one in own.items()) for own, other in changes]
    assert alike == [True, False]
