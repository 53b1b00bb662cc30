"""The methods that train, through ComfyUI's classes: what they see, what they change, and what they leave alone."""

import hashlib
import math

import comfy.model_management
import pytest
import torch
from pack.erasure_core import Concept, Dense, Erasure, LowRank, Origin, UnsupportedModelError, rece
from pack.erasure_core.erasures import erasure_file
from pack.erasure_core.erasures.erasure_file import MAPS
from pack.erasure_core.methods.abo import AbOSettings, abo
from pack.erasure_core.methods.doco import DoCoSettings, doco
from pack.erasure_core.methods.few_shot import FewShotSettings, few_shot, trained_weights
from pack.erasure_core.methods.rece import ReceSettings
from pack.erasure_core.sampling.ddim import split_prediction
from pack.erasure_core.sampling.purify import purify
from pack.erasure_core.toy import load_toy
from pack.erasure_core.training.loop import TrainingError
from pack.nodes.comfy_host import toy as toy_module
from pack.nodes.comfy_host.model import unet_keys
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.toy import _model
from pack.nodes.comfy_host.trainable_model import TrainableComfyModel, trainable

SCOPES = ("cross-attention", "attention", "unet", "text_encoder")
KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
TEXT = "text_encoder.text_model.encoder.layers.0.mlp.fc1.weight"
PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
RUNS = {
    "few_shot": lambda model, **more: few_shot(
        model, "cat", FewShotSettings(steps=2, learning_rate=1e-4), images=PICTURES, **more
    ),
    "few_shot without images": lambda model, **more: few_shot(
        model, "cat", FewShotSettings(steps=2), images=None, **more
    ),
    "doco": lambda model, **more: doco(
        model, "cat -> dog", DoCoSettings(steps=3, batch_size=2, learning_rate=1e-4, warm_up=0.4), anchors=2, **more
    ),
    "abo": lambda model, **more: abo(
        model,
        "cat -> dog",
        AbOSettings(steps=2, trajectories=2, sampling_steps=2, batch_size=2),
        preserve=["a lion"],
        **more,
    ),
}


@pytest.fixture(scope="module")
def loaded():
    """With inference tensors among the weights, as a checkpoint loader leaves them."""
    with torch.inference_mode():
        model, clip, vae = toy_module.load_toy()
        for module in (model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model):
            for owner in module.modules():
                for name, parameter in list(owner.named_parameters(recurse=False)):
                    setattr(owner, name, torch.nn.Parameter(parameter.clone(), requires_grad=False))
    assert next(model.model.diffusion_model.parameters()).is_inference()
    return model, clip, vae


def digest(*modules) -> str:
    """Of everything in their state dictionaries, and whether anything has a gradient."""
    hashed = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            hashed.update(name.encode() + tensor.numpy().tobytes())
        assert not any(parameter.requires_grad for parameter in module.parameters())
    return hashed.hexdigest()


@pytest.fixture
def toy(loaded):
    """MODEL, CLIP and VAE; that they are byte for byte as they were is checked after every test."""
    model, clip, vae = loaded
    parts = (model.model, clip.cond_stage_model, vae.first_stage_model)
    before = digest(*parts)
    with torch.inference_mode():  # as ComfyUI runs nodes
        yield loaded
    comfy.model_management.unload_all_models()
    assert digest(*parts) == before
    assert not model.patches and not clip.patcher.patches


@pytest.fixture
def seen(toy):
    with trainable(*toy) as model:
        yield model


@pytest.fixture(scope="module")
def reference():
    return load_toy()


def output(model):
    text = model.encode_prompts(["a cat"])
    latents = torch.randn(1, *model.latent_shape(), generator=torch.Generator().manual_seed(0))
    return model.predict_noise(latents, torch.tensor([500]), text)


def made(deltas):
    return Erasure(deltas, (Origin("test", (Concept("cat"),), {}, "0" * 16),))


