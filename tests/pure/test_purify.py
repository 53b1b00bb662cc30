"""Pictures through the edited model, on a model whose autoencoder loses nothing that is looked at here."""

from __future__ import annotations

import math

import pytest
import torch
from pure.fakes import FakeModel, digest

from erasure_core import rece
from erasure_core.sampling.purify import purify

IMAGES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(4))


class Invertible(FakeModel):
    """Latents that hold the pixels themselves."""

    def decode_latents(self, latents):
        return latents[:, :3]


def test_an_erasure_of_nothing_gives_the_pictures_back() -> None:
    model = Invertible()
    nothing = rece(model, "cat -> dog").scaled(0)
    for guidance in (0, 1, 3):
        found = purify(model, nothing, IMAGES, steps=20, guidance=guidance)
        assert (found - IMAGES).abs().max() < 1e-2


def test_an_erasure_changes_them_and_the_model_stays() -> None:
    model = Invertible()
    erasure = rece(model, "cat -> dog")
    before = digest(model.weights)
    found = purify(model, erasure, IMAGES, steps=10)
    assert digest(model.weights) == before
    assert found.shape == IMAGES.shape and (found - IMAGES).abs().max() > 0.05
    assert torch.equal(found, purify(model, erasure, IMAGES, steps=10))


def test_the_prompt_is_the_concept_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Invertible()
    erasure = rece(model, "cat -> dog\nred fish")
    seen = []
    original = model.encode_prompts
    monkeypatch.setattr(model, "encode_prompts", lambda prompts: seen.append(list(prompts)) or original(prompts))
    purify(model, erasure, IMAGES, steps=2)
    purify(model, erasure, IMAGES, prompt="a cat", steps=2)
    assert seen == 2 * [["cat, red fish", ""]] + 2 * [["a cat", ""]]


def test_progress_and_cancelling() -> None:
    model, seen = Invertible(), []
    erasure = rece(model, "cat -> dog")
    purify(model, erasure, IMAGES, steps=3, callback=lambda *report: seen.append(report))
    assert [report[0] for report in seen] == list(range(1, 7)) and {report[1] for report in seen} == {6}
    assert [report[2] for report in seen] == 3 * ["inverting"] + 3 * ["sampling"]
    before = digest(model.weights)

    def cancel(done: int, total: int, what: str) -> None:
        if what == "sampling":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purify(model, erasure, IMAGES, steps=3, callback=cancel)
    assert digest(model.weights) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.rand(3, 4, 4)}, r"images must be \[n, 3, height, width\]"),
        ({"images": IMAGES * 255}, "images must hold finite numbers from 0 to 1"),
        ({"steps": 0}, "steps must be from 1 to 99, got 0"),
        ({"guidance": math.nan}, "guidance must be a finite number of at least 0, got nan"),
    ],
)
def test_settings_that_cannot_be_used(changes: dict, message: str) -> None:
    model = Invertible()
    with pytest.raises(ValueError, match=message):
        purify(model, rece(model, "cat -> dog"), **{"images": IMAGES, "steps": 5, **changes})


@pytest.mark.parametrize("way", ["inverting", "sampling"])
def test_numbers_that_explode_are_told(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Invertible()
    erasure, plain, calls = rece(model, "cat -> dog"), model.predict_noise, []

    def explode(latents, timesteps, context):
        calls.append(1)
        late = len(calls) > 3 * 5
        return plain(latents, timesteps, context) * (math.inf if late == (way == "sampling") else 1)

    monkeypatch.setattr(model, "predict_noise", explode)
    with pytest.raises(ValueError, match=f"{way} left the numbers that make sense; lower guidance"):
        purify(model, erasure, IMAGES, steps=5)


def test_names_that_no_prompt_holds_are_told() -> None:
    model = FakeModel()
    erasure = rece(model, [f"thing {number}" for number in "abcdefgh"])
    with pytest.raises(
        ValueError, match="prompt is empty, and the names of the 8 erased concepts are too long for one"
    ):
        purify(model, erasure, torch.rand(1, 3, 16, 16))
