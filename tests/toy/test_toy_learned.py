"""The learned methods through real transformers and diffusers modules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy.conftest import state

from erasure_core import Concept, Erasure, UnsupportedModelError, common_concepts, from_diffusers, rece
from erasure_core.methods.abo import TOY_ABO, AbOSettings, abo
from erasure_core.methods.doco import TOY_DOCO, DoCoSettings, doco
from erasure_core.methods.few_shot import TOY_FEW_SHOT, FewShotSettings, few_shot, trained_weights
from erasure_core.methods.rece import RECE
from erasure_core.model import CONTEXT
from erasure_core.sampling.ddim import generate
from erasure_core.sampling.purify import purify
from erasure_core.toy import load_pipeline
from erasure_core.toy.evaluation import drift_outside, evaluate_erasure, pictures_of, subject_of

pytestmark = pytest.mark.usefixtures("untouched")
SCOPES = ("cross-attention", "attention", "unet", "text_encoder")


def output(model) -> torch.Tensor:
    text = model.encode_prompts(["a cat"])
    latents = torch.randn(1, *model.latent_shape(), generator=torch.Generator().manual_seed(0))
    return model.predict_noise(latents, torch.tensor([500]), text)


@pytest.mark.parametrize("scope", SCOPES)
def test_own_weights_as_stand_ins_change_nothing(toy, scope: str) -> None:
    torch.testing.assert_close(output(toy.with_weights(toy.weights_of(scope))), output(toy), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scope", SCOPES)
def test_stand_ins_do_what_the_patch_does(toy, scope: str) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = dict(toy.weights_of(scope))
    deltas = {name: 0.01 * torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    expected = output(toy.with_weights({name: weight + deltas[name] for name, weight in weights.items()}))
    with toy.patched(deltas):
        torch.testing.assert_close(output(toy), expected, rtol=0, atol=1e-4)
    assert not torch.allclose(output(toy), expected, atol=1e-3)


@pytest.mark.parametrize("scope", ["cross-attention", "text_encoder"])
def test_gradients_reach_the_stand_ins(toy, scope: str) -> None:
    """Against a difference of two runs along a random direction."""
    name, weight = next((n, w) for n, w in toy.weights_of(scope).items() if "attn" in n and w.ndim == 2)
    leaf = weight.clone().requires_grad_()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    output(toy.with_weights({name: leaf})).square().sum().backward()
    with torch.no_grad():
        high, low = (output(toy.with_weights({name: weight + d * direction})).square().sum() for d in (1e-2, -1e-2))
    assert float((leaf.grad * direction).sum()) == pytest.approx(float((high - low) / 2e-2), rel=2e-2, abs=1e-3)


def test_each_method_learns_and_leaves_the_pipeline(toy) -> None:
    before = state(toy)
    pictures = generate(toy, ["a cat"] * 2, [1, 2], steps=2)
    made = [
        few_shot(toy, "cat", FewShotSettings(steps=2), images=pictures),
        doco(toy, "cat -> dog", DoCoSettings(steps=2, batch_size=2, learning_rate=1e-4), anchors=2),
        abo(
            toy, "cat -> dog", AbOSettings(steps=2, trajectories=2, sampling_steps=2, batch_size=2, learning_rate=1e-3)
        ),
    ]
    assert state(toy) == before
    assert all(parameter.grad is None for parameter in toy.pipe.unet.parameters())
    for erasure in made:
        with erasure.applied_to(toy):
            assert not torch.equal(generate(toy, ["a cat"] * 2, [1, 2], steps=2), pictures)
    assert set(made[0].deltas) == set(trained_weights(toy.weights_of("text_encoder")))
    assert set(made[1].deltas) == set(made[2].deltas) == set(toy.text_entries()[CONTEXT].weights)


def test_few_shot_as_published_erases_an_object_within_its_window(toy, judge) -> None:
    erasure = few_shot(toy, "rabbit", TOY_FEW_SHOT["published"], images=pictures_of(subject_of("rabbit")))
    before, _ = evaluate_erasure(toy, judge, "rabbit", erased=16, others=48, seed=3)
    after, _ = evaluate_erasure(toy, judge, "rabbit", erasure, erased=16, others=48, seed=3)
    assert before.ua <= 0.2 and after.ua >= 0.9
    assert after.ira >= before.ira - 0.1


def test_few_shot_turns_a_style_into_another_and_keeps_the_rest(toy, judge) -> None:
    """A style that tuning never saw, in fewer steps than the preset has."""
    concept, settings = Concept("blob", "twemoji"), replace(TOY_FEW_SHOT["style"], steps=60)
    erasure = few_shot(toy, concept, settings, preserve=common_concepts([concept]))
    before, _ = evaluate_erasure(toy, judge, "blob", erased=12, others=32, seed=3)
    after, gallery = evaluate_erasure(toy, judge, "blob", erasure, erased=12, others=32, seed=3)
    assert before.ua <= 0.2 and after.ua >= 0.75
    assert gallery.verdict.styles[:12].count("twemoji") >= 8
    assert min(after.ira - before.ira, after.cra - before.cra, after.colour - before.colour) >= -0.1


def test_doco_turns_an_object_into_another_and_keeps_the_rest(toy, judge) -> None:
    """In fewer steps than the preset has."""
    concept, settings = Concept("cat", "dog"), replace(TOY_DOCO["object"], steps=160)
    erasure = doco(toy, concept, settings, preserve=common_concepts([concept]))
    before, _ = evaluate_erasure(toy, judge, "cat", erased=12, others=24, seed=3)
    after, gallery = evaluate_erasure(toy, judge, "cat", erasure, erased=12, others=24, seed=3)
    assert before.ua <= 0.2 and after.ua >= 0.9
    assert gallery.verdict.objects[:12].count("dog") >= 10
    assert min(after.ira - before.ira, after.cra - before.cra, after.colour - before.colour) >= -0.1


def test_abo_with_focus_keeps_more_of_the_layout_than_rece(toy, judge) -> None:
    """With the same alternative, on an object that tuning never saw, in fewer steps than the preset has."""
    concept, subject = Concept("penguin", "owl"), subject_of("penguin")
    before, was = evaluate_erasure(toy, judge, "penguin", erased=12, others=24, seed=3)
    changed = {}
    for method, erasure in (
        ("abo", abo(toy, concept, replace(TOY_ABO["object"], steps=60), preserve=common_concepts([concept]))),
        ("rece", rece(toy, concept, RECE["object"], preserve=common_concepts([concept]))),
    ):
        after, now = evaluate_erasure(toy, judge, "penguin", erasure, erased=12, others=24, seed=3)
        assert before.ua <= 0.2 and after.ua >= 0.9
        assert min(after.ira - before.ira, after.cra - before.cra, after.colour - before.colour) >= -0.1
        changed[method] = drift_outside(was, now, subject)
    assert changed["abo"] < 0.9 * changed["rece"]


def test_purified_pictures_show_the_replacement_and_others_stay(toy, judge) -> None:
    """Real renders; inverting and drawing again costs others next to nothing."""
    erasure = rece(toy, "cat -> dog", RECE["object"], preserve=common_concepts([Concept("cat")]))
    cats = purify(toy, erasure, pictures_of(subject_of("cat")), prompt="a cat", guidance=3.0)
    assert judge.judge(cats).objects.count("dog") >= 3
    lions = pictures_of(subject_of("lion"))
    found = purify(toy, erasure, lions, prompt="a lion")
    assert judge.judge(found).objects == ["lion"] * 4
    assert (found - toy.decode_latents(toy.encode_images(lions))).abs().mean() < 0.05


def test_parameters_that_ask_for_gradients_get_none(toy) -> None:
    pipe = load_pipeline()
    pipe.unet.requires_grad_(True)
    pipe.text_encoder.requires_grad_(True)
    model = from_diffusers(pipe)
    assert not output(model).requires_grad, "activations would be kept for gradients that nobody wants"
    few_shot(model, "cat", FewShotSettings(steps=1), images=generate(toy, ["a cat"], [1], steps=1))
    parameters = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    assert all(parameter.grad is None for parameter in parameters)


def test_half_precision_is_refused() -> None:
    pipe = load_pipeline()
    pipe.unet.half()
    model = from_diffusers(pipe)
    with pytest.raises(UnsupportedModelError, match="float16 gives NaN; load the model in float32 or bfloat16"):
        model.with_weights(model.text_entries()[CONTEXT].weights)


def test_loras_must_be_fused_first(toy, tmp_path) -> None:
    pytest.importorskip("peft")
    low = abo(toy, "cat", AbOSettings(steps=1, trajectories=1, sampling_steps=1), rank=2)
    path = low.save(tmp_path / "a.safetensors")
    pipe = load_pipeline()
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    with pytest.raises(UnsupportedModelError, match="fuse_lora"):
        abo(from_diffusers(pipe), "cat", AbOSettings(steps=1, trajectories=1, sampling_steps=1))


def test_text_encoder_changes_survive_a_file(toy, tmp_path) -> None:
    erasure = few_shot(
        toy, "cat", FewShotSettings(steps=2, learning_rate=1e-3), images=generate(toy, ["a cat"], [1], steps=1)
    )
    back = Erasure.load(erasure.save(tmp_path / "a.safetensors"))
    with erasure.applied_to(toy):
        expected = toy.encode_prompts(["a cat"]).context
    with back.applied_to(toy):
        assert torch.equal(toy.encode_prompts(["a cat"]).context, expected)
    small = erasure.compressed(tolerance=0.01)
    with small.applied_to(toy):
        found = toy.encode_prompts(["a cat"]).context
    assert (found - expected).norm() < 0.05 * (expected - toy.encode_prompts(["a cat"]).context).norm()