def same(one, other):
    assert set(one.deltas) == set(other.deltas)
    return all(torch.equal(one.deltas[name].dense(), other.deltas[name].dense()) for name in one.deltas)


def test_it_predicts_what_sampling_sees(toy, seen):
    """``apply_model`` is what KSampler calls: noise is scaled otherwise there, and it gives the clean latents."""
    inner = toy[0].model
    latents, times = torch.randn(2, 16, 8, 8), torch.tensor([10, 700])
    text = seen.encode_prompts(["a cat", ""])
    alphas = seen.alphas_cumprod[times]
    ours, _ = split_prediction(seen.prediction_type, seen.predict_noise(latents, times, text), latents, alphas)
    sigmas = inner.model_sampling.sigmas[times]
    scaled = latents * (1 + sigmas.square()).sqrt()[:, None, None, None]
    torch.testing.assert_close(ours, inner.apply_model(scaled, sigmas, c_crossattn=text.context), rtol=0, atol=2e-4)


def test_it_is_what_the_core_sees_elsewhere(seen, reference):
    torch.testing.assert_close(output(seen), output(reference).detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.encode_images(PICTURES), reference.encode_images(PICTURES), rtol=0, atol=1e-4)
    assert seen.latent_shape() == reference.latent_shape()
    for scope in SCOPES:
        ours, theirs = seen.weights_of(scope), reference.weights_of(scope)
        assert set(theirs) <= set(ours) <= set(theirs) | {"text_encoder.text_projection.weight"}
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("scope", SCOPES)
def test_own_weights_as_stand_ins_change_nothing(seen, scope):
    torch.testing.assert_close(output(seen.with_weights(seen.weights_of(scope))), output(seen), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scope", ["cross-attention", "text_encoder"])
def test_stand_ins_do_what_the_patch_does(toy, seen, scope):
    generator = torch.Generator().manual_seed(1)
    weights = dict(seen.weights_of(scope))
    if scope == "text_encoder":
        weights = trained_weights(weights)
    deltas = {name: 0.01 * torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    expected = output(seen.with_weights({name: weight + deltas[name] for name, weight in weights.items()}))
    patched = apply_erasure(toy[0], toy[1], made({name: Dense(delta) for name, delta in deltas.items()}))
    with trainable(*patched) as changed:
        torch.testing.assert_close(output(changed), expected, rtol=0, atol=1e-4)
    assert not torch.allclose(output(seen), expected, atol=1e-3)


@pytest.mark.parametrize("scope", SCOPES)
def test_gradients_reach_the_stand_ins(seen, scope):
    """Against a difference of two runs along a random direction, in the first layer of several."""
    name, weight = next((n, w) for n, w in seen.weights_of(scope).items() if "attn" in n and w.ndim == 2)
    leaf = weight.clone().requires_grad_()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    with torch.enable_grad():
        output(seen.with_weights({name: leaf})).square().sum().backward()
    with torch.no_grad():
        high, low = (output(seen.with_weights({name: weight + d * direction})).square().sum() for d in (1e-2, -1e-2))
    assert float((leaf.grad * direction).sum()) == pytest.approx(float((high - low) / 2e-2), rel=2e-2, abs=2e-3)


def test_clip_skip_is_seen(toy):
    skipped = toy[1].clone()
    skipped.clip_layer(-2)
    contexts = []
    for clip in (toy[1], skipped):
        with trainable(toy[0], clip) as model:
            frozen = model.encode_prompts(["a cat"]).context
            trained = model.with_weights(model.weights_of("text_encoder")).encode_prompts(["a cat"]).context
        torch.testing.assert_close(trained, frozen, rtol=0, atol=1e-4)
        contexts.append(frozen)
    assert not torch.allclose(*contexts, atol=1e-2)


@pytest.mark.parametrize("name", RUNS)
def test_each_method_learns_the_same_from_the_same_seed(toy, name):
    made_twice = []
    for seed in (3, 3, 4):
        with trainable(*toy) as model:
            made_twice.append(RUNS[name](model, seed=seed))
    assert same(*made_twice[:2]) and not same(*made_twice[1:])
    assert all(delta.dense().any() for delta in made_twice[0].deltas.values())
    model, clip = apply_erasure(toy[0], toy[1], made_twice[0])
    assert not torch.equal(output(TrainableComfyModel(model, clip)), untouched(toy))


def untouched(toy):
    return output(TrainableComfyModel(*toy[:2]))


@pytest.mark.parametrize("name", ["few_shot", "doco"])
def test_it_learns_what_it_learns_elsewhere(seen, reference, name):
    ours, theirs = RUNS[name](seen), RUNS[name](reference)
    assert ours.origins[0].losses == pytest.approx(theirs.origins[0].losses, rel=1e-2)
    assert ours.origins[0].fingerprint == theirs.origins[0].fingerprint
    assert set(ours.deltas) == set(theirs.deltas)


@pytest.mark.parametrize("name", RUNS)
def test_upstream_patches_are_seen(toy, name):
    generator = torch.Generator().manual_seed(1)
    up, down = torch.randn(96, 3, generator=generator), torch.randn(3, 192, generator=generator)
    lora = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": up,
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": down,
        "lora_te_text_model_encoder_layers_0_mlp_fc1.diff": torch.randn(384, 192, generator=generator),
    }
    patched = comfy.sd.load_lora_for_models(toy[0], toy[1], lora, 1.0, 1.0)
    with trainable(*patched, toy[2]) as model:
        weights = model.weights_of("unet")[KEY], model.weights_of("text_encoder")[TEXT]
        on_top = RUNS[name](model)
    with trainable(*toy) as model:
        torch.testing.assert_close(weights[0], model.weights_of("unet")[KEY] + up @ down)
        torch.testing.assert_close(
            weights[1], model.weights_of("text_encoder")[TEXT] + list(lora.values())[2], rtol=0, atol=1e-5
        )
        plain = RUNS[name](model)
    assert on_top.origins[0].losses != plain.origins[0].losses


@pytest.mark.parametrize("name", RUNS)
def test_a_cancel_ends_within_a_step(toy, name):
    calls = []

    def cancel(done, total, what):
        if "loss" in what:
            calls.append(done)
            comfy.model_management.interrupt_current_processing(True)
        comfy.model_management.throw_exception_if_processing_interrupted()

    with pytest.raises(comfy.model_management.InterruptProcessingException), trainable(*toy) as model:
        RUNS[name](model, callback=cancel)
    assert calls == [1]


def test_a_loss_that_is_not_a_number(toy):
    broken = toy[0].clone()
    broken.add_patches({unet_keys(broken)[KEY]: ("diff", (torch.full((96, 192), math.nan),))})
    with trainable(broken, *toy[1:]) as model, pytest.raises(TrainingError, match="nothing was changed"):
        RUNS["few_shot"](model)


def test_it_learns_low_rank(toy):
    with trainable(*toy) as model:
        erasure = RUNS["abo"](model, rank=2)
    assert all(isinstance(delta, LowRank) and delta.rank == 2 for delta in erasure.deltas.values())


@pytest.mark.parametrize("name", ["doco", "abo"])
def test_gradient_checkpointing_learns_the_same(toy, name):
    results = []
    for option in (False, True):
        with trainable(*toy) as model:
            results.append(RUNS[name](model, gradient_checkpointing=option))
    plain, spared = (result.origins[0].losses for result in results)
    assert spared == pytest.approx(plain, rel=1e-3)
    assert all(delta.dense().any() for delta in results[1].deltas.values())


@pytest.mark.parametrize("scope", ["unet", "text_encoder"])
def test_patched_is_what_the_patches_do(toy, seen, scope):
    """For the length of the block; a shape that does not fit is refused and nothing is changed."""
    name = KEY if scope == "unet" else TEXT
    delta = 0.05 * torch.randn(seen.weights_of(scope)[name].shape, generator=torch.Generator().manual_seed(1))
    before = output(seen)
    with seen.patched({name: delta}):
        changed = output(seen)
    assert torch.equal(output(seen), before)
    with trainable(*apply_erasure(toy[0], toy[1], made({name: Dense(delta)}))) as patched:
        torch.testing.assert_close(changed, output(patched), rtol=0, atol=1e-4)
    assert not torch.allclose(changed, before, atol=1e-3)
    with pytest.raises(ValueError, match="it was made for another model"), seen.patched({name: delta[:1]}):
        pass
    assert torch.equal(output(seen), before)


def test_purify_is_what_it_is_elsewhere(seen, reference):
    erasure = rece(reference, "cat -> dog", ReceSettings(amplification=1.4))
    ours, theirs = (purify(model, erasure, PICTURES, prompt="a cat", steps=4) for model in (seen, reference))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-2)
    nothing = purify(seen, erasure.scaled(0), PICTURES, prompt="a cat", steps=20)
    through = reference.decode_latents(reference.encode_images(PICTURES))
    assert (nothing - through).abs().mean() < 0.02 < (ours - through).abs().mean()


