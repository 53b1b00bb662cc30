"""What callers pass in place of a model, and settings of other types: one sentence, before anything is computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from pure.fakes import FakeModel

from erasure_core import DiffusionModel, Erasure, TextReader, UnsupportedModelError, rece
from erasure_core.arguments import KINDS, MODELS, checked
from erasure_core.audit.compare import compare
from erasure_core.audit.red_team import attack
from erasure_core.audit.report import report
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.update import extended
from erasure_core.limits import Limits, Settings
from erasure_core.methods import METHODS
from erasure_core.methods.inputs import Images
from erasure_core.methods.rece import RECE, ReceSettings, rece_with_statistics
from erasure_core.sampling.ddim import generate, sample_latents, trajectories
from erasure_core.sampling.purify import purify
from erasure_core.toy.evaluation import draw, evaluate_erasure

BAD: dict[str, list[Any]] = {
    "int": [2.0, "3", None, True],
    "Seed": ["3", -1, 2**63, None],
    "float": ["0.1", None, True, torch.ones(())],
    "bool": ["yes", 1, None],
    "str": [None, 3, b"object"],
    "int | None": [2.5, "3", True],
    "float | None": ["3", True],
    "Tensor | None": ["picture.png", [1.0]],
    "Callback | None": ["print"],
    "Preview | None": ["print"],
}
methods = pytest.mark.parametrize("name", list(METHODS))


class StableDiffusionPipeline:
    """Stands for a pipeline of diffusers."""

    unet = vae = text_encoder = None


def passed(method: Callable, pipe: Any) -> None:
    images = {"images": None} if "images" in inspect.signature(method).parameters else {}
    method(pipe, "cat -> dog", **images)


PIPE = StableDiffusionPipeline()
NO_CAT: Erasure = rece(FakeModel(), "cat")
CALLS: dict[str, Callable[[Any], Any]] = {
    **{name: lambda pipe, run=method.run: passed(run, pipe) for name, method in METHODS.items()},
    "rece_with_statistics": lambda pipe: rece_with_statistics(pipe, [], RECE["object"]),
    "applied_to": lambda pipe: NO_CAT.applied_to(pipe),
    "over": lambda pipe: NO_CAT.over(pipe),
    "rebased_on": lambda pipe: NO_CAT.rebased_on(pipe),
    "report": lambda pipe: report(pipe, NO_CAT, "cat"),
    "attack": lambda pipe: attack(pipe, pipe, "cat"),
    "attack, edited": lambda pipe: attack(FakeModel(), pipe, "cat"),
    "compare": lambda pipe: compare(pipe, {"no cat": NO_CAT}, "a cat"),
    "purify": lambda pipe: purify(pipe, NO_CAT, torch.rand(1, 3, 4, 4)),
    "generate": lambda pipe: generate(pipe, ["a cat"], [0]),
    "sample_latents": lambda pipe: sample_latents(pipe, ["a cat"], [0]),
    "trajectories": lambda pipe: trajectories(pipe, ["a cat"], [0]),
    "gather_statistics": lambda pipe: gather_statistics(pipe, "cat"),
    "extended": lambda pipe: extended(None, pipe, "cat"),
    "evaluate_erasure": lambda pipe: evaluate_erasure(pipe, None, "cat"),
    "draw": lambda pipe: draw(pipe, None, []),
}


@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize(("pipe", "kind"), [(PIPE, "StableDiffusionPipeline"), ("toy", "str"), (None, "NoneType")])
def test_a_pipeline_is_no_model(name: str, pipe: Any, kind: str) -> None:
    what = "edited" if name == "attack, edited" else "original" if name == "attack" else "model"
    with pytest.raises(UnsupportedModelError) as told:
        CALLS[name](pipe)
    assert str(told.value).startswith(f"{what} is of type {kind}, which cannot be read; ")
    assert "from_diffusers(pipe)" in str(told.value)


def first_preset(name: str) -> Settings:
    return next(iter(METHODS[name].presets.values()))


def arguments_of(name: str) -> dict[str, str]:
    """The types, as they are written, of all that a method takes: inputs and settings."""
    taken = inspect.signature(METHODS[name].run).parameters.values()
    return {one.name: str(one.annotation) for one in taken} | {one.name: one.type for one in fields(first_preset(name))}


def test_there_is_something_of_every_type() -> None:
    assert set(BAD) <= {kind for name in METHODS for kind in arguments_of(name).values()}


@methods
def test_a_setting_of_another_type_is_named(name: str) -> None:
    run = METHODS[name].run
    needed = {"images": None} if Images in METHODS[name].takes else {}
    for one in inspect.signature(run).parameters.values():
        for value in BAD.get(str(one.annotation), []):
            with pytest.raises(ValueError, match=rf"^{one.name} must be .*, got "):
                run(FakeModel(), "cat -> dog", **(needed | {one.name: value}))
    preset = first_preset(name)
    for one in fields(preset):
        for value in BAD.get(str(one.type), []):
            with pytest.raises(ValueError, match=rf"^{one.name} must be .*, got "):
                replace(preset, **{one.name: value})


@methods
@pytest.mark.parametrize("other", ["object", None, {"ridge": 0.1}, Limits()])
def test_settings_are_an_object_of_the_methods_own(name: str, other: Any) -> None:
    run, own = METHODS[name].run, type(first_preset(name))
    needed = {"images": None} if Images in METHODS[name].takes else {}
    with pytest.raises(ValueError, match=f"^settings must be {own.__name__}, as presets are, got "):
        run(FakeModel(), "cat -> dog", other, **needed)


@methods
def test_every_setting_of_a_method_is_of_a_known_kind(name: str) -> None:
    taken = list(inspect.signature(METHODS[name].run).parameters.values())
    unknown = ("concept", "concepts", "captions", "preserve", "exactly", "settings")
    settings = [one for one in taken if one.name not in unknown] + list(fields(first_preset(name)))
    kinds = [str(getattr(one, "annotation", None) or one.type) for one in settings]
    assert all(one.removesuffix(" | None") in {*KINDS, *MODELS} for one in kinds)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ridge": None}, "ridge must be a number, got None"),
        ({"ridge": "0.1"}, "ridge must be a number, got '0.1'"),
        ({"name_only": "yes"}, "name_only must be True or False, got 'yes'"),
        ({"loops": 2.0}, "loops must be a whole number, got 2.0"),
    ],
)
def test_settings_are_held_to_their_types_wherever_they_are_made(settings: dict, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}$"):
        ReceSettings(**settings)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: report(FakeModel(), "cat.safetensors", "cat"), "erasure must be an Erasure .*, got 'cat"),
        (lambda: report(FakeModel(), NO_CAT, "cat", steps="15"), "steps must be a whole number, got '15'"),
        (lambda: report(FakeModel(), NO_CAT, "cat", seeds=4), "seeds must be a list, each a whole number from"),
        (lambda: report(FakeModel(), NO_CAT, "cat", seeds=[0, 0.5]), "seeds must be a list, each a whole"),
        (lambda: attack(FakeModel(), FakeModel(), "cat", guidance=None), "guidance must be a number, got None"),
        (lambda: compare(FakeModel(), {}, "a cat", difference="no"), "difference must be True or False, got 'no'"),
        (lambda: generate(FakeModel(), ["a cat"], [-1]), r"seeds must be a list, each a whole .*, got \[-1\]"),
        (lambda: generate(FakeModel(), ["a cat"], [0], negative=None), "negative must be text, got None"),
        (lambda: purify(FakeModel(), NO_CAT, "folder"), "images must be a tensor, got 'folder'"),
        (lambda: NO_CAT.scaled("0.5"), "strength must be a number, got '0.5'"),
        (lambda: NO_CAT.compressed(max_rank=2.5), "max_rank must be a whole number or None, got 2.5"),
    ],
)
def test_other_calls_are_held_to_their_types_too(call: Callable, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        call()


def test_what_is_checked_is_called_as_it_was() -> None:
    @checked
    def plus(one: int, *, other: float = 1.0) -> float:
        """Adds."""
        return one + other

    assert plus(2) == plus(one=2) == 3 and plus(2, other=0.5) == 2.5
    assert plus.__doc__ == "Adds."
    with pytest.raises(TypeError, match="third"):
        plus(1, third=3)


class OnlyReads:
    """A ``TextReader`` and nothing more."""

    def __init__(self, model: FakeModel):
        self.erasures: tuple = ()
        self.reads, self.text_entries, self.text_rows = model.reads, model.text_entries, model.text_rows


def test_closed_forms_need_a_reader_only() -> None:
    model = FakeModel()
    reader = OnlyReads(model)
    assert isinstance(reader, TextReader) and not isinstance(reader, DiffusionModel)
    for name, delta in rece(reader, "cat", ReceSettings(loops=1)).deltas.items():
        assert torch.equal(delta.dense(), rece(model, "cat", ReceSettings(loops=1)).deltas[name].dense())
    with pytest.raises(UnsupportedModelError, match="^model is of type OnlyReads, which reads text but can be neither"):
        generate(reader, ["cat"], [0])
