"""The ComfyUI adapter: what it sees, what it changes, and what it refuses."""

import copy
import logging
from pathlib import Path
from types import SimpleNamespace

import comfy.lora
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import folder_paths
import pytest
import torch
from pack.erasure_core import Concept, Dense, Erasure, LowRank, Origin, UnsupportedModelError, rece, uce
from pack.erasure_core.methods.rece import RECE, ReceSettings
from pack.erasure_core.model import CONTEXT
from pack.nodes.comfy_host import toy as toy_module
from pack.nodes.comfy_host.model import ComfyModel, unet_keys
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.toy import _clip, _model, load_toy
from pack.nodes.erasures import ErasureApply, ErasureCombine, ErasureSave
from pack.nodes.rece import ErasureRECE

KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
TEXT = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
NODE = {
    "concepts": "cat -> dog", "preserve": "lion\n", "preserve_common": False, "preset": "object", "loops": 1,
    "regularization": 0.1, "erase_scale": 1.0, "preserve_scale": 0.1, "ridge": 0.1, "amplification": 1.0,
    "strength": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded():
    return load_toy()


@pytest.fixture
def toy(loaded):
    """MODEL and CLIP; that nothing changed their weights or added patches is checked after every test."""
    model, clip, _ = loaded
    patchers = (model, clip.patcher)
    before = [{key: weight.clone() for key, weight in originals(patcher)} for patcher in patchers]
    yield model, clip
    for patcher, tensors in zip(patchers, before, strict=True):
        assert all(torch.equal(tensors[key], weight) for key, weight in originals(patcher))
        assert not patcher.patches


def originals(patcher):
    """The weights without patches; while a patched clone is in memory, ComfyUI keeps them in a backup."""
    return [(key, entry[0][0]) for key, entry in patcher.get_key_patches().items()]


def merged(model, clip):
    return dict(ComfyModel(model, clip).text_entries()[CONTEXT].weights)


def made(deltas, concept="cat"):
    return Erasure(deltas, (Origin("test", (Concept(concept),), {}, "0" * 16),))


def altered(change):
    """Another toy MODEL, whose inner model goes through ``change``."""
    model = _model()
    change(model.model)
    return model


def to_k(inner):
    return inner.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn2.to_k


def test_upstream_patches_are_seen(toy):
    model, clip = toy
    up, down = torch.randn(96, 3), torch.randn(3, 192)
    patched, _ = apply_erasure(model, clip, made({KEY: LowRank(up, down)}), 0.5)
    torch.testing.assert_close(merged(patched, clip)[KEY], merged(model, clip)[KEY] + 0.5 * up @ down)
    twice, _ = apply_erasure(patched, clip, made({KEY: Dense(torch.ones(96, 192))}))
    torch.testing.assert_close(merged(twice, clip)[KEY], merged(patched, clip)[KEY] + 1)
    assert rece(ComfyModel(model, clip), "dog").origins[0].fingerprint != (
        rece(ComfyModel(patched, clip), "dog").origins[0].fingerprint
    )


def test_merged_weights_are_copies(toy):
    model, clip = toy
    merged(model, clip)[KEY].zero_()
    assert merged(model, clip)[KEY].any()


def test_clip_skip_is_seen(toy):
    model, clip = toy
    skipped = clip.clone()
    skipped.clip_layer(-2)
    whole, early = (ComfyModel(model, one).text.encode(["cat"]).conditioning.context for one in (clip, skipped))
    assert not torch.allclose(whole, early)


def test_an_erasure_knows_the_clip_skip_that_it_was_made_with(toy, caplog):
    """Of 'CLIP Set Last Layer', -1 is all of SD 1's layers; XL's encoders end at -2 by themselves."""
    model, clip = toy
    skips = {None: 0, -1: 0, -2: 1}
    for layer, skip in skips.items():
        one = clip.clone()
        if layer is not None:
            one.clip_layer(layer)
        erasure = rece(ComfyModel(model, one), "cat")
        assert erasure.origins[0].settings["clip_skip"] == skip
        caplog.clear()
        shown = ErasureApply.execute(model, erasure, 1.0, 1.0, clip).ui["text"]
        assert (len(shown) == 2) == bool(skip)
        assert (
            not skip
            or "made with a CLIP skip of 1, as diffusers counts, and this model reads prompts with 0" in shown[1]
        )


def test_patched_text_encoder_is_seen(toy):
    model, clip = toy
    deltas = {f"{TEXT}.weight": Dense(torch.ones(384, 192)), f"{TEXT}.bias": Dense(torch.ones(384))}
    _, changed = apply_erasure(model, clip, made(deltas), strength_clip=0.25)
    entries = changed.patcher.get_key_patches("clip_l.transformer.text_model.encoder.layers.0.mlp.fc1")
    for key, ((weight, _), *patches) in entries.items():
        merged_weight = comfy.lora.calculate_weight(patches, weight.clone(), key)
        torch.testing.assert_close(merged_weight, weight + 0.25)
    assert len(entries) == 2
    contexts = [ComfyModel(model, one).text.encode(["cat"]).conditioning.context for one in (clip, changed, clip)]
    assert not torch.allclose(contexts[0], contexts[1])
    assert torch.equal(contexts[0], contexts[2])


def test_node_gives_what_apply_gives(toy):
    model, clip = toy
    direct, _, erasure, _ = ErasureRECE.execute(model, clip, **NODE | {"strength": 0.7}).result
    applied, _ = ErasureApply.execute(model, erasure, 1.0, 1.0, clip).result
    one, other = merged(direct, clip), merged(applied, clip)
    assert all(torch.equal(one[name], other[name]) for name in one)
    whole = rece(ComfyModel(model, clip), "cat -> dog", RECE["object"], preserve=["lion"])
    torch.testing.assert_close(erasure.deltas[KEY].dense(), 0.7 * whole.deltas[KEY].dense())


def test_custom_settings_reach_the_method(toy):
    model, clip = toy
    custom = {"preset": "custom", "loops": 2, "regularization": 0.5, "ridge": 0.2}
    erasure = ErasureRECE.execute(model, clip, **NODE | custom).result[2]
    settings = erasure.origins[0].settings
    assert (settings["loops"], settings["regularization"], settings["ridge"]) == (2, 0.5, 0.2)
    assert settings["preserve"] == ["lion"]


def test_common_concepts_are_preserved_on_request(toy):
    model, clip = toy
    erasure = ErasureRECE.execute(model, clip, **NODE | {"preserve_common": True}).result[2]
    preserved = erasure.origins[0].settings["preserve"]
    assert {"", "pizza", "lion"} <= set(preserved)
    assert "cat" not in preserved and len(set(preserved)) == len(preserved)


def test_combine(toy):
    one, other = made({KEY: Dense(torch.ones(96, 192))}), made({KEY: Dense(torch.ones(96, 192))}, "dog")
    (both,) = ErasureCombine.execute(one, other, 1.0, 2.0).result
    assert torch.equal(both.deltas[KEY].dense(), torch.full((96, 192), 3.0))


def test_a_foreign_erasure_is_warned_about(toy, caplog):
    model, clip = toy
    own = rece(ComfyModel(model, clip), "cat")
    on_top, _ = apply_erasure(model, clip, made({KEY: Dense(torch.ones(96, 192))}))
    for known in (model, on_top):
        ErasureApply.execute(known, own, 1.0, 1.0, clip)
    assert not caplog.records
    ErasureApply.execute(model, made(own.deltas), 1.0, 1.0, clip)
    assert "'cat' was computed on other weights" in caplog.text and "may erase less" in caplog.text


def test_an_erasure_of_another_checkpoint_is_formed_anew(toy, caplog):
    """As if it had been computed on this one: UCE's map does not depend on the weights."""
    model, clip = toy
    other = altered(lambda inner: to_k(inner).weight.data.mul_(2))
    carried, _ = ErasureApply.execute(other, uce(ComfyModel(model, clip), "cat -> dog"), 1.0, 1.0, clip).result
    assert "'cat -> dog' was computed on other weights" in caplog.text and "formed anew" in caplog.text
    computed, _ = apply_erasure(other, clip, uce(ComfyModel(other, clip), "cat -> dog"))
    for name, weight in merged(carried, clip).items():
        torch.testing.assert_close(weight, merged(computed, clip)[name], rtol=0, atol=1e-5)


def test_fp8_is_warned_about(toy, caplog):
    """Where its rounding is a good part of the change; in float32 it never is."""
    model, clip = toy
    rounded = altered(lambda inner: to_k(inner).to(torch.float8_e4m3fn))
    assert merged(rounded, clip)[KEY].dtype == torch.float32
    large, small = (made({KEY: Dense(torch.full((96, 192), change))}) for change in (1.0, 0.01))
    for erasure, of_model in ((large, rounded), (small, model)):
        apply_erasure(of_model, clip, erasure)
    assert not caplog.records
    apply_erasure(rounded, clip, small)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "MODEL is stored in float8_e4m3fn, and rounding to it loses" in caplog.text


def test_a_quantised_model_is_refused(toy):
    _, clip = toy

    def quantise(inner):
        to_k(inner).weight = torch.nn.Parameter(torch.zeros(96, 192, dtype=torch.uint8), requires_grad=False)

    with pytest.raises(UnsupportedModelError, match=r"MODEL is quantised .*to_k.weight is stored as uint8"):
        rece(ComfyModel(altered(quantise), clip), "cat")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(toy, value):
    model, clip = toy
    broken, change = model.clone(), torch.full((96, 192), value)
    broken.add_patches({unet_keys(model)[KEY]: ("diff", (change,))})
    with pytest.raises(UnsupportedModelError, match=r"attn2.to_k.weight holds NaN or infinite"):
        rece(ComfyModel(broken, clip), "cat")
    with pytest.raises(ValueError, match=r"to_k.weight of MODEL by what is not a finite number; make it anew"):
        apply_erasure(model, clip, made({KEY: Dense(change)}))
    broken = clip.clone()
    key, change = f"clip_l.transformer.{TEXT.partition('.')[2]}.weight", torch.full((384, 192), value)
    assert broken.add_patches({key: ("diff", (change,))})
    with pytest.raises(ValueError, match=r"NaN or infinite values; the text encoder"):
        rece(ComfyModel(model, broken), "cat")


def test_clip_missing(toy):
    model, _ = toy
    with pytest.raises(UnsupportedModelError, match=r"CLIP is missing"):
        ComfyModel(model, None)
    with pytest.raises(ValueError, match=r"CLIP is missing"):
        apply_erasure(model, None, made({f"{TEXT}.weight": Dense(torch.ones(384, 192))}))
    assert apply_erasure(model, None, made({KEY: Dense(torch.ones(96, 192))}))[1] is None


def test_encoders_of_other_families_are_refused(toy):
    clip = SimpleNamespace(tokenize=lambda text: {"g": [], "l": [], "t5xxl": []})
    with pytest.raises(UnsupportedModelError, match=r"CLIP has the text encoders t5xxl and l and g; .*do not belong"):
        ComfyModel(toy[0], clip)


def test_a_model_without_a_unet_is_refused(toy):
    model, clip = toy
    patcher = comfy.model_patcher.ModelPatcher(torch.nn.Linear(2, 2), model.load_device, model.offload_device)
    with pytest.raises(UnsupportedModelError, match=r"MODEL is of the kind Linear,.*no UNet"):
        ComfyModel(patcher, clip)


def test_clip_and_model_of_different_widths(toy, monkeypatch):
    model, _ = toy
    monkeypatch.setitem(toy_module.config.TEXT_ENCODER, "hidden_size", 64)
    monkeypatch.setattr(comfy.sd.CLIP, "load_sd", lambda self, tensors: ([], []))
    narrow = _clip()
    for parameter in narrow.cond_stage_model.parameters():
        parameter.data.normal_()
    with pytest.raises(UnsupportedModelError, match=r"192 wide but CLIP gives 64: CLIP and MODEL do not belong"):
        rece(ComfyModel(model, narrow), "cat")


@pytest.mark.parametrize("name", ["strength_model", "strength_clip"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_strengths_that_are_not_finite(toy, name, value):
    strengths = {"strength_model": 1.0, "strength_clip": 1.0, name: value}
    with pytest.raises(ValueError, match=rf"{name} must be a finite number from -10 to 10, got {value}"):
        ErasureApply.execute(toy[0], made({KEY: Dense(torch.ones(96, 192))}), **strengths, clip=toy[1])


@pytest.mark.parametrize(
    ("writer", "problem"),
    [
        ("erasures.erasure_file.write", OSError(28, "No space left on device")),
        ("files.atomic._new", PermissionError(13, "Permission denied")),
    ],
)
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, writer, problem):
    def fail(*_, **__):
        raise problem

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(f"pack.erasure_core.{writer}", fail)
    with pytest.raises(ValueError, match=r"filename_prefix 'no/cat': .*(No space left|Permission denied)"):
        ErasureSave.execute(made({KEY: Dense(torch.ones(96, 192))}), "no/cat")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_saving_returns_the_path_and_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    paths = [Path(*ErasureSave.execute(made({KEY: Dense(torch.ones(96, 192))}), "no/cat").result) for _ in range(2)]
    assert [path.name for path in paths] == ["cat_00001_.safetensors", "cat_00002_.safetensors"]
    assert sorted((tmp_path / "loras" / "no").iterdir()) == paths


def test_saving_says_which_programs_read_the_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    caplog.set_level("INFO")
    expected = {KEY: "A1111, Forge and diffusers read it", "unet.text_embedding.0.weight": "diffusers does not"}
    for name, told in expected.items():
        saved = ErasureSave.execute(made({name: LowRank(torch.ones(96, 1), torch.ones(1, 192))}), "no/cat")
        path, readers = saved.ui["text"]
        assert path == saved.result[0] and told in readers and f"{path}: As a LoRA ComfyUI's Load LoRA" in caplog.text


def test_an_erasure_for_another_kind_of_model(toy):
    model, clip = toy
    with pytest.raises(ValueError, match=r"another kind of model: it changes .* \(320, 768\), in MODEL .*\(96, 192\)"):
        apply_erasure(model, clip, made({KEY: LowRank(torch.ones(320, 1), torch.ones(1, 768))}))
    for name in (KEY.replace("down_blocks.0", "down_blocks.7"), "text_encoder_2.text_model.final.weight"):
        with pytest.raises(ValueError, match=r"changes .*, which (MODEL|CLIP) does not have"):
            apply_erasure(model, clip, made({name: Dense(torch.ones(96, 192))}))


@pytest.mark.parametrize("delta", [LowRank(torch.ones(96, 1), torch.ones(1, 192)), Dense(torch.ones(96, 192))])
@pytest.mark.parametrize("factor", [0.0, -1.0, 0.9, float("nan")])
def test_a_change_that_would_not_act(toy, monkeypatch, delta, factor):
    """Where ComfyUI only logs that it could not add a patch, or adds something else."""
    calculate = comfy.lora.calculate_weight

    def wrong(patches, *given, **named):
        return calculate([(one[0] * factor, *one[1:]) for one in patches], *given, **named)

    apply_erasure(*toy, made({KEY: delta}))
    monkeypatch.setattr(comfy.lora, "calculate_weight", wrong)
    with pytest.raises(UnsupportedModelError, match=r"would not act .*input_blocks.1.1.*to_k.weight of MODEL"):
        apply_erasure(*toy, made({KEY: delta}))


def test_a_change_of_the_text_encoder_that_would_not_act(toy, monkeypatch):
    erasure = made({f"{TEXT}.bias": Dense(torch.ones(384))})
    apply_erasure(*toy, erasure)
    monkeypatch.setattr(comfy.lora, "calculate_weight", lambda patches, weight, *_, **__: weight)
    with pytest.raises(UnsupportedModelError, match=r"would not act .*fc1.bias of CLIP"):
        apply_erasure(*toy, erasure)


def test_layers_in_the_place_of_those_that_are_patched(toy):
    """A copy that another node computes with has weights of its own; a compiled model has those of ComfyUI."""
    model, clip = toy
    erasure = made({KEY: LowRank(torch.ones(96, 1), torch.ones(1, 192))})
    for place in ("diffusion_model", "diffusion_model.input_blocks.1.1"):
        compiled, copied = model.clone(), model.clone()
        compiled.add_object_patch(place, torch.compile(model.get_model_object(place)))
        apply_erasure(compiled, clip, erasure)
        copied.add_object_patch(place, copy.deepcopy(model.get_model_object(place)))
        with pytest.raises(UnsupportedModelError, match=rf"another node .*{place} of MODEL"):
            apply_erasure(copied, clip, erasure)


def test_names_are_told_apart_as_clip_does(toy):
    seen = ComfyModel(*toy[:2])
    assert seen.reads("Van  Gogh") == seen.reads("van gogh ") != seen.reads("van gogh.")
    assert seen.reads("(cat)") == seen.reads(r"\(cat\)") != seen.reads("cat")
    with pytest.raises(ValueError, match="'Cat' and 'cat' are the same to this text encoder"):
        rece(seen, "Cat\ncat", ReceSettings(loops=0))


def test_a_prompt_that_is_too_long(toy):
    with pytest.raises(ValueError, match=r"'cat cat .*' is 76 tokens long, the text encoder takes 75; shorten it"):
        rece(ComfyModel(*toy), "cat " * 76)
    rece(ComfyModel(*toy), "cat " * 75, ReceSettings(loops=0))


def test_cancelling(toy):
    model, clip = toy
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        ErasureRECE.execute(model, clip, **NODE)