@pytest.mark.parametrize("name", ["few_shot", "abo"])
@pytest.mark.parametrize("rank", [None, 2])
def test_the_stock_lora_loader_takes_the_file(toy, tmp_path, caplog, name, rank):
    """The same context and prediction as with the erasure applied directly, and nothing is reported as not loaded."""
    with trainable(*toy) as model:
        erasure = RUNS[name](model, rank=rank)
    tensors = comfy.utils.load_torch_file(str(erasure.save(tmp_path / "a.safetensors")))
    stock = comfy.sd.load_lora_for_models(toy[0], toy[1], tensors, 1.0, 1.0)
    assert "not loaded" not in caplog.text
    direct = apply_erasure(toy[0], toy[1], erasure)
    ours, theirs = (output(TrainableComfyModel(*pair)) for pair in (direct, stock))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert not torch.equal(theirs, untouched(toy))


def test_the_stock_lora_loader_passes_over_maps_in_a_tensor(toy, reference, tmp_path, caplog, monkeypatch):
    """Those that no header can hold cost one line in the log; all changes are there."""
    monkeypatch.setattr(erasure_file, "MOST_IN_HEADER", 0)
    erasure = rece(reference, "cat -> dog")
    tensors = comfy.utils.load_torch_file(str(erasure.save(tmp_path / "a.safetensors")))
    stock = comfy.sd.load_lora_for_models(toy[0], toy[1], tensors, 1.0, 1.0)
    told = [message for message in caplog.messages if "not loaded" in message]
    assert told == [f"lora key not loaded: {MAPS}"]
    direct = apply_erasure(toy[0], toy[1], erasure)
    ours, theirs = (output(TrainableComfyModel(*pair)) for pair in (direct, stock))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_the_memory_is_let_go(toy):
    with trainable(*toy) as model:
        output(model)
        assert model._own
    assert not model._own


def test_images_without_a_vae(toy):
    with trainable(*toy[:2]) as model, pytest.raises(ValueError, match="VAE is missing"):
        RUNS["few_shot"](model)


def test_models_that_cannot_be_trained(toy):
    model, clip, _ = toy
    inpainting = _model()
    inpainting.model.model_config.unet_config = inpainting.model.model_config.unet_config | {"in_channels": 33}
    odd = TrainableComfyModel(inpainting, clip)
    with pytest.raises(UnsupportedModelError, match="reads 17 channels beside latents, and what they hold is unknown"):
        odd.predict_noise(torch.zeros(1, 16, 8, 8), torch.tensor([1]), odd.encode_prompts([""]))
    clean = model.clone()

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.X0):
        pass

    clean.add_object_patch("model_sampling", Sampling(model.model.model_config))
    with pytest.raises(UnsupportedModelError, match="neither noise nor velocity"):
        TrainableComfyModel(clean, clip)
