"""CLIP as a recogniser in ComfyUI: texts come out as transformers projects them; half a CLIP is refused."""

from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from pack.erasure_core.audit.recognisers.toy import ToyRecogniser
from pack.erasure_core.concepts.parse import parse_concepts
from pack.erasure_core.methods import METHODS
from pack.erasure_core.toy import config
from pack.nodes.comfy_host.model import UNET, ComfyModel
from pack.nodes.comfy_host.recognisers import recogniser
from pack.nodes.comfy_host.toy import _unet_config, is_toy, load_toy
from pack.nodes.trained import ErasureAbO, _settings
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

WIDTH = config.TEXT_ENCODER["hidden_size"]


@pytest.fixture
def clip():
    """The toy's text encoder with a projection, which it lacks."""
    _, clip, _ = load_toy()
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

    judge = recogniser(False, vision(remember), clip)
    embedded = judge._embed_texts(["a cat", "a dog on a hill"])
    tensors = {name: tensor.float() for name, tensor in clip.cond_stage_model.clip_l.transformer.state_dict().items()}
    settings = {**config.TEXT_ENCODER, "eos_token_id": config.TEXT_ENCODER["eos_token_id"]}
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
    judge = recogniser(False, vision(lambda images: images[:, :, 0, 0]), clip)
    told = judge._text_embeddings(["a picture of cat", "a picture of dog"])
    images = told[:, None, :, None].expand(2, 3, WIDTH, 1).contiguous()
    assert judge.shows(images, ["cat", "dog"]) == [True, True]
    assert judge.shows(images, ["dog", "cat"]) == [False, False]


@pytest.fixture(scope="module")
def other():
    """A model of the toy's very shape that is not the toy."""
    settings = comfy.supported_models.SD15(_unet_config())
    settings.set_inference_dtype(torch.float32, None)
    inner, device = settings.get_model({}), comfy.model_management.get_torch_device()
    for weight in inner.diffusion_model.parameters():
        weight.data.zero_()
    return comfy.model_patcher.ModelPatcher(inner, device, device)


def test_the_toy_is_known_by_what_it_is(other):
    model, clip, _ = load_toy()
    patched = model.clone()
    patched.add_patches({next(iter(model.model_state_dict(UNET))): ("diff", (torch.zeros(1),))})
    assert [is_toy(one) for one in (model, patched, other)] == [True, True, False]
    widths = [ComfyModel(one, clip).text.encode([""]).conditioning.context.shape[-1] for one in (model, other)]
    assert widths == [WIDTH, WIDTH]


@pytest.mark.parametrize("method", ["few_shot", "doco", "abo"])
def test_presets_follow_the_model_and_the_kind_of_concept(other, method):
    """The toy has settings of its own; presets of earlier versions that were for it alone are refused elsewhere."""
    toy, entry = load_toy()[0], METHODS[method]

    def settings(model, preset, concept, **own):
        return _settings(method, preset, parse_concepts(concept), model, **own)

    for concept, kind in {"cat -> dog": "object", "noto -> blob": "style", "van gogh -> monet": "style"}.items():
        assert settings(toy, "auto", concept) == entry.toy_presets[kind]
        assert settings(toy, f"{kind} (toy)", concept) == settings(toy, kind, concept) == entry.toy_presets[kind]
    assert settings(other, "auto", "cat") == entry.presets["object"]
    assert settings(other, "auto", "noto") == entry.presets["object"]
    assert settings(other, "auto", "van gogh", steps=7).steps == 7
    assert settings(other, "style", "cat", steps=0, learning_rate=0.0) == entry.presets["style"]


def test_presets_of_the_toy_are_for_the_toy_alone(other):
    model, clip, _ = load_toy()
    given = {
        "concept": "cat -> dog", "preserve": "a lion", "preserve_common": False, "unconditional_weight": 1.0,
        "preserve_weight": 1.0, "scope": "cross-attention", "steps": 1, "learning_rate": 1e-9, "seconds": 0.0,
        "rank": 1, "seed": 0, "strength": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"preset 'object \(toy\)' is for the toy model"):
        ErasureAbO.execute(other, clip, preset="object (toy)", **given)
    comfy.model_management.interrupt_current_processing(True)  # before it trains
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        ErasureAbO.execute(model, clip, preset="object (toy)", **given)


def test_who_judges():
    model, plain, _ = load_toy()
    assert isinstance(recogniser(True), ToyRecogniser) and recogniser(False) is None
    with pytest.raises(ValueError, match="clip_judge is missing"):
        recogniser(False, vision(None), None)
    with pytest.raises(ValueError, match="no text projection"):
        recogniser(False, vision(None), plain)
    both = SimpleNamespace(cond_stage_model=SimpleNamespace())
    with pytest.raises(ValueError, match="no text projection"):
        recogniser(False, vision(None), both)
