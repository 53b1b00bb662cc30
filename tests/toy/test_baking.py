"""Checkpoints with an erasure in their weights: every family, layout and precision, in one file or a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pure.any_tensors import KINDS, save_file
from safetensors import safe_open
from toy import tiny
from toy.single_file import single_file, write_sparse
from toy.test_checkpoints import SMALL
from transformers import CLIPTextConfig, CLIPTextModel

from erasure_core import Concept, Dense, Erasure, LowRank, Origin, bake, from_diffusers, rece
from erasure_core.closed_form.already_erased import ErasedAlreadyError
from erasure_core.diffusers.checkpoint import load_checkpoint
from erasure_core.diffusers.model import DiffusersModel
from erasure_core.erasures.baked import BAKED, baked_erasures
from erasure_core.families.unets import FAMILIES
from erasure_core.model import entry_weights, fingerprint

METADATA = {"format": "pt", "modelspec.title": "a model", "modelspec.hash_sha256": "0x12", "sshs_model_hash": "12"}
STEP = {torch.float32: 2**-22, torch.float16: 2**-10, torch.bfloat16: 2**-7}
"""The distance of neighbours, relative to them, with room for rounding twice."""


def open_clip():
    """SD 2.x: its text encoder is named as in OpenCLIP."""
    pipe = tiny.plain()
    config = {**tiny.text_config(**tiny.TEXT), "hidden_act": "gelu"}
    pipe.text_encoder = CLIPTextModel(CLIPTextConfig(**config)).eval()
    return pipe


def convolved():
    """SD 1.x: what leads into and out of an attention is a convolution."""
    return tiny.plain(use_linear_projection=False)


FAMILY = {"1": convolved, "2": open_clip, "xl": tiny.sdxl, "refiner": tiny.refiner}


def everything(model: DiffusersModel) -> Erasure:
    """Every weight of the UNet and of the text encoders changes, matrices by two factors, all else as a whole."""
    draw = torch.Generator().manual_seed(0)
    deltas = {}
    for scope in ("unet", "text_encoder"):
        for name, weight in model.weights_of(scope).items():
            if weight.ndim == 2:
                factors = torch.randn(len(weight), 2, generator=draw), torch.randn(2, weight.shape[1], generator=draw)
                deltas[name] = LowRank(*(factor / 10 for factor in factors))
            else:
                deltas[name] = Dense(torch.randn(weight.shape, generator=draw) / 10)
    return Erasure(deltas, (Origin("test", (Concept("cat"),), {}, fingerprint(entry_weights(model))),))


def changed(pipe, erasure: Erasure):
    """The pipeline with the changes in its own weights, which is what a baked checkpoint has to be."""
    model = from_diffusers(pipe)
    with torch.no_grad():
        for name, delta in erasure.deltas.items():
            slot = model._parts.slot(name)
            slot.value.copy_((slot.value.double() + delta.dense().double()).to(slot.value.dtype))
    return pipe


def cast(tensors: dict, dtype: torch.dtype) -> dict:
    return {name: weight.to(dtype) if weight.is_floating_point() else weight for name, weight in tensors.items()}


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def header_of(path: Path) -> dict:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


@pytest.mark.parametrize("dtype", STEP)
@pytest.mark.parametrize("family", FAMILY)
def test_a_file_has_the_weights_of_the_model_with_the_erasure(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Every weight by its name in the file, thirds of OpenCLIP's attention and its transposed projection too."""
    path = tmp_path / "model.safetensors"
    erasure = everything(from_diffusers(FAMILY[family]()))
    save_file(cast(single_file(FAMILY[family]()), dtype), path, METADATA)
    before = path.read_bytes()
    result = bake(erasure, path, tmp_path / "baked.safetensors")
    assert path.read_bytes() == before
    assert result.weights == ("another" if dtype == torch.bfloat16 else "its own"), "bfloat16 is another fingerprint"
    expected = single_file(changed(FAMILY[family](), erasure))
    own, baked = tensors_of(path), tensors_of(result.path)
    assert list(own) == list(baked)
    for name, weight in baked.items():
        assert weight.dtype == own[name].dtype
        if name.startswith("first_stage_model.") or not weight.is_floating_point():
            assert torch.equal(weight, own[name]), name
        else:
            assert not torch.equal(weight, own[name]), name
            torch.testing.assert_close(weight.float(), expected[name], rtol=STEP[dtype], atol=2 * STEP[dtype])
    own_header, header = header_of(path), header_of(result.path)
    assert own_header.pop("__metadata__") == METADATA
    metadata = header.pop("__metadata__")
    assert header == own_header and list(header) == list(own_header)
    assert {key: metadata[key] for key in ("format", "modelspec.title")} == {
        "format": "pt",
        "modelspec.title": "a model",
    }
    assert set(metadata) == {"format", "modelspec.title", BAKED}
    assert baked_erasures(metadata)[0].origins == erasure.origins
    assert result.rounding < {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}[dtype]


