"""Folders of diffusers as they are found, and as somebody may have made them to do harm."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from toy import tiny

from erasure_core import UnsupportedModelError, from_diffusers, rece
from erasure_core.commands.main import main
from erasure_core.diffusers.checkpoint import load_checkpoint
from erasure_core.diffusers.folder import MODELS
from erasure_core.methods.rece import ReceSettings

PROMPTS = ["a cat", "a dog in a hat"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl") / "it"
    tiny.sdxl().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "it"))


def rewritten(folder: Path, **changes: Any) -> Path:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def weights_of(part: Path) -> Path:
    (found,) = part.glob("*.safetensors")
    return found


def is_the_model(model) -> None:
    expected = from_diffusers(tiny.sdxl()).encode_prompts(PROMPTS).tensors
    torch.testing.assert_close(model.encode_prompts(PROMPTS).tensors, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("parts", [tuple(MODELS), ("unet", "text_encoder_2")])
def test_only_fp16_files(folder: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        file = weights_of(folder / part)
        file.rename(file.with_suffix(".fp16.safetensors"))
    is_the_model(load_checkpoint(folder))


def test_files_of_no_variant_are_preferred(folder: Path) -> None:
    file = weights_of(folder / "unet")
    file.with_suffix(".fp16.safetensors").write_bytes(b"damaged")
    is_the_model(load_checkpoint(folder))


def test_variants_of_which_none_is_whole(folder: Path) -> None:
    for part, variant in (("unet", "fp16"), ("vae", "ema")):
        file = weights_of(folder / part)
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    with pytest.raises(ValueError, match="in variants of which none is whole"):
        load_checkpoint(folder)


def test_only_pickles(folder: Path, capsys) -> None:
    file = weights_of(folder / "unet")
    file.rename(file.with_suffix(".bin"))
    assert main(["erase", "--model", str(folder), "--concept", "cat", "--out", str(folder / "a.safetensors")]) == 2
    told = capsys.readouterr().err
    assert "unet holds only diffusion_pytorch_model.bin, a pickle" in told and "save_pretrained" in told


def test_a_part_that_is_not_there(folder: Path) -> None:
    weights_of(folder / "vae").unlink()
    with pytest.raises(ValueError, match=r"vae has no weights in .safetensors; download the whole model"):
        load_checkpoint(folder)
    shutil.rmtree(folder / "vae")
    with pytest.raises(ValueError, match=r"vae is missing, though model_index.json names it"):
        load_checkpoint(folder)


def changed(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("part", MODELS)
def test_a_weight_that_is_missing_is_not_made_up(folder: Path, part: str) -> None:
    file = weights_of(folder / part)
    name = next(name for name in load_file(file) if name.endswith(("mlp.fc1.weight", "conv_in.weight")))
    changed(file, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=f"{part} lacks a weight of shape .*; download|autoencoder are missing"):
        load_checkpoint(folder)


@pytest.mark.parametrize("part", MODELS)
def test_integers_are_no_weights(folder: Path, part: str) -> None:
    file = weights_of(folder / part)
    name = next(name for name in load_file(file) if name.endswith(("mlp.fc1.weight", "conv_in.weight")))
    changed(file, lambda tensors: tensors.update({name: (100 * tensors[name]).to(torch.int8)}))
    with pytest.raises(UnsupportedModelError, match=f"has {name} in I8, which is no floating point"):
        load_checkpoint(folder)


def controlnet():
    return diffusers.ControlNetModel(
        in_channels=4, block_out_channels=(16, 32), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block=1, cross_attention_dim=16, attention_head_dim=(2, 4), norm_num_groups=4,
        conditioning_embedding_out_channels=(8, 8),
    )  # fmt: skip


def parts_of(pipe) -> dict[str, Any]:
    return {name: getattr(pipe, name) for name in ("unet", "vae", "text_encoder", "tokenizer")}


def with_controlnet(count: int) -> Callable:
    def made():
        return diffusers.StableDiffusionControlNetPipeline(
            **parts_of(tiny.plain()), controlnet=controlnet() if count == 1 else [controlnet()] * count,
            scheduler=tiny.plain().scheduler, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip

    return made


def latent_consistency():
    pipe = tiny.plain(time_cond_proj_dim=16)
    return diffusers.LatentConsistencyModelPipeline(
        **parts_of(pipe), scheduler=diffusers.LCMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


@pytest.mark.parametrize("made", [with_controlnet(1), with_controlnet(2), latent_consistency])
def test_pipelines_with_more_around_the_same_parts(made: Callable, tmp_path: Path) -> None:
    pipe = made()
    pipe.save_pretrained(tmp_path / "it")
    found = rece(load_checkpoint(tmp_path / "it"), "cat -> dog", ReceSettings(loops=1), preserve=["a house"])
    expected = rece(from_diffusers(pipe), "cat -> dog", ReceSettings(loops=1), preserve=["a house"])
    assert set(found.deltas) == set(expected.deltas)
    for name, delta in expected.deltas.items():
        torch.testing.assert_close(found.deltas[name].dense(), delta.dense(), rtol=0, atol=1e-4)


def test_a_latent_consistency_model_draws_nothing_for_us() -> None:
    model = from_diffusers(latent_consistency())
    with pytest.raises(UnsupportedModelError, match="latent consistency model draws in another way; erase from it"):
        model.predict_noise(torch.zeros(1, 4, 8, 8), torch.tensor([1]), model.encode_prompts(["a cat"]))


def test_animatediff_is_refused() -> None:
    pipe = tiny.plain()
    adapter = diffusers.MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=4,
        use_motion_mid_block=False, motion_mid_block_layers_per_block=1,
    )  # fmt: skip
    moving = diffusers.AnimateDiffPipeline(**parts_of(pipe), scheduler=pipe.scheduler, motion_adapter=adapter)
    with pytest.raises(UnsupportedModelError, match="AnimateDiffPipeline has AnimateDiff's motion modules"):
        from_diffusers(moving)


EVIL = "open({path!r}, 'w').close()\nclass Thing:\n    pass\n"


@pytest.mark.parametrize("name", ["unet", "scheduler", "my_own", "text_encoder", "controlnet", "tokenizer_2"])
def test_no_code_of_a_folder_is_run(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).mkdir(exist_ok=True)
    for place in (folder / name / "evil.py", folder / "evil.py", folder / "evil" / "evil.py"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(EVIL.format(path=str(tmp_path / "ran")))
    with pytest.raises(UnsupportedModelError, match=f"'{name}' is of 'evil', which would run code of its own"):
        load_checkpoint(rewritten(folder, **{name: ["evil", "Thing"]}))
    assert not (tmp_path / "ran").exists() and "evil" not in sys.modules


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"_class_name": ["evil", "Thing"]}, "it is a list; a pipeline of Stable Diffusion"),
        ({"_class_name": "AnimateDiffPipeline"}, "is a AnimateDiffPipeline; a pipeline of Stable Diffusion"),
        ({"_class_name": None}, "is a None; a pipeline of Stable Diffusion"),
        ({"unet": ["diffusers", "UNetMotionModel"]}, "'unet' is a UNetMotionModel, a UNet2DConditionModel is needed"),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "is a T5EncoderModel, a CLIPTextModel or"),
        ({"vae": ["transformers", "AutoencoderKL"]}, "'vae' is a AutoencoderKL, a AutoencoderKL or"),
        ({"scheduler": ["diffusers", "DiffusionPipeline"]}, "'scheduler' is a DiffusionPipeline, a scheduler of"),
        ({"scheduler": ["diffusers", "NoScheduler"]}, "'scheduler' is a NoScheduler, a scheduler of"),
        ({"unet": ["diffusers"]}, "'unet' is not a library and a class"),
        ({"unet": [1, {}]}, "'unet' is not a library and a class"),
    ],
)
def test_what_is_no_stable_diffusion(folder: Path, changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_checkpoint(rewritten(folder, **changes))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1" * 5000, "[" * 100_000, '{"a":' * 100_000, "NaN", "\ufeff{}", " " * 2**21, "\x00"],
)
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_what_is_no_json(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match="is no configuration in JSON") as error:
        load_checkpoint(folder)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_a_quantised_folder(folder: Path) -> None:
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": {"load_in_8bit": True}}))
    with pytest.raises(UnsupportedModelError, match="unet is quantised, which cannot be edited"):
        load_checkpoint(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_index_loads_or_is_refused(saved: Path, tmp_path: Path, data) -> None:
    """Nothing but a ``ValueError``, for whatever it says."""
    folder = tmp_path / "it"
    if not folder.exists():
        shutil.copytree(saved, folder)
    index = json.loads((saved / "model_index.json").read_text())
    index[data.draw(st.sampled_from([*index, "other"]))] = data.draw(JSON)
    (folder / "model_index.json").write_text(json.dumps(index))
    loads_or_is_refused(folder)


@pytest.mark.parametrize("size", [None, True, 0, -1, [8], [8, 0], "8", 8.0])
def test_sizes_that_latents_cannot_have(saved: Path, tmp_path: Path, size: object) -> None:
    folder = tmp_path / "it"
    shutil.copytree(saved, folder)
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": size}))
    with pytest.raises(ValueError, match="sample_size|could not be loaded"):
        load_checkpoint(folder).latent_shape()


@pytest.mark.parametrize("name", ["eos_token_id", "layer_norm_eps", "num_hidden_layers"])
@pytest.mark.parametrize("value", ["", None, [2]])
def test_settings_of_a_text_encoder_that_are_no_numbers(saved: Path, tmp_path: Path, name: str, value: object) -> None:
    folder = tmp_path / "it"
    shutil.copytree(saved, folder)
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=rf"{name} .*, expected a number|could not be loaded"):
        load_checkpoint(folder)


@pytest.mark.parametrize(("name", "value"), [("num_attention_heads", -1), ("num_hidden_layers", 0)])
def test_a_text_encoder_of_no_layers_or_heads(saved: Path, tmp_path: Path, name: str, value: int) -> None:
    folder = tmp_path / "it"
    shutil.copytree(saved, folder)
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=rf"config.json has {name} {value}, expected a number such as "):
        load_checkpoint(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_configuration_loads_or_is_refused(saved: Path, tmp_path: Path, data) -> None:
    folder, small = tmp_path / "it", st.none() | st.booleans() | st.integers(-2, 9) | st.floats(-2, 9) | st.text("ab.")
    if not folder.exists():
        shutil.copytree(saved, folder)
    files = ["unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"]
    name = data.draw(st.sampled_from(files))
    config = json.loads((saved / name).read_text())
    config[data.draw(st.sampled_from([*config, "other"]))] = data.draw(small | st.lists(small, max_size=2))
    (folder / name).write_text(json.dumps(config))
    try:
        loads_or_is_refused(folder)
    finally:
        shutil.copy(saved / name, folder / name)


def loads_or_is_refused(folder: Path) -> None:
    try:
        model = load_checkpoint(folder)
        model.encode_prompts(["a cat"])
        model.text_entries()
        model.latent_shape()
    except ValueError as error:
        assert len(str(error)) < 1000
