"""Erasures as patches of a MODEL and a CLIP, on a stand-in for ComfyUI: added to clones, or refused."""

from __future__ import annotations

import logging

import pytest
import torch
from pure.pack_modules import (
    FC1,
    KEY,
    OWN,
    TEXT,
    UNET,
    VALUE,
    Pack,
    a_clip,
    a_model,
    bits,
    dense,
    erasure_of,
    low_rank,
    merged,
)
from torch import nn


def test_patches_are_added_to_clones_only(pack: Pack) -> None:
    model, clip = a_model(pack), a_clip(pack)
    before = bits(model), bits(clip.patcher)
    erasure = erasure_of(pack, key=low_rank(pack, 6, 4), value=dense(pack, 8, 4), text=dense(pack, 4, 4))
    new_model, new_clip = pack.nodes("comfy_host.patches").apply_erasure(model, clip, erasure, 0.5, 2.0)
    assert new_model is not model and new_model.model is model.model and not model.patches and not clip.patcher.patches
    for was, now in zip(before, (bits(model), bits(clip.patcher)), strict=True):
        assert all(torch.equal(was[key], now[key]) for key in was)
    for name, patcher, key, strength in (
        (KEY, new_model, f"{UNET}{OWN}to_k.weight", 0.5),
        (VALUE, new_model, f"{UNET}{OWN}to_v.weight", 0.5),
        (f"{FC1}.weight", new_clip.patcher, f"{TEXT}text_model.encoder.layers.0.mlp.fc1.weight", 2.0),
    ):
        plain = patcher.model.state_dict()[key]
        torch.testing.assert_close(merged(pack, patcher, key), plain + strength * erasure.deltas[name].dense())
        assert torch.equal(merged(pack, patcher, key, patched=False), plain)
        assert len(patcher.get_key_patches()[key]) == 2


def test_a_clip_that_need_not_change_may_be_missing(pack: Pack) -> None:
    erasure, apply = erasure_of(pack, key=dense(pack, 6, 4)), pack.nodes("comfy_host.patches").apply_erasure
    assert apply(a_model(pack), None, erasure)[1] is None
    clip = a_clip(pack)
    other = apply(a_model(pack), clip, erasure)[1]
    assert other is not clip and not other.patcher.patches


def test_a_bias_of_the_text_encoder_is_found(pack: Pack) -> None:
    erasure = erasure_of(pack, bias=dense(pack, 4))
    _, clip = pack.nodes("comfy_host.patches").apply_erasure(a_model(pack), a_clip(pack), erasure)
    assert list(clip.patcher.patches) == [f"{TEXT}text_model.encoder.layers.0.mlp.fc1.bias"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": (4, 4)}, "CLIP is missing, and this erasure changes the text encoder"),
        ({"unet.elsewhere.weight": (4, 4)}, r"changes unet\.elsewhere\.weight, which MODEL does not have"),
        ({"unet.not_there.weight": (4, 4)}, r"changes unet\.not_there\.weight, which MODEL does not have"),
        ({"key": (8, 4)}, r"made for another kind of model: it changes .* as \(8, 4\), in MODEL that is \(6, 4\)"),
        ({"key": (6, 4, 1)}, r"as \(6, 4, 1\), in MODEL"),
    ],
)
def test_an_erasure_of_another_model_is_refused(pack: Pack, changes: dict, message: str) -> None:
    model = a_model(pack)
    erasure = erasure_of(pack, **{name: dense(pack, *shape) for name, shape in changes.items()})
    with pytest.raises(ValueError, match=message):
        pack.nodes("comfy_host.patches").apply_erasure(model, None, erasure)
    assert not model.patches


def test_a_change_that_the_text_encoder_lacks_is_refused(pack: Pack) -> None:
    erasure = erasure_of(pack, **{"text_encoder.text_model.encoder.layers.1.mlp.fc1.weight": dense(pack, 4, 4)})
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.fc1\.weight, which CLIP does not have"):
        pack.nodes("comfy_host.patches").apply_erasure(a_model(pack), a_clip(pack), erasure)


