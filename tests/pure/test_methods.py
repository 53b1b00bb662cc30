"""What every method has to do, over all that ``METHODS`` lists: a new one is held to it on the day it is added.

A method is called as what it ``takes`` and its own presets for the embedded model say, cut to a few steps.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pure.fakes import FakeModel, TwoTowers, digest

from erasure_core import Concept, Erasure
from erasure_core.commands.request import Request
from erasure_core.limits import Settings, limits_of
from erasure_core.methods import METHODS
from erasure_core.methods.inputs import (
    Exactly,
    GradientCheckpointing,
    Images,
    Input,
    Preserve,
    TextEncoders,
    Training,
)
from erasure_core.methods.method import Method
from erasure_core.model import entry_weights, fingerprint
from erasure_core.sampling.ddim import generate
from erasure_core.training.loop import TrainingError
from erasure_core.training.trainable import StandIns

FEW = 4  # steps, pictures, trajectories and whatever else presets count
PICTURES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(9))
NEEDS: dict[type[Input], dict[str, list]] = {
    Preserve: {"preserve": [["bird"], []]},
    Exactly: {"exactly": [["owl"], []]},
    Images: {"images": [PICTURES, None, 2], "captions": [(), ["a cat", "cat", "the cat"]]},
    Training: {"seed": [3], "seconds": [None, 1e6], "rank": [None, 2]},
    GradientCheckpointing: {"gradient_checkpointing": [False, True]},
    TextEncoders: {"towers": ["both", "text_encoder"]},
}
"""What to pass for a need of a method: the first as a rule, the others once."""

TOLD = ("preserve", "exactly", "seed", "rank", "towers")  # what an origin keeps of them

names = pytest.mark.parametrize("name", list(METHODS))
models = pytest.mark.parametrize("kind", [FakeModel, TwoTowers])


def settings_of(method: Method, preset: str | None = None) -> Settings:
    """A preset for the embedded model in a few steps."""
    presets = method.toy_presets
    chosen = presets[preset or next(iter(presets))]
    few = {name: min(value, FEW) for name, value in vars(chosen).items() if type(value) is int}
    return replace(chosen, **few)


def given(method: Method) -> dict[str, list]:
    return {argument: values for need in method.takes for argument, values in NEEDS[need].items()}


@functools.cache
def concept_of(name: str, preset: str | None = None) -> str:
    """'cat', with what should be drawn instead unless the method does not take that with a preset."""
    method = METHODS[name]
    for concept in ("cat -> dog", "cat"):
        with suppress(ValueError):
            method.run(FakeModel(tokens=16), concept, **arguments(method, settings=settings_of(method, preset)))
            return concept
    raise AssertionError(f"{name} takes neither 'cat -> dog' nor 'cat'")


def in_files(settings: Settings) -> dict[str, Any]:
    """Settings as an origin keeps them: JSON has no infinity."""
    return {name: None if value == math.inf else value for name, value in asdict(settings).items()}


def arguments(method: Method, **changes: Any) -> dict[str, Any]:
    inputs = {name: values[0] for name, values in given(method).items()}
    return {"settings": settings_of(method)} | inputs | changes


def run(name: str, model: FakeModel, **changes: Any) -> Erasure:
    concept = changes.pop("concept", None) or concept_of(name)
    return METHODS[name].run(model, concept, **arguments(METHODS[name], **changes))


class State:
    """Every bit of a model, and which tensors hold it."""

    def __init__(self, model: FakeModel):
        self.model = model
        self.held = {**model.weights, **model.text}
        self.bits = digest(self.held)

    def check(self) -> None:
        now = {**self.model.weights, **self.model.text}
        assert digest(now) == self.bits and all(now[name] is weight for name, weight in self.held.items())
        assert not any(weight.requires_grad or weight.grad is not None for weight in now.values())
        assert self.model.erasures == ()


def same(one: Erasure, other: Erasure) -> bool:
    return one.deltas.keys() == other.deltas.keys() and all(
        torch.equal(one.deltas[name].dense(), other.deltas[name].dense()) for name in one.deltas
    )


@names
def test_it_says_how_it_is_called(name: str) -> None:
    """With settings, by keywords with what its needs stand for, and with a callback."""
    method = METHODS[name]
    assert set(method.takes) <= set(NEEDS), "say in NEEDS what a new kind of input stands for"
    assert method.name == name and all(limits_of(one).help for kind in method.takes for one in fields(kind))
    taken = inspect.signature(method.run).parameters
    named = {"settings", "callback", *given(method), *(["preview"] if Training in method.takes else [])}
    assert method.summary and method.presets.keys() <= method.toy_presets.keys()
    kinds = {type(preset) for preset in [*method.presets.values(), *method.toy_presets.values()]}
    assert [kind.__name__ for kind in kinds] == [taken["settings"].annotation]
    assert all(limits_of(one).help for kind in kinds for one in fields(kind))
    assert list(taken)[2] == "settings" and named <= set(taken)
    assert all(taken[one].default is not inspect.Parameter.empty for one in named - {"images"})


@names
def test_what_is_not_asked_for_is_the_presets(name: str) -> None:
    """The first preset is what is not given, and seeds begin at 0."""
    method, rest = METHODS[name], {"seed": 0, "seconds": None, "rank": None, "gradient_checkpointing": False}
    taken = inspect.signature(method.run).parameters
    rest |= {"settings": next(iter(method.presets.values()))}
    assert {one: taken[one].default for one in rest if one in taken} == {
        one: value for one, value in rest.items() if one in taken
    }


@names
@models
def test_it_changes_something_says_what_and_only_reads_the_model(name: str, kind: type[FakeModel]) -> None:
    model = kind(tokens=16)
    state, whole = State(model), {**model.weights, **model.text}
    erasure = run(name, model)
    state.check()
    assert erasure.deltas and all(whole[one].shape == delta.dense().shape for one, delta in erasure.deltas.items())
    assert all(torch.isfinite(delta.dense()).all() for delta in erasure.deltas.values())
    assert max(float(delta.dense().abs().max()) for delta in erasure.deltas.values()) > 1e-6

    (origin,) = erasure.origins
    wanted = Concept(*concept_of(name).split(" -> "))
    assert (origin.method, origin.concepts, erasure.concepts) == (name, (wanted,), (wanted,))
    assert origin.fingerprint == fingerprint(entry_weights(model))
    assert in_files(settings_of(METHODS[name])).items() <= origin.settings.items()
    assert json.loads(json.dumps(dict(origin.settings), allow_nan=False)) == origin.settings
    told = {one: values[0] for one, values in given(METHODS[name]).items() if one in TOLD}
    assert set(told.pop("preserve", ())) <= set(origin.settings.get("preserve", ())), (
        "the built-in captions come to them"
    )
    assert told.items() <= origin.settings.items()
    trains = Training in METHODS[name].takes
    assert (len(origin.losses) > 0) == trains and all(map(math.isfinite, origin.losses))
    assert (set(erasure.maps) == set(model.text_entries())) != trains, "closed forms keep maps, by which they rebase"


@names
@models
def test_it_draws_other_pictures_while_it_is_applied(name: str, kind: type[FakeModel]) -> None:
    model = kind(tokens=16)
    erasure = run(name, model)
    latents = torch.randn(1, *model.latent_shape(), generator=torch.Generator().manual_seed(0))

    def drawn(one: FakeModel) -> torch.Tensor:
        return one.predict_noise(latents, torch.tensor([50]), one.encode_prompts(["cat"]))

    before = drawn(model)
    assert not torch.equal(drawn(erasure.over(model)), before) and torch.equal(drawn(model), before)


@names
def test_a_seed_reproduces_it_bit_for_bit(name: str) -> None:
    model = FakeModel(tokens=16)
    torch.manual_seed(1)
    one, before = run(name, model), torch.get_rng_state()
    torch.manual_seed(2)
    again = run(name, model)
    assert same(one, again) and one.origins == again.origins
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before), "it draws from the generator that all share"
    if Training in METHODS[name].takes:
        assert not same(one, run(name, model, seed=4)) and one.origins[0].settings["seed"] == 3


@names
def test_a_callback_hears_of_it_and_can_cancel_it_anywhere(name: str) -> None:
    model, told = FakeModel(tokens=16), []
    run(name, model, callback=lambda *one: told.append(one))
    assert told and all(0 <= done <= total and what for done, total, what in told)

    class Cancel(Exception):
        pass

    state = State(model)
    for place in sorted({0, 1, len(told) // 2, len(told) - 1}):
        heard: list[str] = []

        def cancel(done: int, total: int, what: str, heard: list[str] = heard, place: int = place) -> None:
            heard.append(what)
            if len(heard) == place + 1:
                raise Cancel

        with pytest.raises(Cancel):
            run(name, model, callback=cancel)
        state.check()
        assert len(heard) == place + 1, "it went on after the cancel"


@names
def test_a_preview_sees_the_model_change_and_changes_nothing_itself(name: str) -> None:
    """Where there is a training to see."""
    if Training not in METHODS[name].takes:
        assert "preview" not in inspect.signature(METHODS[name].run).parameters
        return
    model, pictures, seen = FakeModel(tokens=16), [], []

    def preview(edited: Callable[[], FakeModel], losses: list[float]) -> None:
        assert not torch.is_grad_enabled()
        pictures.append(generate(edited(), ["cat"], [0], steps=2))
        seen.append(list(losses))

    erasure, alone = run(name, model, preview=preview), run(name, model)
    assert same(erasure, alone) and erasure.origins == alone.origins, "a preview changed what is learned"
    losses = list(alone.origins[0].losses)
    assert seen == [losses[: count + 1] for count in range(len(losses))]
    last = generate(erasure.over(model), ["cat"], [0], steps=2)
    torch.testing.assert_close(pictures[-1], last)
    assert not torch.equal(last, generate(model, ["cat"], [0], steps=2))

    class Stop(Exception):
        pass

    def stop(edited: Callable[[], FakeModel], losses: list[float]) -> None:
        raise Stop

    state = State(model)
    with pytest.raises(Stop):
        run(name, model, preview=stop)
    state.check()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if Training in method.takes])
def test_a_preview_that_is_not_due_forms_no_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    formed, weights = [], StandIns.weights
    monkeypatch.setattr(StandIns, "weights", lambda self: formed.append(self) or weights(self))
    run(name, FakeModel(tokens=16))
    alone = len(formed)
    formed.clear()
    run(name, FakeModel(tokens=16), preview=lambda edited, losses: None)
    assert len(formed) == alone


@names
@models
def test_it_saves_and_loads(name: str, kind: type[FakeModel], tmp_path: Path) -> None:
    with torch.no_grad():
        erasure = run(name, kind(tokens=16))
    back = Erasure.load(erasure.save(tmp_path / "a.safetensors"))
    assert same(back, erasure) and back.origins == erasure.origins and back.maps.keys() == erasure.maps.keys()


@names
@pytest.mark.parametrize("concept", ["", "  \n", "# nothing", [], [""], None, 5])
def test_it_refuses_an_empty_concept(name: str, concept: Any) -> None:
    model = FakeModel(tokens=16)
    state = State(model)
    with pytest.raises(ValueError, match="concept"):
        METHODS[name].run(model, concept, **arguments(METHODS[name]))
    state.check()


@names
def test_it_takes_several_concepts_or_refuses_them(name: str) -> None:
    model, named = FakeModel(tokens=16), concept_of(name)
    several = [named, named.replace("cat", "red fish")]
    try:
        erasure = run(name, model, concept=several)
    except ValueError as error:
        assert "one concept at a time, got 2" in str(error)
    else:
        assert [one.name for one in erasure.concepts] == ["cat", "red fish"]


@names
def test_damaged_weights_are_refused(name: str) -> None:
    model = FakeModel(tokens=16)
    for weights in (model.weights, model.text):
        for weight in weights.values():
            weight[0] = math.nan
    state = State(model)
    with pytest.raises((ValueError, TrainingError), match="NaN|finite|nothing was changed"):
        run(name, model)
    state.check()


def variations() -> list:
    return [
        pytest.param(name, {argument: value}, id=f"{name}-{argument}-{place}")
        for name, method in METHODS.items()
        for argument, values in given(method).items()
        for place, value in enumerate(values[1:])
    ]


@pytest.mark.parametrize(("name", "changes"), variations())
def test_it_runs_with_whatever_it_needs(name: str, changes: dict[str, Any]) -> None:
    erasure = run(name, TwoTowers(tokens=16), **changes)
    assert any(delta.dense().any() for delta in erasure.deltas.values())
    matrices = [delta for delta in erasure.deltas.values() if delta.dense().ndim == 2]
    if changes.get("rank"):
        assert all(torch.linalg.matrix_rank(delta.dense()) <= changes["rank"] for delta in matrices)


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name, method in METHODS.items() for preset in method.toy_presets]
)
def test_every_preset_can_be_asked_for(name: str, preset: str) -> None:
    """Through a request, as the command line makes it."""
    model, method = FakeModel(tokens=16), METHODS[name]
    concept = Concept(*concept_of(name, preset).split(" -> "))
    inputs = {"images": "none" if Images in method.takes else None, "no_common": Preserve in method.takes}
    few = {one: value for one, value in vars(settings_of(method, preset)).items() if type(value) is int}
    asked = Request([concept], name, preset, few, inputs, toy=True)
    (origin,) = asked.erasure(model, lambda done, total, what: None).origins
    expected = in_files(method.toy_presets[preset]) | few
    assert {one: origin.settings[one] for one in expected} == expected
