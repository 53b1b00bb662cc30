"""CLIP as a recogniser in ComfyUI: texts come out as transformers projects them; half a CLIP is refused."""

from types import SimpleNamespace

import pytest
import torch
from pack.erasure_core.recognise import ToyRecogniser
from pack.erasure_core.toy import config
from pack.nodes import host_recognise, host_toy
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

WIDTH = config.TEXT["hidden_size"]


@pytest.fixture
def clip():
    """The toy's text encoder with a projection, which it lacks."""
    _, clip, _ = host_toy.load_toy()
    generator = torch.Generator().manual_seed(0)
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) / WIDTH**0.5)
    return clip


def vision(embeds):
    return SimpleNamespace(encode_image=lambda images: SimpleNamespace(image_embeds=embeds(images)))


def test_texts_are_projected_as_in_transformers(clip):
    seen = {}

    def remember(images):
        seen["shape"] = images.shape
        return torch.ones(len(images), WIDTH)

    judge = host_recognise.recogniser(768, vision(remember), clip)
    embedded = judge._embed_texts(["a cat", "a dog on a hill"])
    tensors = {name: tensor.float() for name, tensor in clip.cond_stage_model.clip_l.transformer.state_dict().items()}
    settings = {**config.TEXT, "eos_token_id": config.TEXT["eos_token_id"]}
    theirs = CLIPTextModelWithProjection(CLIPTextConfig(**settings)).eval()
    missing, _ = theirs.load_state_dict(tensors, strict=False)
    assert not [name for name in missing if "position_ids" not in name]
    ids = torch.tensor([[token[0] for token in clip.tokenize(text)["l"][0]] for text in ("a cat", "a dog on a hill")])
    with torch.no_grad():
        wanted = theirs(ids).text_embeds
    torch.testing.assert_close(embedded, wanted, atol=1e-4, rtol=1e-4)
    judge.shows(torch.rand(2, 3, 8, 6), ["cat", "dog"])
    assert seen["shape"] == (2, 8, 6, 3)


def test_a_picture_is_what_its_text_says(clip):
    judge = host_recognise.recogniser(768, vision(lambda images: images[:, :, 0, 0]), clip)
    told = judge._told(["a picture of cat", "a picture of dog"])
    images = told[:, None, :, None].expand(2, 3, WIDTH, 1).contiguous()
    assert judge.shows(images, ["cat", "dog"]) == [True, True]
    assert judge.shows(images, ["dog", "cat"]) == [False, False]


def test_who_judges():
    _, plain, _ = host_toy.load_toy()
    assert isinstance(host_recognise.recogniser(WIDTH), ToyRecogniser) and host_recognise.recogniser(768) is None
    with pytest.raises(ValueError, match="clip_judge is missing"):
        host_recognise.recogniser(768, vision(None), None)
    with pytest.raises(ValueError, match="no text projection"):
        host_recognise.recogniser(768, vision(None), plain)
    both = SimpleNamespace(cond_stage_model=SimpleNamespace())
    with pytest.raises(ValueError, match="no text projection"):
        host_recognise.recogniser(768, vision(None), both)
