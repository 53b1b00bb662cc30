"""Single-file checkpoints of every family: small ones bit for bit, and the real shapes in files of zeros."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from toy import tiny
from toy.single_file import single_file, write_sparse

from erasure_core import Erasure, UnsupportedModelError, from_diffusers, rece
from erasure_core.commands.main import main
from erasure_core.diffusers.checkpoint import load_checkpoint
from erasure_core.diffusers.detection import FIRST_CONV
from erasure_core.families.family import Family
from erasure_core.families.unets import FAMILIES, REFINER, SD_1, SD_2, SDXL
from erasure_core.sampling.ddim import generate

ROOT = Path(__file__).resolve().parents[2]
WIDTH, WIDTH_2 = tiny.TEXT["width"], tiny.TEXT_2["width"]


def small(family: Family, unet: dict, **texts: dict) -> Family:
    """A family with a small UNet and small text encoders of the sizes of ``tiny``."""
    encoders = tuple(
        replace(encoder, config=tiny.text_config(**texts[encoder.part])) for encoder in family.encoders
    )  # fmt: skip
    return replace(family, unet=unet, encoders=encoders, vae=tiny.VAE, prediction_type="epsilon")


SMALL = {
    "small": small(SD_1, tiny.unet_config(WIDTH), text_encoder=tiny.TEXT),
    "small_xl": small(
        SDXL,
        tiny.unet_config(WIDTH + WIDTH_2, **tiny.sizes(6)),
        text_encoder=tiny.TEXT,
        text_encoder_2=tiny.TEXT_2,
    ),
    "small_refiner": small(REFINER, tiny.unet_config(WIDTH_2, **tiny.sizes(5)), text_encoder_2=tiny.TEXT_2),
}


@pytest.fixture
def small_families(monkeypatch) -> None:
    for key, family in SMALL.items():
        monkeypatch.setitem(FAMILIES, key, family)


def written(pipe, path: Path, **more: torch.Tensor) -> Path:
    tensors = {name: tensor.clone().contiguous() for name, tensor in {**single_file(pipe), **more}.items()}
    save_file(tensors, path)
    return path


@pytest.mark.usefixtures("small_families")
@pytest.mark.parametrize(
    "family", [tiny.sdxl, tiny.refiner, lambda: tiny.sdxl("inpainting"), lambda: tiny.stable_diffusion("inpainting")]
)
def test_a_single_file_is_the_pipeline(family: Callable, tmp_path: Path) -> None:
    pipe = family()
    pipe.scheduler.register_to_config(prediction_type="epsilon")
    mine, theirs = load_checkpoint(written(pipe, tmp_path / "one.safetensors")), from_diffusers(pipe)
    for scope in ("unet", "text_encoder"):
        found, expected = mine.weights_of(scope), theirs.weights_of(scope)
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    prompts = ["a cat", "a painting of a dog!"]
    assert torch.equal(generate(mine, prompts, [1, 2], steps=2), generate(theirs, prompts, [1, 2], steps=2))


@pytest.mark.usefixtures("small_families")
@pytest.mark.parametrize("page", ["README.md", "docs/pypi.md", "docs/python.md"])
def test_the_first_example_of_a_page_runs(page: str, tmp_path: Path, monkeypatch) -> None:
    """Word for word, on a small XL in place of Stable Diffusion 1.5."""
    example = (ROOT / page).read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    pipe = tiny.sdxl()
    pipe.scheduler.register_to_config(prediction_type="epsilon")
    written(pipe, tmp_path / "v1-5.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example, page, "exec"), names)
    assert [str(concept) for concept in Erasure.load(Path("no-van-gogh.safetensors")).concepts] == ["van gogh -> art"]
    assert Path("after.png").exists() or names["picture"].size[0] > 0


@pytest.mark.usefixtures("small_families")
def test_an_sdxl_is_erased_from_on_the_command_line(tmp_path: Path, capsys) -> None:
    file = written(tiny.sdxl(), tmp_path / "sdxl.safetensors")
    out = tmp_path / "no-cat.safetensors"
    command = ["erase", "--model", str(file), "--concept", "cat -> dog", "--no-common", "--out", str(out)]
    assert main(command) == 0, capsys.readouterr().err
    assert "erases 'cat -> dog'" in capsys.readouterr().out and out.is_file()


@pytest.mark.usefixtures("small_families")
def test_how_an_sdxl_was_trained_is_told_by_marks(tmp_path: Path) -> None:
    marked = written(tiny.sdxl(), tmp_path / "v.safetensors", v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    model = load_checkpoint(marked)
    assert model.prediction_type == "v_prediction" and float(model.alphas_cumprod[-1]) == 0.0
    edm = written(tiny.sdxl(), tmp_path / "edm.safetensors", edm_mean=torch.zeros(1))
    with pytest.raises(UnsupportedModelError, match="edm.safetensors predicts as EDM does"):
        load_checkpoint(edm)


@pytest.mark.usefixtures("small_families")
def test_precision_and_folders(tmp_path: Path) -> None:
    pipe = tiny.sdxl()
    half = load_checkpoint(written(pipe, tmp_path / "one.safetensors"), torch.float16)
    assert {part.dtype for part in (half.pipe.unet, half.pipe.text_encoder, half.pipe.text_encoder_2)} == {torch.half}
    pipe.save_pretrained(tmp_path / "folder")
    model = load_checkpoint(tmp_path / "folder")
    expected = from_diffusers(pipe).encode_prompts(["a cat"]).context
    torch.testing.assert_close(model.encode_prompts(["a cat"]).context, expected, rtol=0, atol=1e-4)
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    (tmp_path / "folder" / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(UnsupportedModelError, match="is a FluxPipeline; a pipeline of Stable Diffusion 1.x, 2.x or XL"):
        load_checkpoint(tmp_path / "folder")


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in single_file(tiny.sdxl()).items()}


KEYS = (
    FIRST_CONV, "input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight", "time_embed.0.bias",
    "layers.0.mlp.fc1.weight", "resblocks.0.mlp.c_fc.weight", "text_projection", "encoder.conv_in.weight",
)  # fmt: skip
OTHERS = (torch.int8, torch.int64, torch.uint8, torch.bool)


@pytest.mark.usefixtures("small_families")
@pytest.mark.parametrize("end", KEYS)
def test_a_weight_that_is_missing_is_not_made_up(tensors, tmp_path: Path, end: str) -> None:
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(end)}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=r"are missing|no text encoder|without values|not a Stable Diff"):
        load_checkpoint(tmp_path / "one.safetensors")


@pytest.mark.usefixtures("small_families")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tensor_loads_or_is_refused(tensors, tmp_path: Path, data) -> None:
    """Nothing but a ``ValueError``, and never another shape or what is no floating point."""
    end, dtype = data.draw(st.sampled_from(KEYS)), data.draw(st.sampled_from([torch.float16, *OTHERS]))
    name = next(name for name in tensors if name.endswith(end))
    shape = data.draw(st.just(tuple(tensors[name].shape)) | st.lists(st.integers(0, 4), max_size=5).map(tuple))
    save_file({**tensors, name: torch.ones(shape).to(dtype)}, tmp_path / "one.safetensors")
    try:
        load_checkpoint(tmp_path / "one.safetensors").text_entries()
    except ValueError as error:
        assert len(str(error)) < 1000
    else:
        assert shape == tuple(tensors[name].shape) and dtype not in OTHERS


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64) | st.text('{}[]":,a1').map(lambda text: len(text).to_bytes(8, "little") + text.encode()))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="one.safetensors is not a"):
        load_checkpoint(tmp_path / "one.safetensors")


@pytest.mark.usefixtures("small_families")
def test_scaled_float8_is_refused(tensors, tmp_path: Path) -> None:
    save_file({**tensors, "scaled_fp8": torch.zeros(1)}, tmp_path / "one.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"one.safetensors is quantised \(scaled_fp8\)"):
        load_checkpoint(tmp_path / "one.safetensors")


def on_meta(family: Family):
    """A pipeline of the real size without memory for its weights."""
    kinds = {"text_encoder": transformers.CLIPTextModel, "text_encoder_2": transformers.CLIPTextModelWithProjection}
    parts = dict.fromkeys(kinds)
    with torch.device("meta"):
        for encoder in family.encoders:
            parts[encoder.part] = kinds[encoder.part](transformers.CLIPTextConfig(**encoder.config))
        unet = diffusers.UNet2DConditionModel(**family.unet)
        vae = diffusers.AutoencoderKL(**family.vae)
    return type("Parts", (), {**parts, "unet": unet, "vae": vae})


def of_zeros(family: Family, folder: Path):
    """In float16, as the file has them, so that the weights stay in it and take no memory."""
    whole = single_file(on_meta(family))
    write_sparse({name: tuple(tensor.shape) for name, tensor in whole.items()}, folder / "zeros.safetensors")
    return load_checkpoint(folder / "zeros.safetensors", torch.float16)


@pytest.mark.parametrize(
    "family",
    [
        SD_1,
        SD_2,
        pytest.param(SDXL, marks=pytest.mark.full),
        pytest.param(REFINER, marks=pytest.mark.full),
    ],
    ids=["SD 1", "SD 2", "SDXL", "refiner"],
)
def test_the_real_shapes_are_loaded(family: Family, tmp_path: Path) -> None:
    model = of_zeros(family, tmp_path)
    assert type(model.pipe).__name__ == family.pipeline
    assert model.context_dim == family.unet["cross_attention_dim"]
    entries = model.text_entries()
    layers, pooled, millions = {
        768: (32, False, 860), 1024: (32, False, 866), 2048: (140, True, 2567), 1280: (88, True, 2259)
    }[model.context_dim]  # fmt: skip
    assert len(entries["context"].weights) == layers and ("pooled" in entries) == pooled
    told = sum(weight.numel() for weight in model.pipe.unet.parameters()) / 1e6
    assert told == pytest.approx(millions, rel=0.01)
    pads = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
    if family is SD_2:
        pads["tokenizer"] = "!"
    for name, pad in pads.items():
        assert getattr(getattr(model.pipe, name, None), "pad_token", pad) == pad


@pytest.mark.full
def test_a_full_size_sdxl_is_edited_exactly(tmp_path: Path) -> None:
    """Random text encoders and layers that read them; the rest of the UNet stays zeros on the disk. Some 7 GB."""
    model = of_zeros(SDXL, tmp_path)
    pool = 0.02 * torch.randn(70_000_000, generator=torch.Generator().manual_seed(0))
    encoders = [model.pipe.text_encoder.float(), model.pipe.text_encoder_2.float()]
    read = [(n, w) for n, w in model.pipe.unet.named_parameters() if "attn2.to_" in n or "add_embedding" in n]
    with torch.no_grad():
        for name, weight in [*(pair for encoder in encoders for pair in encoder.named_parameters()), *read]:
            if weight.ndim == 2:
                weight.copy_(pool[: weight.numel()].view(weight.shape))
            elif "norm" in name and name.endswith("weight"):
                weight.fill_(1)
    erasure = rece(model, "cat -> dog")
    assert len(erasure.deltas) == 141 and {name: one.change.up.shape[0] for name, one in erasure.maps.items()} == {
        "context": 2048, "pooled": 1280
    }  # fmt: skip
    for name, entry in model.text_entries().items():
        change = erasure.maps[name].change
        for layer in [*entry.weights][:: max(1, len(entry.weights) // 4)]:
            expected = entry.part(entry.weights[layer]) @ change.up @ change.down
            found = erasure.deltas[layer].dense()
            assert (entry.part(found) - expected).norm() < 1e-5 * expected.norm() and bool(expected.any())
            assert entry.columns is None or not found[:, entry.columns[1] :].any()