@pytest.mark.parametrize("name", ["strength_model", "strength_clip"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_strength_that_is_not_finite_is_refused(pack: Pack, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number, got {value}"):
        pack.nodes("comfy_host.patches").apply_erasure(
            a_model(pack), None, erasure_of(pack, key=dense(pack, 6, 4)), **{name: value}
        )


def test_a_change_that_comfyui_drops_is_an_error(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    patcher = pack.comfy("model_patcher").ModelPatcher
    monkeypatch.setattr(patcher, "add_patches", lambda self, patches, *_: list(patches)[1:])
    erasure = erasure_of(pack, key=dense(pack, 6, 4), value=dense(pack, 8, 4))
    with pytest.raises(ValueError, match=r"ComfyUI did not take the change of .*to_k\.weight in MODEL"):
        pack.nodes("comfy_host.patches").apply_erasure(a_model(pack), None, erasure)


def test_what_is_stored_in_integers_cannot_be_read(pack: Pack) -> None:
    model = a_model(pack)
    layer = model.model.diffusion_model.get_submodule(f"{OWN}to_k")
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"MODEL is quantised \(.*to_k\.weight is stored as int8"):
        pack.nodes("comfy_host.patches").apply_erasure(model, None, erasure_of(pack, key=dense(pack, 6, 4)))


def test_erasures_are_known_of_clones(pack: Pack) -> None:
    apply, carried = pack.nodes("comfy_host.patches").apply_erasure, pack.nodes("comfy_host.erasures_of_model")
    model = a_model(pack)
    erasure = erasure_of(pack, key=dense(pack, 6, 4))
    once, _ = apply(model, None, erasure, 0.5)
    twice, _ = apply(once.clone(), None, erasure_of(pack, value=dense(pack, 8, 4)))
    assert [len(carried.erasures_of(one)) for one in (model, once, twice)] == [0, 1, 2]
    assert all(not one.deltas and one.concepts == erasure.concepts for one in carried.erasures_of(twice))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
def test_rounding_that_eats_an_erasure_is_said(pack: Pack, dtype: torch.dtype, caplog) -> None:
    model = a_model(pack)
    model.model.to(dtype)
    small = pack.core("erasures.low_rank").Dense(1e-3 * torch.ones(6, 4))
    with caplog.at_level(logging.INFO):
        pack.nodes("comfy_host.patches").apply_erasure(model, None, erasure_of(pack, key=small))
    (record,) = [one for one in caplog.records if "rounding" in one.message]
    assert (record.levelno == logging.WARNING) == (dtype != torch.float32)
    assert str(dtype).removeprefix("torch.") in record.message


def test_an_erasure_that_counts_twice_is_told(pack: Pack, caplog) -> None:
    """Not refused: a chain may add up strengths."""
    host, model, clip = pack.nodes("comfy_host.patches"), a_model(pack), a_clip(pack)
    erasure = erasure_of(pack, key=dense(pack, 6, 4), text=dense(pack, 4, 4))
    once = host.apply_erasure(model, clip, erasure, 0.5, 0.0)
    host.apply_erasure(*once, erasure, 0.0, 0.5)
    host.apply_erasure(*once, erasure_of(pack, "dog", key=dense(pack, 6, 4)))
    assert not caplog.messages
    host.apply_erasure(*once, erasure, 0.5, 0.0)
    assert "MODEL has an erasure of 'cat' already that was computed on the same weights: both count." in caplog.text
    host.apply_erasure(a_model(pack), host.apply_erasure(*once, erasure, 0.0, 0.5)[1], erasure)
    assert "CLIP has an erasure of 'cat' already" in caplog.text


def test_a_part_that_was_computed_on_other_weights_is_said(pack: Pack, caplog) -> None:
    host, rece = pack.nodes("comfy_host.rebase"), pack.core("methods.rece").rece
    model, clip = a_model(pack), a_clip(pack)
    other = a_model(pack)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.mul_(1.5)
    own, foreign = (rece(pack.nodes("comfy_host.open_model").reader(one, clip), name)
                    for one, name in ((model, "cat"), (other, "dog")))  # fmt: skip
    assert host.rebase_if_needed(model, None, own) is own and not caplog.messages
    both = own + foreign
    assert host.rebase_if_needed(model, None, both) is both
    (message,) = caplog.messages
    assert "The erasure of 'dog' was computed on other weights than this MODEL's, or on top of the rest" in message


def test_a_clip_is_asked_for_where_an_erasure_has_to_be_formed_anew(pack: Pack) -> None:
    clip, other = a_clip(pack), a_model(pack)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.mul_(1.5)
    foreign = pack.core("methods.rece").rece(pack.nodes("comfy_host.open_model").reader(other, clip), "dog")
    with pytest.raises(ValueError, match="clip is missing: the erasure of 'dog' was computed on other weights"):
        pack.nodes("comfy_host.rebase").rebase_if_needed(a_model(pack), None, foreign)
