"""Baking without diffusers: files of any type of numbers, what is refused, and how much memory it takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pure.any_tensors import save_file
from pure.fakes import LAYERS, FakeModel

from erasure_core import Concept, Dense, Erasure, LowRank, Origin, bake, load_checkpoint, rece
from erasure_core.baking.places import open_clip
from erasure_core.baking.stored_weights import EIGHT_BITS, StoredWeight, stochastic
from erasure_core.erasures.baked import baked_erasures, carried_by
from erasure_core.erasures.original_names import attention_in_diffusers, original
from erasure_core.files.tensor_file import open_tensor_file

FILE_KEYS = {
    "unet.down_blocks.0.attentions.0.": "model.diffusion_model.input_blocks.1.1.",
    "unet.mid_block.attentions.0.": "model.diffusion_model.middle_block.1.",
}
KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def in_file(name: str) -> str:
    (first,) = [one for one in FILE_KEYS if name.startswith(one)]
    return FILE_KEYS[first] + name.removeprefix(first)


def written(path: Path, model: FakeModel, dtype: torch.dtype = torch.float32, **more: torch.Tensor) -> Path:
    """A checkpoint with the weights of the model, and one more in each type that is no weight of a model."""
    weights = {in_file(name): weight.to(dtype) for name, weight in model.weights.items()}
    others = {"ids": torch.arange(3), "flag": torch.tensor([True]), "vae.conv": torch.randn(3, 2, 1, 1), **more}
    save_file({**weights, **others}, path, {"format": "pt", "b": "2", "a": "1"})
    return path


@pytest.fixture
def erasure() -> Erasure:
    return rece(FakeModel(), "cat -> dog", preserve=["", "bird"])


def of(deltas: Mapping[str, torch.Tensor]) -> Erasure:
    return Erasure({name: Dense(one) for name, one in deltas.items()}, (Origin("test", (Concept("cat"),), {}, "0"),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_and_bytes(dtype: torch.dtype, tmp_path: Path) -> None:
    model = FakeModel()
    model.weights = {name: weight.to(dtype).float() for name, weight in model.weights.items()}
    erasure, path = rece(model, "cat -> dog"), written(tmp_path / "model.safetensors", model, dtype)
    result = bake(erasure, path, tmp_path / "baked.safetensors", strength=0.5)
    own, baked = open_tensor_file(path), open_tensor_file(result.path)
    assert list(baked.entries.items()) == list(own.entries.items()) and result.changed == len(LAYERS)
    assert result.weights == "its own"
    for name, delta in erasure.deltas.items():
        exact = own.read(in_file(name)).double() + 0.5 * delta.dense().double()
        step = torch.finfo(dtype).eps
        torch.testing.assert_close(baked.read(in_file(name)).double(), exact, rtol=step, atol=1e-6)
    for key in ("ids", "flag", "vae.conv"):
        assert raw(baked, key) == raw(own, key)
    (listed,) = baked_erasures(baked.metadata)
    assert listed.strength == 0.5 and [str(one) for one in listed.origins[0].concepts] == ["cat -> dog"]
    assert {**baked.metadata, **own.metadata} == baked.metadata


def raw(file, key: str) -> bytes:
    entry = file.entries[key]
    ends = [one.start for one in file.entries.values() if one.start > entry.start]
    first = file.header_size + entry.start
    return file.path.read_bytes()[first : file.header_size + min(ends, default=file.data_size)]


def test_a_second_erasure_is_added_and_the_first_is_not_twice(tmp_path: Path, erasure: Erasure) -> None:
    path = written(tmp_path / "model.safetensors", FakeModel())
    once = bake(erasure, path, tmp_path / "once.safetensors").path
    with pytest.raises(ValueError, match="has this erasure of 'cat -> dog' already"):
        bake(erasure, once, tmp_path / "twice.safetensors")
    with pytest.raises(ValueError, match="already"):
        bake(rece(FakeModel(), "cat -> bird"), once, tmp_path / "twice.safetensors")
    both = bake(rece(FakeModel(), "bird"), once, tmp_path / "both.safetensors").path
    names = [str(one.origins[0].concepts[0]) for one in baked_erasures(open_tensor_file(both).metadata)]
    assert names == ["cat -> dog", "bird"]
    carried = carried_by([both, both])
    assert [str(one.concepts[0]) for one in carried] == names
    assert not any(one.deltas for one in carried) and carried_by([path]) == ()


def test_what_is_in_part_of_other_weights_is_said(tmp_path: Path, erasure: Erasure) -> None:
    path = written(tmp_path / "model.safetensors", FakeModel())
    whole = bake(erasure + rece(FakeModel(), "bird"), path, tmp_path / "whole.safetensors")
    part = bake(erasure + rece(FakeModel(seed=1), "bird"), path, tmp_path / "part.safetensors")
    assert (whole.weights, whole.note, part.weights) == ("its own", "", "in part its own")
    assert "part of the erasure was computed on other weights, or on top of the rest of it" in part.note


@pytest.mark.parametrize("stop", range(4))
def test_a_cancel_leaves_nothing(stop: int, tmp_path: Path, erasure: Erasure) -> None:
    path = written(tmp_path / "model.safetensors", FakeModel())
    count = iter(range(100))

    def cancel(done: int, total: int, what: str) -> None:
        assert 0 <= done <= total
        if next(count) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bake(erasure, path, tmp_path / "new.safetensors", callback=cancel)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_replaced_unless_asked(tmp_path: Path, erasure: Erasure) -> None:
    path, out = written(tmp_path / "model.safetensors", FakeModel()), tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="already there"):
        bake(erasure, path, out)
    assert out.read_bytes() == b"mine"
    bake(erasure, path, out, overwrite=True)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        bake(erasure, path, path, overwrite=True)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="a checkpoint is saved as .safetensors, got 'new.ckpt'"):
        bake(erasure, path, tmp_path / "new.ckpt")


def nf4(path: Path) -> Path:
    model = FakeModel()
    model.weights.pop(next(iter(LAYERS)))
    quantised = {KEY: torch.zeros(144, 1, dtype=torch.uint8), f"{KEY}.absmax": torch.ones(5)}
    return written(path, model, **quantised)


def mxfp8(path: Path) -> Path:
    scale = {KEY.replace(".weight", ".weight_scale"): torch.ones(12, 3, dtype=torch.uint8)}
    return written(path, FakeModel(), torch.float8_e4m3fn, **scale)


def other_shape(path: Path) -> Path:
    return written(path, FakeModel(width=12))


def unlike(path: Path) -> Path:
    save_file({"x": torch.ones(2)}, path)
    return path


def no_file(path: Path) -> Path:
    path.write_bytes(b"nothing")
    return path


def gguf(path: Path) -> Path:
    path.with_suffix(".gguf").write_bytes(b"GGUF")
    return path.with_suffix(".gguf")


def pickled(path: Path) -> Path:
    path.with_suffix(".ckpt").write_bytes(b"\x80")
    return path.with_suffix(".ckpt")


def an_erasure(path: Path) -> Path:
    return rece(FakeModel(), "cat").save(path)


def missing(path: Path) -> Path:
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (nf4, "is quantised: it keeps .* in U8 .as NF4 of bitsandbytes.*bake into the model as it was before"),
        (mxfp8, "in blocks with 36 scales"),
        (other_shape, r"24 wide, the model reads it as context 12 wide"),
        (unlike, "which model.safetensors does not have; it was made for another kind of model"),
        (no_file, "model.safetensors is not a readable safetensors file"),
        (gguf, "GGUF.*bake into the .safetensors that it was made of.*Apply Erasure"),
        (pickled, "is a pickle"),
        (an_erasure, "holds an erasure, not a model"),
        (missing, r"there is no model at .*; give a diffusers folder or a .safetensors file$"),
    ],
)
def test_what_cannot_be_baked(make, sentence: str, tmp_path: Path, erasure: Erasure) -> None:
    path = make(tmp_path / "model.safetensors")
    before = sorted(tmp_path.iterdir())
    with pytest.raises((ValueError, OSError), match=sentence):
        bake(erasure, path, tmp_path / "new.safetensors")
    assert sorted(tmp_path.iterdir()) == before


def test_a_change_of_another_shape(tmp_path: Path) -> None:
    path = written(tmp_path / "model.safetensors", FakeModel())
    with pytest.raises(ValueError, match=r"changes .* as \(3, 3\), in model.safetensors that is \(12, 24\)"):
        bake(of({next(iter(LAYERS)): torch.ones(3, 3)}), path, tmp_path / "new.safetensors")


def test_the_embedded_model_is_no_file(erasure: Erasure, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="toy, the embedded model, is no file; give .* writes .* as a folder"):
        bake(erasure, "toy", tmp_path / "new.safetensors")


def test_what_looks_like_the_id_of_a_hub(erasure: Erasure, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing is downloaded here.*hf download"):
        bake(erasure, "stabilityai/sdxl-turbo", tmp_path / "new.safetensors")
    with pytest.raises(FileNotFoundError, match="hf download stabilityai/sdxl-turbo --local-dir sdxl-turbo.* and give"):
        load_checkpoint("stabilityai/sdxl-turbo")
    with pytest.raises(
        FileNotFoundError, match="give a diffusers folder or a .safetensors file, or on the command line"
    ):
        load_checkpoint(tmp_path / "nothing")


def test_values_out_of_range(tmp_path: Path) -> None:
    path = written(tmp_path / "model.safetensors", FakeModel(), torch.float16)
    name = next(iter(LAYERS))
    large = of({name: torch.full((12, 24), 7e4)})
    with pytest.raises(ValueError, match="out of the range of float16; bake into the model in a wider precision"):
        bake(large, path, tmp_path / "new.safetensors")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("scales", [(), (1,), (12,), (12, 1)])
def test_a_scale_grows_with_its_weight(scales: tuple[int, ...], tmp_path: Path) -> None:
    """One number or one for each row; it stays where all values still fit."""
    numbers = torch.randn(12, 24).clamp(-2, 2) * 200
    scale_key = KEY.replace(".weight", ".weight_scale")
    model = FakeModel()
    model.weights.pop(next(iter(LAYERS)))
    more = {KEY: numbers.to(torch.float8_e4m3fn), scale_key: torch.full(scales, 0.01)}
    path = written(tmp_path / "model.safetensors", model, **more)
    own = StoredWeight(open_tensor_file(path), KEY).value()
    torch.testing.assert_close(own, 0.01 * more[KEY].float())
    for factor, grows in ((1e-3, False), (3.0, True)):
        change = factor * torch.randn(12, 24)
        out = bake(of({next(iter(LAYERS)): change}), path, tmp_path / f"{factor}.safetensors").path
        file = open_tensor_file(out)
        scale = file.read(scale_key)
        assert scale.shape == scales and bool((scale > 0.01).all()) == grows and bool((scale == 0.01).all()) != grows
        baked = StoredWeight(file, KEY).value()
        bound = own.abs().maximum((own + change).abs()) / 7 + float(scale.max()) * 2**-9
        assert bool(((baked - own - change).abs() <= bound).all())


def values_of(dtype: torch.dtype) -> torch.Tensor:
    """Every number of a type of 8 bits."""
    every = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype).float()
    return every[every.isfinite()]


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_rounding_by_chance_leaves_what_fits(dtype: torch.dtype) -> None:
    values = values_of(dtype)
    assert torch.equal(stochastic(values, dtype, torch.Generator().manual_seed(0)).float(), values)


@pytest.mark.parametrize("dtype", EIGHT_BITS)
@given(value=st.floats(-400, 400, width=32))
def test_rounding_by_chance_gives_neighbours_right_on_average(dtype: torch.dtype, value: float) -> None:
    every = values_of(dtype)
    low, high = float(every[every <= value].max()), float(every[every >= value].min())
    rounded = stochastic(torch.full((4000,), value), dtype, torch.Generator().manual_seed(1)).double()
    assert set(rounded.tolist()) <= {low, high}
    assert abs(float(rounded.mean()) - value) <= 0.05 * (high - low)


def test_thirds_of_open_clip() -> None:
    assert open_clip("encoder.layers.3.self_attn.k_proj.bias") == ("transformer.resblocks.3.attn.in_proj_bias", 1)
    assert open_clip("encoder.layers.3.self_attn.out_proj.weight") == (
        "transformer.resblocks.3.attn.out_proj.weight",
        None,
    )
    assert open_clip("final_layer_norm.bias") == ("ln_final.bias", None)


@pytest.mark.parametrize("blocks", [2, 3])
def test_names_of_attentions_and_back(blocks: int) -> None:
    for side in ("down", "up"):
        for level in range(4):
            for index in range(blocks):
                name = f"{side}_blocks.{level}.attentions.{index}.proj_in.weight"
                assert attention_in_diffusers(original(name, blocks), blocks) == name
    assert attention_in_diffusers("middle_block.1.norm.bias", blocks) == "mid_block.attentions.0.norm.bias"
    assert attention_in_diffusers("input_blocks.1.0.emb_layers.1.weight", blocks) is None


def test_factors_and_whole_changes(tmp_path: Path) -> None:
    path = written(tmp_path / "model.safetensors", FakeModel())
    name = next(iter(LAYERS))
    up, down = torch.randn(12, 3), torch.randn(3, 24)
    origin = (Origin("test", (Concept("cat"),), {}, "0"),)
    one = bake(Erasure({name: LowRank(up, down)}, origin), path, tmp_path / "low.safetensors").path
    two = bake(Erasure({name: Dense(up @ down)}, origin), path, tmp_path / "dense.safetensors").path
    assert one.read_bytes() == two.read_bytes()
