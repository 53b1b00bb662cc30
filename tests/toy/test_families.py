"""SDXL, its refiner, inpainting and instruct models: small pipelines of random weights, and the pipeline's own word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pure.fakes import digest
from toy import tiny

from erasure_core import Erasure, UnsupportedModelError, from_diffusers, rece, uce
from erasure_core.audit.attacks.attempt import Scene
from erasure_core.audit.attacks.derived_context import by_derived_context
from erasure_core.audit.attacks.discrete_prompt import SLOTS, Words, by_discrete_prompt
from erasure_core.audit.attacks.noised_images import by_noised_pictures
from erasure_core.audit.attacks.textual_inversion import by_inversion
from erasure_core.audit.compare import compare
from erasure_core.audit.recognisers.toy import ToyRecogniser
from erasure_core.audit.report import report
from erasure_core.methods.abo import AbOSettings, abo
from erasure_core.methods.doco import DoCoSettings, doco
from erasure_core.methods.few_shot import FewShotSettings, few_shot
from erasure_core.methods.rece import ReceSettings
from erasure_core.methods.uce import UceSettings
from erasure_core.model import CONTEXT, POOLED, DiffusionModel, token_embeddings
from erasure_core.sampling.ddim import generate, initial_latents
from erasure_core.sampling.purify import purify
from erasure_core.training.loop import Budget

PROMPTS = ["a cat", "", "a painting of a dog in a hat!"]


@pytest.fixture(scope="module")
def sdxl():
    return from_diffusers(tiny.sdxl())


@pytest.fixture(scope="module")
def no_cat(sdxl) -> Erasure:
    return rece(sdxl, "cat -> dog", ReceSettings(loops=2), preserve=["a house"])


@pytest.fixture(autouse=True)
def untouched(sdxl):
    before = bits(sdxl.pipe)
    yield
    assert bits(sdxl.pipe) == before


def bits(pipe) -> str:
    """A hash of every weight of a pipeline."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return digest({f"{part}.{name}": w for part, module in modules.items() for name, w in module.state_dict().items()})


Tensors = torch.Tensor | tuple[torch.Tensor, ...]


