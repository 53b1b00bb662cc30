"""RECE on the embedded model: what it does to pictures, and the same through a file and diffusers' own loader."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from toy.conftest import state

from erasure_core import Concept, Erasure, common_concepts, parse_concepts, rece
from erasure_core.closed_form.already_erased import ErasedAlreadyError
from erasure_core.concepts.common import COMMON
from erasure_core.concepts.names import spelled, visible
from erasure_core.diffusers.clip_tokenizer import clip_tokenizer
from erasure_core.methods.rece import RECE, ReceSettings
from erasure_core.model import CONTEXT
from erasure_core.quoting import unreadable
from erasure_core.sampling.ddim import generate
from erasure_core.toy import load_pipeline
from erasure_core.toy.captions import sample_captions
from erasure_core.toy.evaluation import Scores, draw, evaluate_erasure

pytestmark = pytest.mark.usefixtures("untouched")
PICTURES = {"erased": 20, "others": 60, "seed": 3}


def erasing(toy, text: str, preset: str = "object") -> Erasure:
    concepts = parse_concepts(text)
    return rece(toy, concepts, RECE[preset], preserve=common_concepts(concepts))


@pytest.fixture(scope="module")
def no_cat(toy) -> Erasure:
    return erasing(toy, "cat")


@pytest.mark.parametrize(
    ("text", "preset"), [("cat", "object"), ("lion -> tiger", "object"), ("noto -> fluent", "style")]
)
def test_a_concept_goes_and_the_rest_stays(toy, judge, text: str, preset: str) -> None:
    (concept,) = parse_concepts(text)
    before, was = evaluate_erasure(toy, judge, concept, **PICTURES)
    after, now = evaluate_erasure(toy, judge, concept, erasing(toy, text, preset), **PICTURES)
    assert before.ua <= 0.2, "the unedited model has to draw it"
    assert after.ua >= 0.9
    _keeps_the_rest(before, after)
    assert was.captions == now.captions


@pytest.mark.parametrize("name", ["cat's", "cat_", "a  cat."])
def test_a_concept_goes_however_its_name_is_written(toy, judge, name: str) -> None:
    """The everyday concepts that are preserved hold no cat in place when "cat's" is erased."""
    with erasing(toy, name).applied_to(toy):
        seen = judge.judge(generate(toy, ["a cat", name] * 6, range(12), steps=15, guidance=3.0))
    assert seen.objects.count("cat") == 0


@pytest.mark.parametrize("name", ["cat", "penguin"])
def test_prompts_without_the_name_do_not_bring_it_back(toy, judge, name: str) -> None:
    """Those that name a style and a background, but no object; without the built-in captions most of them do."""
    captions = [replace(one, object=None) for one in sample_captions(12, seed=5)]

    def shown(settings: ReceSettings) -> int:
        with rece(toy, name, settings).applied_to(toy):
            return draw(toy, judge, captions, seed=5).verdict.objects.count(name)

    assert shown(RECE["general"]) <= 2 and shown(replace(RECE["general"], everyday_captions=False)) >= 6


def _keeps_the_rest(before: Scores, after: Scores) -> None:
    for share in ("ira", "cra", "colour"):
        assert getattr(after, share) >= getattr(before, share) - 0.1, share


_tokenizer = functools.cache(clip_tokenizer)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.text(max_size=6), st.text(max_size=6), st.sampled_from(COMMON))
def test_words_tell_all_that_tokens_tell(before: str, behind: str, name: str) -> None:
    """What CLIP reads among the tokens of an erased name is not preserved, whatever stands around it."""
    tokenizer = _tokenizer()
    text = f"{before}{name}{behind}"
    assume(not unreadable(text) and spelled(text))
    beside = visible(before)[-1:] + visible(behind)[:1]
    assume(not any(unicodedata.category(one)[0] in "LM" for one in beside))  # another word
    tokens, asked = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in (spelled(text), name))
    assume(any(tokens[start : start + len(asked)] == asked for start in range(len(tokens))))
    assert name not in common_concepts([Concept(text)])


def test_the_unedited_model_is_unchanged(toy, no_cat: Erasure) -> None:
    before = state(toy)
    picture = generate(toy, ["a cat"], [5], steps=4)
    with no_cat.applied_to(toy):
        assert not torch.allclose(generate(toy, ["a cat"], [5], steps=4), picture)
        assert state(toy) != before
    assert state(toy) == before
    assert torch.equal(generate(toy, ["a cat"], [5], steps=4), picture)


def test_it_is_unchanged_after_an_exception(toy, no_cat: Erasure) -> None:
    before = state(toy)
    with pytest.raises(RuntimeError), no_cat.applied_to(toy):
        raise RuntimeError
    wrong = Erasure({**no_cat.deltas, "unet.nothing.weight": next(iter(no_cat.deltas.values()))}, ())
    with pytest.raises(ValueError, match="unet.nothing.weight, which the model does not have"), wrong.applied_to(toy):
        pass
    assert state(toy) == before


def test_an_erasure_of_another_model_does_not_fit(toy, no_cat: Erasure) -> None:
    small = {name: type(delta)(delta.up[:-1], delta.down) for name, delta in no_cat.deltas.items()}
    with pytest.raises(ValueError, match="it was made for another model"), Erasure(small, ()).applied_to(toy):
        pass


def test_diffusers_loads_the_file(toy, no_cat: Erasure, tmp_path: Path) -> None:
    """Stock ``load_lora_weights``: the same weights in the UNet and the same picture as the direct patch."""
    pytest.importorskip("peft")
    path = no_cat.save(tmp_path / "no-cat.safetensors")
    pipe = load_pipeline()
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    prompts = {"prompt": ["a cat in the style of blob", "a dog"], "num_inference_steps": 5, "guidance_scale": 3.0}
    noise = torch.randn(2, *toy.latent_shape(), generator=torch.Generator().manual_seed(1))
    theirs = pipe(**prompts, latents=noise, output_type="pt").images
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    fused = pipe.unet.state_dict()
    with no_cat.applied_to(toy):
        ours = toy.pipe(**prompts, latents=noise, output_type="pt").images
        for name, weight in toy.pipe.unet.state_dict().items():
            torch.testing.assert_close(fused[name], weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-3)


def test_upstream_loras_are_seen(toy, no_cat: Erasure, tmp_path: Path) -> None:
    """A model with our file loaded as a LoRA reads as the patched one."""
    pytest.importorskip("peft")
    from erasure_core import from_diffusers

    path = no_cat.save(tmp_path / "no-cat.safetensors")
    pipe = load_pipeline()
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    loaded = from_diffusers(pipe).text_entries()[CONTEXT].weights
    with no_cat.applied_to(toy):
        for name, weight in toy.text_entries()[CONTEXT].weights.items():
            torch.testing.assert_close(loaded[name], weight, rtol=1e-4, atol=1e-5)


def test_the_file_carries_the_erasure(toy, no_cat: Erasure, tmp_path: Path) -> None:
    back = Erasure.load(no_cat.save(tmp_path / "a.safetensors"))
    with no_cat.applied_to(toy):
        direct = generate(toy, ["a cat"], [5], steps=4)
    with back.applied_to(toy):
        assert torch.equal(generate(toy, ["a cat"], [5], steps=4), direct)


@pytest.mark.parametrize(
    ("first", "preset", "past", "untouched"),
    [
        ("cat", "object", ["cat", "a cat", "cat face"], ["dog", "lion", "tiger -> lion"]),
        ("noto", "style", ["noto", "noto style", "in the style of noto"], ["fluent", "blob"]),
    ],
)
def test_what_is_erased_is_not_pulled_back(toy, first: str, preset: str, past: list[str], untouched: list[str]) -> None:
    """By whatever name."""
    with erasing(toy, first, preset).applied_to(toy):
        for name in past:
            with pytest.raises(ErasedAlreadyError, match=f"'{name}' is erased from this model already"):
                erasing(toy, name, preset)
        for name in untouched:
            erasing(toy, name, preset)


def test_unrefused_it_would_be(toy, judge) -> None:
    few = {"erased": 12, "others": 1, "seed": 3}
    first = erasing(toy, "noto", "style")
    with first.applied_to(toy):
        once, _ = evaluate_erasure(toy, judge, "noto", **few)
        toy.erasures = ()  # what is known of it
        with erasing(toy, "noto style", "style").applied_to(toy):
            again, _ = evaluate_erasure(toy, judge, "noto", **few)
    assert once.ua >= 0.9 and again.ua <= 0.5


def test_a_second_erasure_on_top_of_the_first(toy, no_cat: Erasure) -> None:
    with no_cat.applied_to(toy):
        second = erasing(toy, "dog")
        with second.applied_to(toy):
            nested = {name: weight.clone() for name, weight in toy.text_entries()[CONTEXT].weights.items()}
    with (no_cat + second).applied_to(toy):
        for name, weight in toy.text_entries()[CONTEXT].weights.items():
            torch.testing.assert_close(weight, nested[name], rtol=1e-4, atol=1e-4)
