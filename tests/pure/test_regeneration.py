"""What is left to reach, against its definition: no context that is short enough comes nearer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pure.fakes import FakeModel, Ragged, TwoTowers
from torch import Tensor

from erasure_core import abo, rece
from erasure_core.audit.report import report
from erasure_core.closed_form.regeneration import regeneration, regeneration_error
from erasure_core.erasures.low_rank import LowRank
from erasure_core.methods.abo import AbOSettings
from erasure_core.methods.rece import RECE, ReceSettings

F64 = torch.float64
WIDTH, ROWS = 6, 4
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=30)


def case(seed: int, amplification: float = 1.0) -> dict:
    """Weights, rows and an edit that moves the rows of the concept to those of its target, for a start."""
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, generator=chance)

    weight, rows, goal = normal(9, WIDTH), normal(ROWS, WIDTH), normal(ROWS, WIDTH)
    step = LowRank(amplification * (goal - rows).T, torch.linalg.pinv(rows).T)
    return {"weight": weight, "concept": rows, "target": goal, "change": step, "normal": normal}


def squares(one: dict) -> tuple[float, float]:
    gram = one["weight"].T @ one["weight"]
    return regeneration(one["concept"], one["target"], gram, one["change"])


def missing(one: dict, context: Tensor) -> float:
    edited = one["weight"] @ (torch.eye(WIDTH, dtype=F64) + one["change"].dense())
    return float((context @ edited.T - one["concept"] @ one["weight"].T).square().sum())


@quick
@given(seeds, st.sampled_from([0.5, 1.0, 1.8]), st.floats(0, 1))
def test_no_context_that_is_short_enough_comes_nearer(seed: int, amplification: float, length: float) -> None:
    one = case(seed, amplification)
    best, allowed = squares(one)[0], float(one["concept"].norm())
    for context in (one["concept"], one["target"], one["normal"](ROWS, WIDTH)):
        shorter = context * min(1.0, length * allowed / float(context.norm()))
        assert missing(one, shorter) >= best - 1e-6 * (1 + best)


@quick
@given(seeds, st.sampled_from([1.0, 1.8]))
def test_some_context_comes_as_near(seed: int, amplification: float) -> None:
    """Projected gradient descent with Nesterov's momentum, which knows nothing of the closed form, gets there."""
    one = case(seed, amplification)
    best, allowed = squares(one)[0], float(one["concept"].norm())
    edited = one["weight"] @ (torch.eye(WIDTH, dtype=F64) + one["change"].dense())
    rate = 1 / float(torch.linalg.matrix_norm(edited, 2)) ** 2
    context = ahead = torch.zeros(ROWS, WIDTH, dtype=F64)
    for step in range(3000):
        before = context
        context = ahead - rate * (ahead @ edited.T - one["concept"] @ one["weight"].T) @ edited
        context = context * min(1.0, allowed / float(context.norm()))
        ahead = context + step / (step + 3) * (context - before)
    assert missing(one, context) <= best + 0.01 * (1 + best)


@quick
@given(seeds)
def test_an_unedited_model_gives_it_back(seed: int) -> None:
    one = case(seed)
    one["change"] = LowRank(torch.zeros(WIDTH, 1, dtype=F64), torch.zeros(1, WIDTH, dtype=F64))
    distance = (one["concept"] - one["target"]) @ one["weight"].T
    found, whole = squares(one)
    assert found <= 1e-8 * whole and whole == pytest.approx(float(distance.square().sum()))


def test_a_map_onto_the_target_leaves_nothing() -> None:
    """All contexts go to multiples of the target's row, which is at right angles to the concept's."""
    concept, goal = torch.eye(WIDTH, dtype=F64)[:1], torch.eye(WIDTH, dtype=F64)[1:2]
    onto = LowRank(torch.eye(WIDTH, dtype=F64), goal.T @ goal - torch.eye(WIDTH, dtype=F64))
    found, whole = regeneration(concept, goal, torch.eye(WIDTH, dtype=F64), onto)
    assert found == pytest.approx(1) and whole == pytest.approx(2)  # nearest of all is no context, |c| against |c - t|


@pytest.mark.parametrize("kind", [FakeModel, TwoTowers, Ragged])
def test_of_a_model(kind: type[FakeModel]) -> None:
    model = kind()
    weak, strong = (rece(model, "cat", ReceSettings(ridge=ridge, loops=0)) for ridge in (1e2, 1e-3))
    errors = [regeneration_error(model, erasure, "the cats") for erasure in (weak, strong)]
    assert 0 <= errors[0] < 0.3 < 0.5 < errors[1] <= 1


def test_erasures_on_top_of_each_other_count_together() -> None:
    model = FakeModel()
    first = rece(model, "cat", RECE["published"])
    with first.applied_to(model):
        second = rece(model, "red fish", RECE["published"])
    alone, both = (regeneration_error(model, erasures, "cat") for erasures in ([first], [first, second]))
    change = first.maps["context"].change.followed_by(second.maps["context"].change)
    (name, target) = model.text_rows(["cat", ""])
    rows, goal = name["context"][0], target["context"][0]
    gram = sum(weight.double().T @ weight.double() for weight in model.text_entries()["context"].weights.values())
    by_hand = regeneration(
        rows.rows[rows.last_content :][: len(goal.rows) - goal.last_content],
        goal.rows[goal.last_content :][: len(rows.rows) - rows.last_content],
        gram, LowRank(change.up.double(), change.down.double()),
    )  # fmt: skip
    assert both == pytest.approx((by_hand[0] / by_hand[1]) ** 0.5) and both != alone


def test_what_is_not_known() -> None:
    model = FakeModel()
    closed, learned = rece(model, "cat"), abo(model, "cat", AbOSettings(steps=1))
    assert regeneration_error(model, closed, "red fish") is None
    assert regeneration_error(model, [closed, learned], "cat") is None
    assert regeneration_error(model, [], "cat") is None


def test_a_report_tells_it() -> None:
    model = FakeModel()
    closed = rece(model, "cat")
    told = report(model, closed, "cat", among=("dog", "house", "tree"), count=1, seeds=(0,), steps=1)
    assert told.regeneration_error == regeneration_error(model, closed, "cat")
    assert f"than {100 * told.regeneration_error:.0f} % of its distance from the target" in told.verdict()
    assert f'"regeneration_error": {told.regeneration_error}' in told.as_json()
