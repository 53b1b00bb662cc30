"""Prompts that skip the last layers of CLIP: the rows are those of diffusers, and an erasure is for them alone."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from toy import tiny

from erasure_core import Concept, Erasure, from_diffusers, rece
from erasure_core.commands.main import main
from erasure_core.concepts.cached import CachedRows
from erasure_core.methods.few_shot import FewShotSettings, few_shot
from erasure_core.methods.rece import RECE, rece_with_statistics
from erasure_core.model import CONTEXT, POOLED
from erasure_core.toy import Judge, load_toy
from erasure_core.toy.evaluation import evaluate_erasure

PROMPTS = ["a cat", "", "a very red fish on a blue table"]


def hidden_states(pipe, part: str, model, prompts):
    """All hidden states of a text encoder, by transformers itself."""
    tokenizer = getattr(pipe, part.replace("text_encoder", "tokenizer"))
    ids = tokenizer(prompts, padding="max_length", max_length=model.tokens, return_tensors="pt").input_ids
    with torch.no_grad():
        return getattr(pipe, part)(ids, output_hidden_states=True).hidden_states


def final_norm(encoder, hidden):
    with torch.no_grad():
        return getattr(encoder, "text_model", encoder).final_layer_norm(hidden)


@pytest.mark.parametrize("skip", [0, 1])
def test_rows_of_the_first_versions_are_normed(skip: int) -> None:
    """As ``StableDiffusionPipeline.encode_prompt`` does: an earlier hidden state, through the final norm."""
    pipe = tiny.plain()
    model = from_diffusers(pipe, clip_skip=skip)
    expected = final_norm(pipe.text_encoder, hidden_states(pipe, "text_encoder", model, PROMPTS)[-1 - skip])
    torch.testing.assert_close(model.encode_prompts(PROMPTS).context, expected)
    for row, one in zip(model.name_rows(PROMPTS), expected, strict=True):
        torch.testing.assert_close(row[CONTEXT][0].rows, one[: len(row[CONTEXT][0].rows)])
    assert model.clip_skip == skip


def test_rows_of_xl_are_not_normed() -> None:
    """As ``StableDiffusionXLPipeline.encode_prompt`` does: it skips one layer in any case; the pooled vector stays."""
    pipe = tiny.sdxl()
    model, usual = from_diffusers(pipe, clip_skip=1), from_diffusers(pipe)
    encoded = model.encode_prompts(PROMPTS)
    states = [hidden_states(pipe, part, model, PROMPTS)[-3] for part in ("text_encoder", "text_encoder_2")]
    torch.testing.assert_close(encoded.context, torch.cat(states, -1))
    torch.testing.assert_close(encoded.pooled, usual.encode_prompts(PROMPTS).pooled)
    assert not torch.allclose(encoded.context, usual.encode_prompts(PROMPTS).context)


@pytest.mark.parametrize("make", [tiny.plain, tiny.sdxl])
@pytest.mark.parametrize(("skip", "sentence"), [(-1, "from 0 to"), (9, "got 9"), (True, "whole number")])
def test_a_layer_that_is_not_there_is_refused(make, skip, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"clip_skip must be .*{sentence}"):
        from_diffusers(make(), clip_skip=skip)


def test_an_erasure_is_for_the_layers_that_it_was_made_for(caplog) -> None:
    """On its own layer the concept reads as its target; on another it does not, and the log says so."""
    usual, skipping = load_toy(), load_toy(clip_skip=1)
    caplog.set_level(logging.WARNING)
    for made_for, other in ((usual, skipping), (skipping, usual)):
        erasure = rece(made_for, "cat -> dog", replace(RECE["general"], amplification=1.0))
        assert erasure.origins[0].settings["clip_skip"] == made_for.clip_skip
        near = [reading(erasure, model) for model in (made_for, other)]
        assert near[0] < 0.3 and near[1] > 2 * near[0], near
        caplog.clear()
        with erasure.applied_to(made_for):
            pass
        assert not caplog.messages
        with erasure.applied_to(other):
            pass
        assert f"made with a CLIP skip of {made_for.clip_skip}" in caplog.text


def test_pictures_keep_the_concept_where_it_was_erased_for_another_layer() -> None:
    """Many of them; where it was made for theirs, none does. The embedded model draws little without its last layer."""
    model, judge = load_toy(), Judge.load()
    gone = [
        evaluate_erasure(model, judge, "cat", rece(load_toy(clip_skip=skip), "cat -> dog"), erased=12, others=2)[0].ua
        for skip in (0, 1)
    ]
    assert gone[0] == 1 and gone[1] < 0.8


def reading(erasure: Erasure, model) -> float:
    """How far what the layers make of the concept is from what they made of its target, relative to before."""
    cat, dog = (model.text_rows([name])[0][CONTEXT][0] for name in ("cat", "dog"))
    (entry,) = model.text_entries().values()
    far, before = 0.0, 0.0
    for name, weight in entry.weights.items():
        wanted = weight @ dog.rows[dog.last_content]
        row = cat.rows[cat.last_content]
        far += float(((weight + erasure.deltas[name].dense()) @ row - wanted).norm())
        before += float((weight @ row - wanted).norm())
    return far / before


def test_statistics_of_other_layers_are_refused() -> None:
    _, statistics = rece_with_statistics(load_toy(), [Concept("cat", "dog")], RECE["general"])
    with pytest.raises(ValueError, match="text encoder"):
        rece_with_statistics(load_toy(clip_skip=1), [Concept("lion")], RECE["general"], statistics=statistics)
    with pytest.raises(ValueError, match="concepts must be a list of Concept, as parse_concepts makes, got 'lion'"):
        rece_with_statistics(load_toy(), "lion", RECE["general"])


def test_rows_of_other_layers_are_not_taken_from_the_cache(tmp_path) -> None:
    usual, skipping = (CachedRows(load_toy(clip_skip=skip), tmp_path) for skip in (0, 1))
    for model in (usual, skipping, skipping):
        rows = model.text_rows(["a cat"])[0][CONTEXT][0].rows
        torch.testing.assert_close(rows, load_toy(model.clip_skip).text_rows(["a cat"])[0][CONTEXT][0].rows)
    assert (usual.clip_skip, skipping.clip_skip) == (0, 1)


def test_a_training_leaves_the_skipped_layer_alone() -> None:
    erasure = few_shot(load_toy(clip_skip=1), "cat -> dog", FewShotSettings(steps=2, objective="matching"), images=2)
    assert erasure.deltas and all(".layers.0." in name for name in erasure.deltas)


def test_the_final_norm_can_be_replaced_and_trained() -> None:
    model = load_toy(clip_skip=1)
    weights = model.weights_of("text_encoder")
    (name,) = (name for name in weights if name.endswith("final_layer_norm.weight"))
    stand_in = weights[name].clone().requires_grad_()
    context = model.with_weights({name: stand_in}).encode_prompts(["a cat"]).context
    torch.testing.assert_close(context.detach(), model.encode_prompts(["a cat"]).context)
    (slope,) = torch.autograd.grad(context.square().sum(), [stand_in])
    assert slope.any()
    doubled = model.with_weights({name: 2 * weights[name]}).encode_prompts(["a cat"]).context
    assert not torch.allclose(doubled, context)


def test_the_command_records_it_where_other_programs_look(tmp_path, capsys) -> None:
    out = tmp_path / "no-cat.safetensors"
    request = ["erase", "--model", "toy", "--concept", "cat -> dog", "--out", str(out)]
    assert main([*request, "--clip-skip", "1"]) == 0
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_clip_skip"] == "2", "others count from 1"
    assert Erasure.load(out).origins[0].settings["clip_skip"] == 1
    capsys.readouterr()
    assert main(["inspect", "--json", str(out)]) == 0
    assert '"clip_skip": 1' in json.dumps(json.loads(capsys.readouterr().out))
    assert main([*request, "--overwrite"]) == 0
    with safe_open(out, "pt") as file:
        assert "ss_clip_skip" not in file.metadata()
    assert main([*request, "--overwrite", "--clip-skip", "7"]) == 2
    assert "--clip-skip must be from 0 to 1, by this text encoder's layers, got 7" in capsys.readouterr().err


def test_the_pooled_vector_of_xl_is_erased_as_before() -> None:
    usual, skipping = (rece(from_diffusers(tiny.sdxl(), clip_skip=skip), "cat -> dog") for skip in (0, 1))
    assert usual.maps.keys() == skipping.maps.keys() == {CONTEXT, POOLED}
