"""The embedded model: loads, encodes as Stable Diffusion does, samples as diffusers does, draws what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erasure_core import DiffusionModel, from_diffusers
from erasure_core.model import CONTEXT
from erasure_core.sampling.ddim import generate, initial_latents
from erasure_core.toy.captions import OBJECTS
from erasure_core.toy.config import WEIGHTS
from erasure_core.toy.evaluation import evaluate_model


def test_it_fits_the_protocol(toy) -> None:
    assert isinstance(toy, DiffusionModel)
    weights = toy.text_entries()[CONTEXT].weights
    assert len(weights) > 0 and all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in weights)
    assert {weight.shape[1] for weight in weights.values()} == {toy.context_dim}


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in Path(WEIGHTS).glob("*.safetensors")) < 14e6


def test_prompts_end_where_the_tokenizer_says(toy) -> None:
    prompts = ["", "cat", "a cat in the style of noto on a blue background"]
    encoded = toy.encode_prompts(prompts)
    assert encoded.context.shape == (3, 77, toy.context_dim)
    assert [rows[CONTEXT][0].last_content for rows in toy.text_rows(prompts)] == [0, 1, 12]


def test_a_prompt_beyond_the_window_is_quoted(toy) -> None:
    with pytest.raises(ValueError, match="'cat cat .*is 80 tokens long, the text encoder takes 75"):
        toy.encode_prompts(["cat " * 80])


def test_an_embedding_named_as_in_comfyui_is_refused(toy) -> None:
    for read in (lambda prompt: toy.encode_prompts([prompt]), toy.reads, toy.tokenize):
        with pytest.raises(ValueError, match="'a embedding:dog' names an embedding as ComfyUI does; load it into the"):
            read("a embedding:dog")
        read("embedding: a dog")


def test_what_is_read_alike(toy) -> None:
    assert toy.reads("Van  Gogh") == toy.reads("van gogh ") != toy.reads("van gogh.")


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling_is_diffusers(toy, guidance: float) -> None:
    prompts, seeds = ["a cat on a red background", "a pizza in the style of blob"], [1, 2]
    mine = generate(toy, prompts, seeds, steps=7, guidance=guidance)
    latents = initial_latents(toy, seeds)
    theirs = toy.pipe(prompts, num_inference_steps=7, guidance_scale=guidance, latents=latents, output_type="pt").images
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)


def test_images_survive_the_autoencoder(toy) -> None:
    images = generate(toy, ["a cat in the style of noto on a blue background"], [1])
    back = toy.decode_latents(toy.encode_images(images))
    error = (back - images).square().mean()
    assert -10 * torch.log10(error) > 24


def test_it_draws_what_it_is_asked_for(toy, judge) -> None:
    found = evaluate_model(toy, judge, images=96, seed=11)
    assert found.object >= 0.9 and found.style >= 0.9 and found.colour >= 0.9


def test_every_object_is_a_word_it_knows(toy) -> None:
    contexts = toy.encode_prompts([f"a {thing}" for thing in OBJECTS]).context[:, -1]
    distances = torch.cdist(contexts, contexts) + 1e3 * torch.eye(len(OBJECTS))
    assert distances.min() > 0.05 * contexts.norm(dim=1).mean()


def test_what_is_not_a_stable_diffusion(toy) -> None:
    class Other:
        unet = vae = None

    with pytest.raises(ValueError, match="Other has no unet, text_encoder, tokenizer, vae"):
        from_diffusers(Other())
    two = type("XL", (), {**{p: object() for p in ("unet", "text_encoder", "text_encoder_2", "tokenizer", "vae")}})
    with pytest.raises(ValueError, match="XL has no tokenizer_2"):
        from_diffusers(two())


def test_the_judge_sees_nothing_in_nan(judge) -> None:
    with pytest.raises(ValueError, match="a picture holds NaN or infinite values"):
        judge.judge(torch.full((1, 3, 64, 64), torch.nan))
