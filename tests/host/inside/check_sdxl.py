"""SDXL: two text encoders, and a pooled vector that has a map of its own."""

import hashlib

import comfy.lora
import comfy.sd
import pytest
import small_sdxl
import torch
from pack.erasure_core import Erasure, rece
from pack.erasure_core.concepts.parse import parse_concepts
from pack.erasure_core.methods.abo import AbOSettings, abo
from pack.erasure_core.methods.doco import DoCoSettings, doco
from pack.erasure_core.methods.few_shot import FewShotSettings, few_shot
from pack.erasure_core.methods.rece import ReceSettings
from pack.erasure_core.model import CONTEXT, POOLED, POOLED_LAYER
from pack.nodes.comfy_host.model import ComfyModel, text_weights
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.text_encoders import host_conditioning
from pack.nodes.comfy_host.trainable_model import trainable


@pytest.fixture(scope="module")
def loaded():
    with torch.inference_mode(False):
        return small_sdxl.model(), small_sdxl.clip()


def digest(*modules) -> str:
    found = hashlib.sha256()
    for module in modules:
        for weight in module.state_dict().values():
            found.update(weight.numpy().tobytes())
    return found.hexdigest()


def sampled(model, clip, prompt: str) -> torch.Tensor:
    """What the UNet puts out at a fixed noisy latent, by the host's own way to it."""
    cond, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    inner = model.model
    conds = inner.extra_conds(
        cross_attn=cond, pooled_output=pooled, noise=noise, latent_image=torch.zeros_like(noise), width=64, height=64,
        device=noise.device,
    )  # fmt: skip
    given = {name: one.process_cond(1, device=noise.device, area=None).cond for name, one in conds.items()}
    model.patch_model()
    try:
        return inner.apply_model(noise, torch.tensor([1.0]), **given)
    finally:
        model.unpatch_model()


@torch.inference_mode()
def test_context_and_pooled_vector_are_what_sampling_uses(loaded):
    model, clip = loaded
    seen = ComfyModel(model, clip)
    (rows,) = seen.text_rows(["a painting by van gogh"])
    cond, pooled = clip.encode_from_tokens(clip.tokenize("a painting by van gogh"), return_pooled=True)
    assert torch.equal(rows[CONTEXT][0].rows, cond[0]) and torch.equal(rows[POOLED][0].rows, pooled)
    assert rows[CONTEXT][0].last_content == 5 and rows[POOLED][0].last_content == 0
    ((context, options),) = host_conditioning(seen.text.encode(["a painting by van gogh"]).conditioning)
    assert torch.equal(context, cond) and torch.equal(options["pooled_output"], pooled)
    entries = seen.text_entries()
    assert entries[POOLED].columns == (0, 48) and len(entries[CONTEXT].weights) == 16


@torch.inference_mode()
def test_the_layers_that_are_skipped_are_counted_from_those_of_xl(loaded):
    model, clip = loaded[:2]
    for layer, skip in ((None, 0), (-2, 0), (-3, 1), (-1, -1)):
        one = clip.clone()
        if layer is not None:
            one.clip_layer(layer)
        assert ComfyModel(model, one).clip_skip == skip


def test_why_each_prompt_is_encoded_alone(loaded):
    """Of several windows the host returns only the first one's pooled vector, and it takes no window that was cut."""
    clip = loaded[1]
    cat, dog = (clip.tokenize(prompt) for prompt in ("a cat", "a small dog beside a house"))
    alone = [clip.encode_from_tokens(one, return_pooled=True) for one in (cat, dog)]
    context, pooled = clip.encode_from_tokens({name: cat[name] + dog[name] for name in cat}, return_pooled=True)
    torch.testing.assert_close(context, torch.cat([one for one, _ in alone], 1), rtol=0, atol=1e-5)
    assert pooled.shape == alone[0][1].shape and not torch.allclose(alone[0][1], alone[1][1], atol=1e-2)
    torch.testing.assert_close(pooled, alone[0][1], rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError, match="must match the size"):
        clip.encode_from_tokens({name: [rows[0][:8]] for name, rows in cat.items()})
    both = ComfyModel(*loaded).text_rows(["a cat", "a small dog beside a house"])
    for rows, (context, pooled) in zip(both, alone, strict=True):
        assert torch.equal(rows[CONTEXT][0].rows, context[0]) and torch.equal(rows[POOLED][0].rows, pooled)