@pytest.mark.parametrize("name", ["small", "small_xl", "small_refiner"])
def test_a_baked_file_is_loaded_as_any_checkpoint(name: str, tmp_path: Path, monkeypatch) -> None:
    """Its text reads as that of the patched model, to the last bit of float32."""
    for key, family in SMALL.items():
        monkeypatch.setitem(FAMILIES, key, family)
    pipe = {"small": tiny.plain, "small_xl": tiny.sdxl, "small_refiner": tiny.refiner}[name]()
    path = tmp_path / "model.safetensors"
    save_file(single_file(pipe), path)
    model = load_checkpoint(path)
    erasure = rece(model, ["cat -> dog", "van gogh"])
    result = bake(erasure, path, tmp_path / "baked.safetensors")
    assert result.changed == len(erasure.deltas) and result.rounding < 1e-4
    baked = load_checkpoint(result.path)
    with erasure.applied_to(model):
        patched = {name: weight.clone() for name, weight in model.weights_of("unet").items()}
    for name, weight in baked.weights_of("unet").items():
        torch.testing.assert_close(weight, patched[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [None, "scale_weight", "weight_scale"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits(scale: str | None, dtype: torch.dtype, tmp_path: Path) -> None:
    """Each number becomes a neighbour of the right one, and the changes stay right where they act."""
    pipe = tiny.sdxl()
    path, tensors = tmp_path / "model.safetensors", {}
    for name, weight in single_file(pipe).items():
        linear = name.startswith("model.diffusion_model.") and weight.ndim == 2
        factor = weight.abs().max() / torch.finfo(dtype).max if scale and linear else torch.ones(())
        tensors[name] = (weight / factor).to(dtype if linear else torch.float16)
        if scale and linear:
            tensors[name.replace(".weight", f".{scale}")] = factor.reshape(())
    save_file(tensors, path)
    assert KINDS[dtype] in {entry["dtype"] for entry in header_of(path).values()}
    erasure = rece(from_diffusers(pipe), "cat -> dog")
    result = bake(erasure, path, tmp_path / "baked.safetensors")
    baked = tensors_of(result.path)
    for name, weight in tensors.items():
        read = name.endswith(tuple(f"{layer}.weight" for layer in ("attn2.to_k", "attn2.to_v", "label_emb.0.0")))
        if "scale" not in name:
            assert torch.equal(baked[name].float(), weight.float()) != read, name
    assert result.changed == len(erasure.deltas) == 17
    assert 0.001 < result.rounding < (0.2 if dtype == torch.float8_e5m2 else 0.1)
    again = bake(erasure, path, tmp_path / "again.safetensors")
    assert again.path.read_bytes() == result.path.read_bytes()


def test_a_folder(tmp_path: Path) -> None:
    pipe = tiny.sdxl()
    folder = tmp_path / "sdxl"
    pipe.save_pretrained(folder, max_shard_size="100KB")
    pipe.save_pretrained(folder, variant="fp16")
    for name in ("unet/diffusion_pytorch_model.bin", "sdxl.safetensors", "sdxl.ckpt"):
        (folder / name).write_bytes(b"the weights as they were")
    (folder / "README.md").write_text("a model")
    (folder / "onnx").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    model = load_checkpoint(folder)
    erasure = everything(model)
    steps: list[tuple[int, int]] = []
    result = bake(erasure, folder, tmp_path / "new", callback=lambda done, total, _: steps.append((done, total)))
    assert all(path.read_bytes() == content for path, content in before.items())
    assert set(result.left_out) == {"unet/diffusion_pytorch_model.bin", "sdxl.safetensors", "sdxl.ckpt", "onnx"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "sdxl"]
    files = {path.relative_to(folder) for path in before} - {Path(name) for name in result.left_out}
    assert {path.relative_to(result.path) for path in result.path.rglob("*") if path.is_file()} == files
    for path in files:
        same = (result.path / path).read_bytes() == before[folder / path]
        assert same == (path.suffix != ".safetensors" or path.parent.name == "vae"), path
    new = load_checkpoint(result.path)
    with erasure.applied_to(model):
        patched = {scope: dict(model.weights_of(scope)) for scope in ("unet", "text_encoder")}
    for scope, weights in patched.items():
        for name, weight in new.weights_of(scope).items():
            torch.testing.assert_close(weight, weights[name], rtol=1e-6, atol=1e-7)
    assert all(done <= total for done, total in steps) and steps[-1][0] > 0.9 * steps[-1][1]


def test_what_is_baked_in_is_not_erased_again(tmp_path: Path) -> None:
    """Past its target, a concept would come back."""
    source, target = tmp_path / "whole", tmp_path / "baked"
    tiny.plain().save_pretrained(source)
    model = load_checkpoint(source)
    erasure = rece(model, "cat -> dog")
    bake(erasure, source, target)
    baked = load_checkpoint(target)
    assert model.erasures == () and [one.origins for one in baked.erasures] == [erasure.origins]
    for again in ("cat -> dog", "cat"):
        with pytest.raises(ErasedAlreadyError, match="'cat.*' is erased from this model already"):
            rece(baked, again)
    with pytest.raises(ValueError, match="has an erasure of 'cat -> dog' already"), erasure.applied_to(baked):
        pass
    assert rece(baked, "lion").deltas


def test_another_checkpoint(tmp_path: Path) -> None:
    """A closed form is formed anew for it; what was trained is added as it is."""
    path = tmp_path / "model.safetensors"
    other = tiny.sdxl()
    with torch.no_grad():
        for weight in other.unet.parameters():
            weight.mul_(1.5)
    save_file(single_file(other), path)
    erasure = rece(from_diffusers(tiny.sdxl()), "cat -> dog")
    result = bake(erasure, path, tmp_path / "baked.safetensors")
    assert result.weights == "rebased"
    direct = bake(erasure.rebased_on(from_diffusers(other)), path, tmp_path / "direct.safetensors")
    assert direct.weights == "its own"
    one, two = tensors_of(result.path), tensors_of(direct.path)
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], rtol=1e-6, atol=1e-6)
    trained = everything(from_diffusers(tiny.sdxl()))
    assert bake(trained, path, tmp_path / "trained.safetensors").weights == "another"


@pytest.mark.parametrize("stop", [0, 3, 9])
def test_a_cancel_leaves_no_folder(stop: int, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.plain().save_pretrained(folder)
    erasure = rece(load_checkpoint(folder), "cat -> dog")
    count = iter(range(100))

    def cancel(*_) -> None:
        if next(count) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bake(erasure, folder, tmp_path / "new", callback=cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def broken_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def pickled(folder: Path) -> None:
    for path in (folder / "unet").glob("*.safetensors"):
        shutil.move(path, path.with_suffix(".bin"))


@pytest.mark.parametrize(("spoil", "sentence"), [(broken_index, "not a diffusers folder"), (pickled, "no weights in")])
def test_folders_that_cannot_be_baked(spoil: Callable, sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.plain().save_pretrained(folder)
    erasure = rece(load_checkpoint(folder), "cat -> dog")
    spoil(folder)
    with pytest.raises(ValueError, match=sentence):
        bake(erasure, folder, tmp_path / "new")


def test_no_folder_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.plain().save_pretrained(folder)
    erasure = rece(load_checkpoint(folder), "cat -> dog")
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError, match="no folder is replaced"):
        bake(erasure, folder, tmp_path / "new", overwrite=True)


SCRIPT = """
import resource, sys
import torch
from erasure_core import Concept, Erasure, LowRank, Origin, bake
keys = {f"unet.up_blocks.{n}.attentions.0.transformer_blocks.0.attn2.to_k.weight": LowRank(
    torch.ones(1024, 2), torch.ones(2, 2048)) for n in range(4)}
erasure = Erasure(keys, (Origin("test", (Concept("cat"),), {}, "0"),))
bake(Erasure(dict(list(keys.items())[:1]), erasure.origins), sys.argv[1], sys.argv[2] + "small.safetensors")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bake(erasure, sys.argv[3], sys.argv[2] + "large.safetensors")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_that_of_one_tensor(tmp_path: Path) -> None:
    """A file of 120 MB takes what one of 4 MB takes."""
    shape = (1024, 2048)
    cross = [f"model.diffusion_model.output_blocks.{3 * n}.1.transformer_blocks.0.attn2.to_k.weight" for n in range(4)]
    write_sparse({cross[0]: shape}, tmp_path / "one.safetensors")
    write_sparse({**{key: shape for key in cross}, "rest": (25, *shape)}, tmp_path / "many.safetensors")
    command = [sys.executable, "-c", SCRIPT, "one.safetensors", "", "many.safetensors"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    kilobytes = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert int(kilobytes.stdout) < 40_000
    assert (tmp_path / "large.safetensors").stat().st_size > 100e6
