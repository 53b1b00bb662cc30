"""The embedded model is the same in ComfyUI's classes as in diffusers' and transformers'."""

from types import SimpleNamespace

import comfy.sample
import pytest
import torch
from pack.erasure_core import rece
from pack.erasure_core.model import CONTEXT, DiffusionModel
from pack.erasure_core.toy import load_toy
from pack.nodes.comfy_host import toy as toy_module
from pack.nodes.comfy_host.sampling import Sampling, _conditioning, draw
from pack.nodes.comfy_host.traced_model import TracedText
from pack.nodes.comfy_host.trainable_model import TrainableComfyModel

PROMPTS = ["a cat in the style of noto on a blue background", "", " ", "van gogh", "(cat:1.4)", "dog\\)"]


@pytest.fixture(scope="module")
def toy():
    return toy_module.load_toy()


@pytest.fixture(scope="module")
def seen(toy):
    return TrainableComfyModel(toy[0], toy[1])


@pytest.fixture(scope="module")
def reference():
    return load_toy()


def close(one, other, atol=1e-4):
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


def test_contexts(seen, reference):
    prompts = PROMPTS[:-1]
    ours, theirs = seen.encode_prompts(prompts), reference.encode_prompts(prompts)
    close(ours.context, theirs.context)
    read = [[rows[CONTEXT][0].last_content for rows in one.text_rows(prompts)] for one in (seen, reference)]
    assert read[0] == read[1]
    assert seen.tokens == reference.tokens


@pytest.mark.parametrize(
    "prompt", ["(cat:1.4)", "a ((dog)) in (rain", "lain \\(anime\\)", "a cat", "", "[cat] {dog|lion}", "\\"]
)
def test_one_prompt_is_read_alike(toy, seen, prompt):
    """By RECE, by what draws for reports and comparisons, by the judge, and by diffusion transformers' reader."""
    ours, plain = seen.encode_prompts([prompt, prompt.replace("\\(", "(").replace("\\)", ")")]).context
    close(ours, plain, atol=0)
    ((drawn, _),) = _conditioning(toy[1], prompt)
    close(ours[None], drawn)
    (rows,) = TracedText(*toy[:2]).text_rows([prompt])
    close(ours, next(iter(rows.values()))[0].rows)


def test_many_prompts_at_once_are_encoded_as_each_alone(seen):
    prompts = [f"{count} cats" for count in range(40)]
    alone = [seen.encode_prompts([prompt]).context for prompt in prompts]
    close(seen.encode_prompts(prompts).context, torch.cat(alone), atol=1e-5)


def test_unet_and_schedule(toy, seen, reference):
    latents, times = torch.randn(2, 16, 8, 8), torch.tensor([10, 700])
    text = reference.encode_prompts(PROMPTS[:2])
    close(
        toy[0].model.diffusion_model(latents, times, context=text.context),
        reference.predict_noise(latents, times, text).detach(),
    )
    close(seen.alphas_cumprod, reference.alphas_cumprod)
    assert isinstance(seen, DiffusionModel)
    assert seen.prediction_type == reference.prediction_type == "v_prediction"


def test_vae(toy, reference):
    latents, pictures = torch.randn(2, 16, 8, 8), torch.rand(2, 3, 64, 64)
    close(toy[2].decode(latents).movedim(-1, 1), reference.decode_latents(latents))
    close(toy[2].encode(pictures.movedim(1, -1)), reference.encode_images(pictures))


def test_weights_and_names(seen, reference):
    ours, theirs = seen.text_entries()[CONTEXT].weights, reference.text_entries()[CONTEXT].weights
    assert set(ours) == set(theirs)
    for name in ours:
        assert torch.equal(ours[name], theirs[name])


def test_the_same_erasure(seen, reference):
    ours, theirs = (rece(model, "cat -> dog", preserve=["lion"]) for model in (seen, reference))
    assert ours.origins[0].fingerprint == theirs.origins[0].fingerprint
    for name, delta in ours.deltas.items():
        close(delta.dense(), theirs.deltas[name].dense())


def test_weights_can_be_trained_after_loading_in_inference_mode():
    with torch.inference_mode():
        model, clip, vae = toy_module.load_toy()
    for module in (model.model, clip.cond_stage_model, vae.first_stage_model):
        assert not any(parameter.is_inference() for parameter in module.parameters())


def test_latents_of_another_size_are_refused(toy):
    """The model would draw noise, with nothing that says why."""
    sampling = Sampling(seed=1, steps=1, cfg=3.0, sampler_name="euler", scheduler="normal")
    with pytest.raises(ValueError, match=r"draws 64 x 64 pixels and nothing else, got 512 x 256; connect"):
        draw(*toy, "a cat", "", {"samples": torch.zeros(1, 4, 32, 64)}, sampling)
    (picture,) = draw(*toy, "a cat", "", toy_module.empty_latent(), sampling)
    assert picture.shape == (3, 64, 64)


def test_frames_of_a_video_are_pictures(toy):
    """As "VAE Decode" gives them; Qwen-Image and Wan have such VAEs."""
    model, clip, vae = toy
    video = SimpleNamespace(decode=lambda latents: vae.decode(latents)[:, None].repeat(1, 3, 1, 1, 1))
    sampling = Sampling(seed=1, steps=1, cfg=3.0, sampler_name="euler", scheduler="normal")
    frames = draw(model, clip, video, "a cat", "", toy_module.empty_latent(), sampling)
    (picture,) = draw(*toy, "a cat", "", toy_module.empty_latent(), sampling)
    assert frames.shape == (3, 3, 64, 64) and all(torch.equal(frame, picture) for frame in frames)


def test_latents_are_fitted_as_by_ksampler(toy, monkeypatch):
    """Newer hosts read the ratio of the latent's size to the picture's from the LATENT."""
    fit, given = comfy.sample.fix_empty_latent_channels, {}

    def noted(model, latent_image, downscale_ratio_spacial=None, downscale_ratio_temporal=None):
        given.update(spacial=downscale_ratio_spacial, temporal=downscale_ratio_temporal)
        return fit(model, latent_image)

    monkeypatch.setattr(comfy.sample, "fix_empty_latent_channels", noted)
    sampling = Sampling(seed=1, steps=1, cfg=3.0, sampler_name="euler", scheduler="normal")
    draw(*toy, "a cat", "", toy_module.empty_latent() | {"downscale_ratio_spacial": 8}, sampling)
    assert given == {"spacial": 8, "temporal": None}


def test_pictures_of_another_size_are_refused_by_what_trains_and_purifies(seen):
    with pytest.raises(ValueError, match="draws 64 x 64 pixels and nothing else, got 128 x 64"):
        seen.predict_noise(torch.zeros(1, 16, 8, 16), torch.tensor([10]), seen.encode_prompts(["a cat"]))
