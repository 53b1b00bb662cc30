"""The benchmark's technique without the benchmark: seeds, long prompts, and an erasure from a file."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from erasure_core import eval_unlearn, rece
from erasure_core.eval_unlearn import ErasureTechnique

pytestmark = pytest.mark.usefixtures("untouched")
FEW = {"model": "toy", "steps": 3, "guidance": 3}


@pytest.fixture(autouse=True)
def shared(toy, monkeypatch) -> None:
    monkeypatch.setattr(eval_unlearn, "load_model", lambda *_: toy)


def technique(**config) -> ErasureTechnique:
    return ErasureTechnique(**FEW, **config)


def pixels(pictures: list) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


def alike(some: np.ndarray, others: np.ndarray) -> bool:
    """But for rounding: batches of other sizes are summed in another order."""
    return some.shape == others.shape and np.abs(some - others).max() <= 3


def test_a_seed_gives_the_same_pictures() -> None:
    draws = technique(method="none")
    first = draws.generate(["a cat", "a cat"], seed=7)
    assert {(picture.mode, picture.size) for picture in first} == {("RGB", (64, 64))}
    again = pixels(draws.generate(prompts=["a cat", "a cat"], seed=7))
    assert np.array_equal(pixels(first), again) and not alike(again[0], again[1])
    assert alike(pixels(draws.generate(["a cat"], seed=8))[0], again[1])


def test_without_a_seed_pictures_go_on_from_the_configured_one() -> None:
    draws = technique(method="none", seed=7)
    one, two = pixels(draws.generate(["a cat"])), pixels(draws.generate(["a cat"]))
    assert alike(np.concatenate([one, two]), pixels(draws.generate(["a cat"] * 2, seed=7)))


def test_what_generate_is_told() -> None:
    draws = technique(method="none")
    less = draws.generate(["a cat"], seed=1, num_inference_steps=2, guidance_scale=1)
    assert not alike(pixels(less), pixels(draws.generate(["a cat"], seed=1)))
    with pytest.raises(ValueError, match="no setting 'eta'; it has num_inference_steps"):
        draws.generate(["a cat"], eta=1)


def test_a_file_does_what_the_method_does(toy, tmp_path) -> None:
    erasure = rece(toy, "cat")
    path = erasure.save(tmp_path / "no-cat.safetensors")
    from_file, computed = technique(erasure=str(path)), technique(method="rece", erase_concept="cat")
    drawn = [pixels(one.generate(["a cat"], seed=1)) for one in (from_file, computed, technique(method="none"))]
    assert np.array_equal(drawn[0], drawn[1]) and not alike(drawn[0], drawn[2])


def test_long_prompts_lose_their_ends(toy, caplog) -> None:
    long = "a cat on a red background, " * 20
    short = toy.shortened(long)
    assert long.startswith(short) and toy.shortened(short) == short
    toy.encode_prompts([short])
    with pytest.raises(ValueError, match="tokens long"):
        toy.encode_prompts([short + " cat"])
    assert toy.shortened("cat" * 400).startswith("catcat") and toy.shortened("") == ""
    with caplog.at_level(logging.WARNING):
        technique(method="none").generate([long], seed=1)
    assert "is too long and loses" in caplog.text