@torch.inference_mode()
def test_an_erased_concept_reads_as_its_replacement(loaded):
    """With next to nothing that holds the weights, the layers get from the bare name what the replacement gives."""
    model, clip = loaded
    before = digest(model.model, clip.cond_stage_model)
    seen = ComfyModel(model, clip)
    edited, _ = apply_erasure(
        model, clip, rece(seen, "cat -> dog", ReceSettings(loops=0, ridge=1e-6, preserve_scale=1e-9))
    )
    assert digest(model.model, clip.cond_stage_model) == before
    cat, dog = seen.text_rows(["cat", "dog"])
    for name, entry in ComfyModel(edited, clip).text_entries().items():
        one, other = cat[name][0], dog[name][0]
        concept, target = (rows.rows[rows.last_content :] for rows in (one, other))
        for layer, weight in entry.weights.items():
            own = seen.text_entries()[name]
            wanted, shown = target @ own.part(own.weights[layer]).T, concept @ own.part(own.weights[layer]).T
            assert (concept @ entry.part(weight).T - wanted).norm() < 1e-2 * (shown - wanted).norm(), layer
    apart = sampled(edited, clip, "cat") - sampled(model, clip, "cat")
    assert apart.norm() > 0.01 and digest(model.model, clip.cond_stage_model) == before


