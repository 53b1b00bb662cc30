"""What identifies the text encoders of a pipeline, and rows of it that are kept in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import tiny

from erasure_core import CachedRows, UnsupportedModelError, from_diffusers, rece
from erasure_core.methods.rece import RECE
from erasure_core.model import CacheableReader


def of(pipe) -> str:
    return from_diffusers(pipe).encoder_digest()


@pytest.mark.parametrize("kind", [tiny.plain, tiny.sdxl, tiny.refiner])
def test_equal_text_encoders_are_equal_and_one_bit_tells_them_apart(kind) -> None:
    assert isinstance(from_diffusers(kind()), CacheableReader)
    pipe = kind()
    digest = of(pipe)
    assert digest == of(kind()) and len(digest) == 64
    with torch.no_grad():
        pipe.unet.conv_in.weight.add_(1)
        assert of(pipe) == digest
        for part in from_diffusers(pipe).family.parts:
            weight = list(getattr(pipe, part).parameters())[-1].data.view(torch.int32)
            weight[-1] ^= 1
            assert of(pipe) != digest
            weight[-1] ^= 1
            assert of(pipe) == digest


def test_all_that_decides_what_is_read_counts() -> None:
    model = from_diffusers(tiny.sdxl())
    digests = {model.encoder_digest()}
    digests.add(from_diffusers(model.pipe, clip_skip=1).encoder_digest())
    family, (first, second) = model.family, model.family.encoders
    model._text._family = replace(family, encoders=(replace(first, final_norm=True), second))
    digests.add(model.encoder_digest())
    model._text._family = family
    model.pipe.tokenizer_2.pad_token = "a"
    digests.add(model.encoder_digest())
    model.pipe.text_encoder.config.hidden_act = "gelu"
    digests.add(model.encoder_digest())
    model._text.tokens = 50
    digests.add(model.encoder_digest())
    model.pipe.to(torch.bfloat16)
    digests.add(model.encoder_digest())
    assert len(digests) == 7


def test_what_is_not_in_the_weights_is_refused(tmp_path: Path) -> None:
    model = from_diffusers(tiny.plain())
    name, weight = next(iter(model.weights_of("text_encoder").items()))
    with pytest.raises(UnsupportedModelError, match="the text_encoder has LoRAs or other changes on it"):
        CachedRows(model.with_weights({name: weight + 1}), tmp_path)
    layer = model.pipe.text_encoder.get_submodule(
        next(path for path, one in model.pipe.text_encoder.named_modules() if path.endswith("q_proj"))
    )
    layer.lora_A = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedModelError, match="LoRAs or other changes"):
        CachedRows(model, tmp_path)


@pytest.mark.parametrize("kind", [tiny.plain, tiny.sdxl])
@pytest.mark.parametrize("preset", ["general", "many"])
def test_an_erasure_from_kept_rows_is_the_same(kind, preset: str, tmp_path: Path) -> None:
    concepts = ["cat", "a painting by van gogh -> art", "dog"]
    expected = rece(from_diffusers(kind()), concepts, RECE[preset])
    rece(CachedRows(from_diffusers(kind()), tmp_path), concepts, RECE[preset])
    model = from_diffusers(kind())
    for part in model.family.parts:
        getattr(model.pipe, part).forward = lambda *_, **__: pytest.fail("a prompt was encoded")
    found = rece(CachedRows(model, tmp_path), concepts, RECE[preset])
    assert all(found.deltas[name].dense().equal(delta.dense()) for name, delta in expected.deltas.items())
