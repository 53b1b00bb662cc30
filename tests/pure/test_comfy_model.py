"""What is read of a MODEL and a CLIP, on a stand-in for ComfyUI: weights, kinds, prompts; and how that is cancelled."""

from __future__ import annotations

import pytest
import torch
from pure.pack_modules import KEY, OWN, UNET, VALUE, Pack, a_clip, a_model, bits, tree


def test_what_upstream_patches_did_is_seen(pack: Pack) -> None:
    """The weights that a closed form reads are merged with them, while they are in memory too."""
    model, host = a_model(pack), pack.nodes("comfy_host.model")
    key, plain = f"{UNET}{OWN}to_k.weight", bits(model)
    patched = model.clone()
    patched.add_patches({key: ("diff", (torch.ones(6, 4),))}, 0.25)
    expected = plain[key] + 0.25
    torch.testing.assert_close(host.text_weights(patched)[KEY], expected)
    torch.testing.assert_close(host.text_weights(model)[KEY], plain[key])
    patched.into_memory()
    torch.testing.assert_close(host.text_weights(patched)[KEY], expected)
    torch.testing.assert_close(host.text_weights(model)[KEY], plain[key])
    assert sorted(host.text_weights(model)) == [KEY, VALUE]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_any_precision_are_read_as_copies_in_float32(pack: Pack, dtype: torch.dtype) -> None:
    model = a_model(pack)
    model.model.to(dtype)
    weight = pack.nodes("comfy_host.model").text_weights(model)[KEY]
    assert weight.dtype == torch.float32 and torch.equal(weight, bits(model)[f"{UNET}{OWN}to_k.weight"].float())
    weight.zero_()
    assert bits(model)[f"{UNET}{OWN}to_k.weight"].any(), "the model's own tensor was given"


def test_models_of_other_families_are_told_apart(pack: Pack) -> None:
    host = pack.nodes("comfy_host.model")
    other = pack.comfy("model_patcher").ModelPatcher(pack.comfy("model_base").BaseModel(tree(out=(4, 4)), {}))
    assert host.has_unet(a_model(pack)) and not host.has_unet(other)
    assert host.weight_keys(a_model(pack))[KEY] == f"{UNET}{OWN}to_k.weight"
    assert host.weight_keys(other) == {f"unet.out.{one}": f"{UNET}out.{one}" for one in ("weight", "bias")}
    with pytest.raises(ValueError, match="MODEL is of the kind BaseModel, which has no UNet of Stable Diffusion"):
        host.unet_keys(other)
    with pytest.raises(ValueError, match="no UNet of Stable Diffusion"):
        host.unet_keys(a_model(pack, use_temporal_attention=True))
    assert host.reads_pooled(a_model(pack, "SDXL")) and not host.reads_pooled(a_model(pack))


def test_a_model_is_read_with_its_clip(pack: Pack) -> None:
    seen = pack.nodes("comfy_host.model").ComfyModel(a_model(pack), a_clip(pack))
    assert isinstance(seen, pack.core("model").TextReader)
    encoded = seen.text.encode(["a (red) fish", ""])
    context = encoded.conditioning.context
    assert encoded.last_content == (3, 0) and context.shape == (2, 8, 4)
    assert context[0, :4, 0].tolist() == [0, 1, 6, 10]
    with pytest.raises(ValueError, match="'a b c d e f g' is 7 tokens long, the text encoder takes 6; shorten it"):
        seen.text_rows(["a b c d e f g"])


def test_a_clip_that_does_not_fit_is_said(pack: Pack) -> None:
    host = pack.nodes("comfy_host.model")
    with pytest.raises(ValueError, match="CLIP is missing"):
        host.ComfyModel(a_model(pack), None)
    with pytest.raises(ValueError, match="CLIP has the text encoders t5xxl; Stable Diffusion has one or two of"):
        host.ComfyModel(a_model(pack), a_clip(pack, names=("t5xxl",)))
    with pytest.raises(ValueError, match="MODEL reads a pooled text vector, and CLIP gives none"):
        host.ComfyModel(a_model(pack, "SDXL"), a_clip(pack)).text_rows(["cat"])


def test_two_encoders_and_a_pooled_vector(pack: Pack) -> None:
    clip = a_clip(pack, names=("g", "l"), pooled=True)
    encoders_of_text = pack.nodes("comfy_host.text_encoders")
    encoders = encoders_of_text.TextEncoders(clip, pooled=True)
    assert encoders.names == ("l", "g")
    found = encoders.encode(["red fish", "cat"])
    context, pooled = found.conditioning.tensors
    assert context.shape == (2, 8, 8) and pooled.shape == (2, 3)
    assert encoders_of_text.host_conditioning(found.conditioning) == [[context, {"pooled_output": pooled}]]
    assert encoders_of_text.host_conditioning(type(found.conditioning)(context)) == [[context, {}]]
    assert [(len(one["context"][0].rows), one["pooled"][0].rows.shape) for one in found.rows()] == [(8, (1, 3))] * 2


def test_only_the_toy_tells_which_words_it_knows(pack: Pack) -> None:
    """Configurations of ComfyUI answer ``None`` to any name."""
    seen = pack.nodes("comfy_host.model").ComfyModel(a_model(pack), a_clip(pack))
    assert seen.vocabulary == frozenset()
    seen.model.model.model_config = type("Toy", (), {"vocabulary": frozenset({"cat"})})()
    assert seen.vocabulary == frozenset({"cat"})


def test_a_cancel_stops_reading(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    management = pack.comfy("model_management")
    monkeypatch.setattr(management, "interrupted", True)
    with pytest.raises(management.InterruptProcessingException):
        pack.nodes("comfy_host.model").ComfyModel(a_model(pack), a_clip(pack)).text_rows(["cat"])
    with pytest.raises(management.InterruptProcessingException):
        pack.nodes("comfy_host.progress").progress()(1, 2, "sampling")


def test_progress_is_shown(pack: Pack) -> None:
    shown = pack.comfy("utils").ProgressBar.shown
    shown.clear()
    pack.nodes("comfy_host.progress").progress()(1, 3, "sampling")
    assert shown == [(1, 3)]
