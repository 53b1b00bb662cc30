"""What LoRA managers read of a file: only what is true, and the same for equal erasures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pure.fakes import LAYERS, FakeModel
from safetensors import safe_open

from erasure_core import Concept, Dense, Erasure, LowRank, Origin, rece
from erasure_core.erasures.model_spec import HINT, family_of, model_spec
from erasure_core.families.unets import REFINER, SD_1, SD_2, SDXL

FIRST = next(iter(LAYERS))
TEXT = "text_model.encoder.layers.0.self_attn.q_proj.weight"


def of(deltas: dict, *concepts: Concept, losses: tuple[float, ...] = ()) -> Erasure:
    return Erasure(deltas, (Origin("rece", concepts or (Concept("cat", "dog"),), {}, "0", losses=losses),))


def low_rank(width: int, rank: int = 2) -> LowRank:
    return LowRank(torch.ones(4, rank), torch.ones(rank, width))


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_an_erasure_of_stable_diffusion_1() -> None:
    assert model_spec(of({FIRST: low_rank(768)})) == {
        "modelspec.title": "no cat",
        "modelspec.description": "Erases cat -> dog (by rece, version 0.1.0). "
        "A name behind -> is what is drawn instead.",
        "modelspec.usage_hint": HINT,
        "modelspec.tags": "concept erasure, cat",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "ss_output_name": "no-cat",
        "ss_training_comment": "erases: cat -> dog",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "2",
    }


@pytest.mark.parametrize(("width", "family"), [(768, SD_1), (1024, SD_2), (2048, SDXL), (1280, REFINER), (64, None)])
def test_the_family_is_known_by_the_width_of_its_text(width: int, family) -> None:
    fields = model_spec(of({FIRST: low_rank(width)}))
    assert family_of(of({FIRST: low_rank(width)})) is family
    assert ("modelspec.architecture" in fields) == bool(family and family.architecture)
    assert ("modelspec.sai_model_spec" in fields) == ("modelspec.architecture" in fields)
    assert ("ss_base_model_version" in fields) == bool(family and family.base_model)


def test_text_encoders_tell_the_family_where_only_one_has_them() -> None:
    first, second = f"text_encoder.{TEXT}", f"text_encoder_2.{TEXT}"
    assert family_of(of({first: low_rank(768), second: low_rank(1280)})) is SDXL
    assert family_of(of({first: low_rank(1024)})) is SD_2
    assert family_of(of({first: low_rank(768)})) is None, "of Stable Diffusion 1.x, or the first of SDXL"


def test_the_network_is_kohyas_only_where_it_is() -> None:
    whole = model_spec(of({FIRST: Dense(torch.ones(4, 768))}, losses=(1.0, 0.5)))
    assert whole["ss_steps"] == "2" and not {"ss_network_module", "ss_network_dim"} & whole.keys()
    transformer = model_spec(of({"unet.txt_in.weight": low_rank(768)}))
    assert "ss_network_module" not in transformer and "modelspec.architecture" not in transformer
    mixed = {name: low_rank(768, rank) for rank, name in enumerate(LAYERS, start=1)}
    assert model_spec(of(mixed))["ss_network_dim"] == "Dynamic"


def test_many_concepts_have_a_short_title() -> None:
    fields = model_spec(of({FIRST: low_rank(768)}, *(Concept(f"artist number {n}") for n in range(1000))))
    assert fields["modelspec.title"] == "no artist number 0 and 999 more"
    assert fields["ss_output_name"] == "no-artist-number-0-and-999-more"
    assert all(len(value) < 1000 for name, value in fields.items() if name.startswith("modelspec."))


def test_what_a_user_gives_is_in_the_file(tmp_path: Path) -> None:
    """And without it equal erasures give equal bytes, under any name of the file."""
    erasure = rece(FakeModel(), "cat")
    one, other = erasure.save(tmp_path / "a.safetensors"), rece(FakeModel(), "cat").save(tmp_path / "b.safetensors")
    assert one.read_bytes() == other.read_bytes() and "modelspec.date" not in metadata_of(one)
    given = {"date": "2026-11-28", "title": "Cats begone", "author": "me", "thumbnail": "data:image/jpeg;base64,AA=="}
    path = erasure.save(tmp_path / "c.safetensors", modelspec=given)
    assert {f"modelspec.{name}": value for name, value in given.items()}.items() <= metadata_of(path).items()
    assert Erasure.load(path).origins == erasure.origins


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"date": "yesterday"}, "date must be as in 2026-11-28"),
        ({"thumbnail": "cat.png"}, "thumbnail must be a data URL"),
        ({"architecture": "x"}, "no field 'architecture'; give some of title"),
        ({"title": ""}, "the field 'title' must be text"),
        ({"title": 5}, "the field 'title' must be text, got 5"),
    ],
)
def test_what_cannot_be_given(given: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        rece(FakeModel(), "cat").save(tmp_path / "a.safetensors", modelspec=given)
    assert list(tmp_path.iterdir()) == []