def encoded(pipe, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    context, _, pooled, _ = pipe.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    return context, pooled


def close(mine: Tensors, theirs: Tensors, off: float = 1e-4) -> None:
    torch.testing.assert_close(mine, theirs, rtol=0, atol=off)


@pytest.mark.parametrize("family", [tiny.sdxl, tiny.refiner])
def test_the_context_is_the_pipelines_own(family: Callable) -> None:
    model = from_diffusers(family())
    assert isinstance(model, DiffusionModel)
    found = model.encode_prompts(PROMPTS)
    context, pooled = encoded(model.pipe, PROMPTS)
    assert found.context.shape == (3, 77, model.context_dim) and found.pooled.shape == (3, tiny.POOLED)
    assert [rows[CONTEXT][0].last_content for rows in model.text_rows(PROMPTS)] == [2, 0, 9]
    close(found.context, context, 2e-5)
    close(found.pooled, pooled, 2e-5)
    ids = torch.tensor([model.tokenize(prompt) for prompt in PROMPTS])
    close(model.encode_tokens(ids).tensors, found.tensors, 1e-6)


def test_each_encoder_has_its_own_padding(sdxl) -> None:
    """The rows behind end-of-text would be others if both padded as the first does."""
    context = sdxl.encode_prompts(["a cat"]).context[0, -1]
    sdxl.pipe.tokenizer_2.pad_token = sdxl.pipe.tokenizer.pad_token
    try:
        other = sdxl.encode_prompts(["a cat"]).context[0, -1]
    finally:
        sdxl.pipe.tokenizer_2.pad_token = "!"
    width = tiny.TEXT["width"]
    assert torch.allclose(context[:width], other[:width]) and not torch.allclose(context[width:], other[width:])


def test_rows_are_read_by_two_entries(sdxl) -> None:
    (rows, *_), encoded = sdxl.text_rows(PROMPTS), sdxl.encode_prompts(PROMPTS[:1])
    assert [part.last_content for part in (*rows[CONTEXT], *rows[POOLED])] == [2, 0]
    close(rows[CONTEXT][0].rows, encoded.context[0], 1e-6)
    close(rows[POOLED][0].rows, encoded.pooled, 1e-5)


def test_a_textual_inversion_of_several_tokens_is_written_out() -> None:
    pipe = tiny.sdxl()
    for encoder, tokenizer, width in (
        (pipe.text_encoder, pipe.tokenizer, 16), (pipe.text_encoder_2, pipe.tokenizer_2, 24),
    ):  # fmt: skip
        pipe.load_textual_inversion(torch.randn(3, width), token="<thing>", text_encoder=encoder, tokenizer=tokenizer)
    model = from_diffusers(pipe)
    found = model.encode_prompts(["a <thing>"])
    assert model.text_rows(["a <thing>"])[0][CONTEXT][0].last_content == 4
    close(found.context, encoded(pipe, ["a <thing>"])[0], 2e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sdxl_samples_as_its_pipeline_does(sdxl, guidance: float) -> None:
    prompts, seeds = ["a cat", "a dog in a hat"], [1, 2]
    mine = generate(sdxl, prompts, seeds, steps=4, guidance=guidance)
    theirs = sdxl.pipe(
        prompts, negative_prompt=["", ""], num_inference_steps=4, guidance_scale=guidance,
        latents=initial_latents(sdxl, seeds), output_type="pt",
    ).images  # fmt: skip
    close(mine, theirs)


@pytest.mark.parametrize("family", [tiny.stable_diffusion, tiny.sdxl])
def test_inpainting_samples_as_its_pipeline_does_on_a_masked_picture(family: Callable) -> None:
    model = from_diffusers(family("inpainting"))
    assert model.latent_shape() == (4, 8, 8)
    picture = torch.rand(1, 3, 64, 64)
    theirs = model.pipe(
        ["a cat"], negative_prompt=[""], image=picture, mask_image=torch.ones(1, 1, 64, 64), strength=1.0,
        masked_image_latents=model.encode_images(torch.full_like(picture, 0.5)), num_inference_steps=4,
        guidance_scale=3.0, latents=initial_latents(model, [1]), output_type="pt",
    ).images  # fmt: skip
    close(generate(model, ["a cat"], [1], steps=4, guidance=3.0), theirs)


def test_the_masked_picture_is_the_pipelines_own() -> None:
    """It is drawn from the autoencoder's distribution there; here it is its middle."""
    model = from_diffusers(tiny.stable_diffusion("inpainting"))
    seen = []
    handle = model.pipe.unet.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    picture, mask = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    with torch.no_grad():
        model.pipe("a cat", image=picture, mask_image=mask, num_inference_steps=1, guidance_scale=1.0, output_type="pt")
        generate(model, ["a cat"], [1], steps=1, guidance=1.0)
        spread = model.pipe.vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.std * model.pipe.vae.config.scaling_factor
    handle.remove()
    theirs, mine = seen
    assert torch.equal(theirs[:, 4:5], mine[:, 4:5]) and bool((mine[:, 4:5] == 1).all())
    assert ((theirs[:, 5:] - mine[:, 5:]).abs() < 6 * spread).all()


def test_instructions_sample_as_their_pipeline_does_without_a_picture() -> None:
    model = from_diffusers(tiny.stable_diffusion("instruct"))
    theirs = model.pipe(
        ["a cat"], negative_prompt=[""], image=torch.zeros(1, 4, 8, 8), num_inference_steps=4, guidance_scale=3.0,
        image_guidance_scale=1.0, latents=initial_latents(model, [1]), output_type="pt",
    ).images  # fmt: skip
    close(generate(model, ["a cat"], [1], steps=4, guidance=3.0), theirs)


def test_the_refiner_is_told_what_its_pipeline_tells_it() -> None:
    model = from_diffusers(tiny.refiner())
    told = []
    handle = model.pipe.unet.register_forward_pre_hook(
        lambda _, given, named: told.append(named["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    model.pipe("a cat", image=torch.rand(1, 3, 64, 64), num_inference_steps=4, strength=0.5, guidance_scale=3.0)
    generate(model, ["a cat"], [1], steps=1, guidance=1.0)
    handle.remove()
    assert torch.equal(told[-1], told[0][1:]), "the second of the pipeline's halves is that of the prompt"


def test_both_entries_are_edited_by_one_map_each(sdxl, no_cat: Erasure) -> None:
    assert set(no_cat.maps) == {CONTEXT, POOLED}
    edited = no_cat.over(sdxl).text_entries()
    for name, entry in sdxl.text_entries().items():
        change = no_cat.maps[name].change.dense()
        assert len(change) == {CONTEXT: 40, POOLED: tiny.POOLED}[name] and change.abs().max() > 1e-3
        for weight in entry.weights:
            before, after = entry.weights[weight], edited[name].weights[weight]
            expected = before.clone()
            entry.part(expected).add_(entry.part(before) @ change)
            close(after, expected, 1e-5)
    before = sdxl.text_entries()[POOLED].weights
    (layer,) = before
    assert torch.equal(before[layer][:, tiny.POOLED :], edited[POOLED].weights[layer][:, tiny.POOLED :])


def test_uce_brings_the_concept_to_its_target(sdxl) -> None:
    """With no ridge to speak of, what the layers make of the pooled vector of the one is what it was of the other."""
    erasure = uce(sdxl, "cat -> dog", UceSettings(ridge=1e-6, preserve_scale=1e-6))
    cat, dog = (rows[POOLED][0].rows for rows in sdxl.text_rows(["cat", "dog"]))
    before, after = (model.text_entries()[POOLED] for model in (sdxl, erasure.over(sdxl)))
    (old,), (new,) = (list(map(entry.part, entry.weights.values())) for entry in (before, after))
    assert (cat @ new.T - dog @ old.T).norm() < 1e-3 * (cat @ old.T - dog @ old.T).norm()


def test_the_file_carries_both_maps_to_another_model(sdxl, no_cat: Erasure, tmp_path) -> None:
    back = Erasure.load(no_cat.save(tmp_path / "no-cat.safetensors"))
    other = from_diffusers(tiny.sdxl("inpainting"))
    rebased = back.rebased_on(other)
    assert set(rebased.deltas) == set(no_cat.deltas) and set(rebased.maps) == {CONTEXT, POOLED}
    again = rebased.rebased_on(sdxl)
    for name, delta in no_cat.deltas.items():
        close(back.deltas[name].dense(), delta.dense(), 1e-6)
        close(again.deltas[name].dense(), delta.dense(), 1e-5)


def test_an_erasure_does_what_its_view_does(sdxl, no_cat: Erasure) -> None:
    before = generate(sdxl, ["a cat"], [1], steps=2)
    seen = generate(no_cat.over(sdxl), ["a cat"], [1], steps=2)
    with no_cat.applied_to(sdxl):
        close(generate(sdxl, ["a cat"], [1], steps=2), seen)
    assert (seen - before).abs().max() > 1e-3


def test_a_change_of_the_second_encoder_is_in_the_view(sdxl) -> None:
    erasure = few_shot(sdxl, "cat", FewShotSettings(steps=1, learning_rate=1e-2), images=None, towers="text_encoder_2")
    context = erasure.over(sdxl).encode_prompts(["a cat"]).context
    with erasure.applied_to(sdxl):
        close(sdxl.encode_prompts(["a cat"]).context, context, 1e-5)
    changed = (context - sdxl.encode_prompts(["a cat"]).context).abs().amax((0, 1))
    assert not changed[: tiny.TEXT["width"]].any() and changed[tiny.TEXT["width"] :].max() > 1e-3


def learned(model, run: str, **more) -> Erasure:
    if run == "few_shot":
        return few_shot(
            model, "cat", FewShotSettings(steps=2, learning_rate=1e-3), images=torch.rand(2, 3, 64, 64), **more
        )
    if run == "doco":
        return doco(
            model, "cat -> dog", DoCoSettings(steps=2, batch_size=2, learning_rate=1e-3, warm_up=0.0), anchors=2, **more
        )
    return abo(
        model,
        "cat -> dog",
        AbOSettings(steps=2, trajectories=2, sampling_steps=2, batch_size=2, learning_rate=1e-3),
        **more,
    )


@pytest.mark.parametrize("run", ["few_shot", "doco", "abo"])
@pytest.mark.parametrize("family", ["sdxl", "inpainting"])
def test_each_method_learns_from_a_seed_and_leaves_the_pipeline(sdxl, run: str, family: str) -> None:
    model = sdxl if family == "sdxl" else from_diffusers(tiny.stable_diffusion("inpainting"))
    before = bits(model.pipe)
    torch.manual_seed(0)
    one = learned(model, run, seed=3)
    torch.manual_seed(0)
    again = learned(model, run, seed=3)
    assert bits(model.pipe) == before
    assert one.origins[0].losses == again.origins[0].losses
    assert set(one.deltas) == set(again.deltas)
    for name, delta in one.deltas.items():
        assert torch.equal(delta.dense(), again.deltas[name].dense()) and bool(delta.dense().any()), name
    if run != "few_shot":
        assert set(one.deltas) == set(model.weights_of("cross-attention"))


def test_the_pooled_layer_is_trained_with_the_attention(sdxl) -> None:
    assert "unet.add_embedding.linear_1.weight" in learned(sdxl, "abo").deltas


@pytest.mark.parametrize("towers", ["both", "text_encoder", "text_encoder_2"])
def test_few_shot_trains_the_layers_that_sdxl_reads(sdxl, towers: str) -> None:
    """The first encoder's last layer gives nothing, the second's the pooled vector."""
    erasure = few_shot(sdxl, "cat", FewShotSettings(steps=1, learning_rate=1e-3), images=None, towers=towers)
    found = {name.rpartition(".")[0].partition(".text_model.encoder.layers.")[::2] for name in erasure.deltas}
    read = {"text_encoder": 2, "text_encoder_2": 4}
    attention = ("k_proj", "v_proj", "q_proj", "out_proj")
    assert found == {
        (part, f"{layer}.{leaf}")
        for part, layers in read.items()
        if towers in ("both", part)
        for layer in range(layers)
        for leaf in ("mlp.fc1", "mlp.fc2", *(f"self_attn.{one}" for one in attention if layer == layers - 1))
    }
    assert erasure.origins[0].settings["towers"] == towers


def test_a_tower_that_is_not_there() -> None:
    model = from_diffusers(tiny.stable_diffusion("inpainting"))
    with pytest.raises(ValueError, match="towers is 'text_encoder_2' but the model has text_encoder; 'both' trains"):
        few_shot(model, "cat", FewShotSettings(steps=1), images=None, towers="text_encoder_2")
    with pytest.raises(ValueError, match="towers must be one of both, text_encoder, text_encoder_2, got 'g'"):
        few_shot(model, "cat", FewShotSettings(steps=1), images=None, towers="g")


def test_training_in_bfloat16() -> None:
    pipe = tiny.sdxl().to(torch.bfloat16)
    for run in ("few_shot", "abo"):
        found = learned(from_diffusers(pipe), run)
        assert all(torch.isfinite(delta.dense()).all() for delta in found.deltas.values())
        assert any(bool(delta.dense().any()) for delta in found.deltas.values())


def test_loras_on_either_encoder_are_seen_and_not_trained_through(sdxl) -> None:
    peft = pytest.importorskip("peft")
    pipe = tiny.sdxl()
    plain = sdxl.encode_prompts(["a cat"]).context
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.inject_adapter_in_model(lora, pipe.text_encoder_2)
    model = from_diffusers(pipe)
    context = model.encode_prompts(["a cat"]).context
    close(context[0, :77], encoded(pipe, ["a cat"])[0][0], 2e-5)
    assert not torch.allclose(context, plain)
    with pytest.raises(UnsupportedModelError, match="the text_encoder_2 has LoRAs on it"):
        model.weights_of("text_encoder")


def test_half_precision_does_not_overflow_in_the_autoencoder() -> None:
    """As the pipeline does it, SDXL's autoencoder runs in float32 when the rest is float16; it stays what it was."""
    model = from_diffusers(tiny.sdxl())
    vae, latents = model.pipe.vae, torch.randn(1, 4, 8, 8)
    vae.register_to_config(force_upcast=True)
    with torch.no_grad():
        vae.decoder.conv_in.weight.fill_(1e4)
        vae.half()
        expected = model.decode_latents(latents)
        assert not torch.isfinite(vae.decode(latents.half()).sample).any()
        vae.float()
        close(model.decode_latents(latents), expected, 1e-3)
        vae.half()
    assert model.encode_images(torch.rand(1, 3, 64, 64)).dtype == torch.float32 and vae.dtype == torch.float16


def test_what_is_no_family_is_refused_in_a_sentence() -> None:
    pipe = tiny.stable_diffusion("instruct")
    pipe.unet.register_to_config(in_channels=7)
    with pytest.raises(UnsupportedModelError, match=r"reads 7 channels where a latent has 4; .*inpainting \(9\)"):
        from_diffusers(pipe)
    pipe = tiny.stable_diffusion("instruct")
    pipe.unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(UnsupportedModelError, match="has text_encoder but its UNet's addition_embed_type is text_time"):
        from_diffusers(pipe)
    pipe = tiny.sdxl()
    del pipe.scheduler.alphas_cumprod
    with pytest.raises(UnsupportedModelError, match="the DDIMScheduler of StableDiffusionXLPipeline has no alphas"):
        from_diffusers(pipe)


@pytest.fixture
def scene(sdxl, no_cat: Erasure) -> Scene:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    return Scene(sdxl, no_cat.over(sdxl), "cat", "object", images, pictures=2, sampling_steps=2, budget=Budget(4))


def test_the_pooled_vector_is_derived_through_its_own_layers(scene: Scene) -> None:
    found = by_derived_context(scene)
    prompt, *_ = [one.split("'")[1] for one in found.prompts]
    edited, original = (model.text_entries()[POOLED] for model in (scene.edited, scene.original))
    (new,), (old,) = ([e.part(w).double() for w in e.weights.values()] for e in (edited, original))
    plain = scene.original.encode_prompts([prompt]).pooled[0].double()

    def missed(row: torch.Tensor) -> float:
        return float((new @ row - old @ plain).norm())

    assert missed(found.conditioning.pooled[0].double()) < 0.01 * missed(plain)


def test_inversion_learns_a_word_in_both_encoders(scene: Scene) -> None:
    found = by_inversion(scene)
    plain = scene.edited.encode_prompts(list(found.prompts)).context
    changed = (found.conditioning.context - plain).abs().amax((0, 1))
    assert changed[: tiny.TEXT["width"]].max() > 1e-4 and changed[tiny.TEXT["width"] :].max() > 1e-4
    assert len(found.losses) == 4


def test_discrete_prompts_are_scored_in_both_encoders(scene: Scene) -> None:
    words = Words(scene.edited, "a cat", scene.generator())
    tables = token_embeddings(scene.edited)
    assert len(tables) == 2
    embedded = words._embedded({name: table[words._ids] for name, table in tables.items()})
    close(embedded.tensors, scene.edited.encode_prompts([words.text()]).tensors, 1e-5)
    found = by_discrete_prompt(scene)
    assert len(found.losses) == 1 and len(scene.edited.tokenize(found.prompts[0])) == 77 and SLOTS == 5


def test_words_are_found_where_an_ordinary_token_pads() -> None:
    """As in SD 2.x: "!", whose id is 0, is both."""
    pipe = tiny.stable_diffusion("inpainting")
    pipe.tokenizer.pad_token = "!"
    model = from_diffusers(pipe)
    words = Words(model, "a cat", torch.Generator().manual_seed(0))
    wanted = model.encode_prompts(["a red cat"]).context
    before = words.text()
    losses = [float(words.improve(lambda text: (text.context - wanted).square().mean()).detach()) for _ in range(2)]
    assert losses[1] < losses[0] and words.text() != before and "!" not in words.text()


def test_pictures_are_completed_and_purified(scene: Scene, no_cat: Erasure) -> None:
    assert by_noised_pictures(replace(scene, sampling_steps=4)).images.shape == (2, 3, 64, 64)
    found = purify(scene.original, no_cat, scene.images, prompt="a cat", steps=3)
    assert found.shape == scene.images.shape and bool(torch.isfinite(found).all())


def test_models_are_compared(sdxl, no_cat: Erasure) -> None:
    picture = compare(sdxl, {"no cat": no_cat}, ["a cat"], steps=1, difference=True)
    assert picture.width > 3 * 64 and picture.height > 64


def test_a_report_is_made(sdxl, no_cat: Erasure) -> None:
    found = report(sdxl, no_cat, "cat", recogniser=ToyRecogniser(), among=("dog", "house"), count=1, seeds=[0], steps=1)
    assert "cat" in found.verdict()