@torch.inference_mode()
def test_the_columns_of_sizes_stay(loaded):
    model, clip = loaded
    erasure = rece(ComfyModel(model, clip), ["van gogh -> art", "monet"], ReceSettings(loops=2))
    change = erasure.deltas[POOLED_LAYER].dense()
    assert change[:, :48].any() and not change[:, 48:].any()
    edited, _ = apply_erasure(model, clip, erasure)
    own, new = (text_weights(one)[POOLED_LAYER] for one in (model, edited))
    torch.testing.assert_close(new, own + change, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_files_and_the_stock_loader(loaded, tmp_path, caplog):
    model, clip = loaded
    erasure = rece(ComfyModel(model, clip), "van gogh -> art", preserve=["", "monet"])
    direct = text_weights(apply_erasure(model, clip, erasure)[0])
    path = erasure.save(tmp_path / "sdxl.safetensors")
    back = Erasure.load(path)
    assert {name: one.columns for name, one in back.maps.items()} == {CONTEXT: None, POOLED: (0, 48)}
    assert torch.equal(back.maps[POOLED].change.up, erasure.maps[POOLED].change.up)
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    stock, _ = comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
    assert "not loaded" not in caplog.text
    for name, weight in text_weights(stock).items():
        assert torch.equal(weight, direct[name])
    again = back.rebased_on(ComfyModel(model, clip))
    for name, delta in again.deltas.items():
        torch.testing.assert_close(delta.dense(), erasure.deltas[name].dense(), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_changes_in_half_precision(loaded, tmp_path, monkeypatch, caplog):
    model, clip = loaded
    monkeypatch.setattr("pack.erasure_core.erasures.erasure.MOST_BYTES", 10_000)
    erasure = rece(ComfyModel(model, clip), "van gogh -> art")
    assert erasure.error > 0 and erasure.deltas[POOLED_LAYER].up.dtype == torch.float32
    assert {erasure.deltas[name].up.dtype for name in erasure.maps[CONTEXT].names} == {torch.float16}
    own, direct = (text_weights(one) for one in (model, apply_erasure(model, clip, erasure)[0]))
    tensors = comfy.utils.load_torch_file(str(erasure.save(tmp_path / "half.safetensors")), safe_load=True)
    stock = text_weights(comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)[0])
    assert "not loaded" not in caplog.text
    for name, delta in erasure.deltas.items():
        torch.testing.assert_close(direct[name], own[name] + delta.dense(), rtol=0, atol=1e-5)
        assert torch.equal(stock[name], direct[name])


@torch.inference_mode()
def test_an_erasure_before_is_seen(loaded):
    """Erasing again what is gone changes hardly anything."""
    model, clip = loaded
    settings = ReceSettings(loops=0, ridge=1e-6, preserve_scale=1e-9)
    first = rece(ComfyModel(model, clip), "cat -> dog", settings)
    edited, _ = apply_erasure(model, clip, first)
    second = rece(ComfyModel(edited, clip), "cat -> dog", settings)
    for name in (*list(first.maps[CONTEXT].names)[:2], POOLED_LAYER):
        assert text_weights(edited)[name].shape == first.deltas[name].dense().shape
    (rows,) = ComfyModel(model, clip).text_rows(["cat"])
    gone = [second.deltas[n].dense() @ rows[CONTEXT][0].rows.T for n in second.maps[CONTEXT].names]
    shown = [first.deltas[n].dense() @ rows[CONTEXT][0].rows.T for n in first.maps[CONTEXT].names]
    assert torch.stack([g.norm() for g in gone]).sum() < 3 * torch.stack([s.norm() for s in shown]).sum()


@pytest.mark.parametrize("channels", [4, 9])
def test_training_sees_what_sampling_sees(loaded, channels):
    """Inpainting models too: nine channels, of a picture that is all to be painted."""
    model, clip = loaded
    if channels != 4:
        with torch.inference_mode(False):
            model = small_sdxl.model(in_channels=channels)
    with trainable(model, clip) as seen:
        frozen = seen.encode_prompts(["a cat", "van gogh"])
        view = seen.with_weights(seen.weights_of("text_encoder"))
        ids = torch.tensor([seen.tokenize(prompt) for prompt in ("a cat", "van gogh")])
        for again in (view.encode_prompts(["a cat", "van gogh"]), seen.encode_tokens(ids)):
            torch.testing.assert_close(again.tensors, frozen.tensors, rtol=0, atol=1e-5)
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        sigma = torch.tensor([1.0])
        scaled = model.model.model_sampling.calculate_input(sigma, noise)
        timestep = model.model.model_sampling.timestep(sigma).long()
        with torch.no_grad():
            output = seen.predict_noise(scaled, timestep, frozen[:1])
        clean = model.model.model_sampling.calculate_denoised(sigma, output, noise)
    torch.testing.assert_close(clean, sampled(model, clip, "a cat"), rtol=1e-3, atol=1e-3)


def test_every_method_trains(loaded, monkeypatch):
    model, clip = loaded
    before = digest(model.model, clip.cond_stage_model)
    with trainable(model, clip) as seen:
        assert seen.latent_shape() == (4, 128, 128)
        monkeypatch.setattr(seen, "latent_shape", lambda: (4, 8, 8))
        towers = few_shot(seen, "cat", FewShotSettings(steps=2, batch_size=1, learning_rate=1e-3), images=None)
        anchors = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        adversarial = doco(
            seen,
            "cat -> dog",
            DoCoSettings(steps=2, warm_up=0, batch_size=2, learning_rate=1e-3),
            anchor_latents=anchors,
        )
        guided = abo(
            seen, "cat -> dog", AbOSettings(steps=2, trajectories=1, sampling_steps=1, batch_size=1, learning_rate=1e-3)
        )
    assert digest(model.model, clip.cond_stage_model) == before
    assert {name.partition(".")[0] for name in towers.deltas} == {"text_encoder", "text_encoder_2"}
    for erasure in (adversarial, guided):
        assert erasure.deltas[POOLED_LAYER].dense().any() and len(erasure.deltas) == 17
    edited_model, edited_clip = apply_erasure(model, clip, towers)
    context, pooled = edited_clip.encode_from_tokens(edited_clip.tokenize("cat"), return_pooled=True)
    plain, plain_pooled = clip.encode_from_tokens(clip.tokenize("cat"), return_pooled=True)
    assert not torch.allclose(context, plain) and not torch.allclose(pooled, plain_pooled)
    assert parse_concepts("cat") == list(towers.concepts)
