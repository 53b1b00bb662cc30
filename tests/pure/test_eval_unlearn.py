"""What a benchmark's configuration can get wrong, refused by name before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from pure.fakes import FakeModel

from erasure_core import eval_unlearn, rece
from erasure_core.eval_unlearn import ErasureTechnique, ToyJudgeMetric

CAT = {"model": "toy", "method": "rece", "erase_concept": "cat"}


@pytest.fixture(autouse=True)
def no_model(monkeypatch) -> None:
    def load(name: str, device: object):
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(eval_unlearn, "load_model", load)


def refused(**config) -> str:
    with pytest.raises(ValueError) as caught:
        ErasureTechnique(**config)
    return str(caught.value)


def test_a_complete_configuration_reaches_the_model() -> None:
    more = {
        "preset": "style",
        "settings": {"loops": 2, "ridge": 1, "preserve": ["dog"], "no_common": True, "preserve_list": "mediums"},
    }
    with pytest.raises(AssertionError, match="toy was loaded"):
        ErasureTechnique(**CAT, **more)
    few_shot = {**CAT, "method": "few_shot", "settings": {"images": 4, "seed": 3, "steps": 2}}
    with pytest.raises(AssertionError, match="toy was loaded"):
        ErasureTechnique(**few_shot)


def test_unknown_and_missing_keys() -> None:
    assert "no setting 'concept'; it has model, erasure" in refused(model="toy", method="rece", concept="cat")
    assert "needs 'model'" in refused(method="rece", erase_concept="cat")
    assert "either 'erasure', a file, or 'method'" in refused(model="toy")
    assert "either 'erasure', a file, or 'method'" in refused(**CAT, erasure="a.safetensors")
    assert "method 'esd' is unknown; known: rece" in refused(**{**CAT, "method": "esd"})
    assert "'rece' needs 'erase_concept'" in refused(model="toy", method="rece")
    assert "'erase_concept' means nothing beside method 'none'" in refused(**{**CAT, "method": "none"})
    assert "'preset' means nothing beside 'erasure'" in refused(model="toy", erasure="a.safetensors", preset="style")


def test_values_of_another_kind() -> None:
    assert "'steps' must be a whole number, got '15'" in refused(**CAT, steps="15")
    assert "'steps' must be a whole number, got True" in refused(**CAT, steps=True)
    assert "'guidance' must be a number, got None" in refused(**CAT, guidance=None)
    assert "'erase_concept' must be text" in refused(**{**CAT, "erase_concept": ["cat", "dog"]})
    assert "'settings' must be a table" in refused(**CAT, settings=["loops"])
    assert "'images' must be text or a whole number" in refused(**CAT, settings={"images": 1.5})
    assert "'preserve' must be text, got 1" in refused(**CAT, settings={"preserve": ["dog", 1]})
    assert "device 'gpu' cannot be used" in refused(**CAT, device="gpu")


def test_settings_of_a_method() -> None:
    assert "no setting 'loop'; it has" in refused(**CAT, settings={"loop": 2})
    assert "rece takes no steps; it is of few_shot, doco, abo" in refused(**CAT, settings={"steps": 2})
    assert "rece takes no seconds" in refused(**CAT, settings={"seconds": 3})
    assert "rece takes no images" in refused(**CAT, settings={"images": 4})
    few_shot = {**CAT, "method": "few_shot", "settings": {"images": 0}}
    assert "images: the model draws 1 to 1000 pictures itself, not 0" in refused(**few_shot)
    assert "rece has no preset 'loud'" in refused(**CAT, preset="loud")
    assert "no list of 'musicians'; there are artists" in refused(**CAT, settings={"preserve_list": "musicians"})
    assert "unknown separator" in refused(**{**CAT, "erase_concept": "cat => dog"})


def test_an_erasure_file(tmp_path: Path) -> None:
    path = str(rece(FakeModel(), "cat -> dog").save(tmp_path / "a.safetensors"))
    for concept in ({}, {"erase_concept": "a  Cat"}, {"erase_concept": "cat -> dog"}):
        with pytest.raises(AssertionError, match="toy was loaded"):
            ErasureTechnique(model="toy", erasure=path, **concept)
    assert "erases 'cat -> dog', not 'dog'" in refused(model="toy", erasure=path, erase_concept="dog")
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        ErasureTechnique(model="toy", erasure=str(tmp_path / "nowhere.safetensors"))


def test_the_judge(tmp_path: Path) -> None:
    for config, wrong in (
        ({}, "needs 'concept'"),
        ({"concept": "wolf"}, "does not draw 'wolf'"),
        ({"concept": "cat", "images": 3}, "no setting 'images'"),
        ({"concept": "cat", "pictures": 0}, "'pictures' must be at least 1"),
    ):
        with pytest.raises(ValueError, match=wrong):
            ToyJudgeMetric(**config)
    batches = list(ToyJudgeMetric(concept="noto", pictures=5, batch=2).load_dataset())
    assert [len(batch.prompts) for batch in batches] == [2, 2, 1]
    assert all("noto" in prompt for batch in batches for prompt in batch.prompts)
