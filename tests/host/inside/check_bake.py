"""Baked checkpoints in ComfyUI: they load as the patched MODEL and CLIP, and as what its own Save Checkpoint writes."""

import gc

import comfy.model_management
import comfy.sd
import comfy.utils
import make_checkpoint
import pytest
import torch
from pack.erasure_core import Concept, Dense, Erasure, Origin, bake, rece
from pack.erasure_core.baking.open import open_checkpoint
from pack.nodes.comfy_host.model import ComfyModel, text_names, weight_keys
from pack.nodes.comfy_host.patches import _text_keys, apply_erasure
from pack.nodes.comfy_host.weights import stored

CPU = torch.device("cpu")
STEP = {"fp16": 2**-9, "bf16": 2**-6, "fp8_e4m3fn": 2**-2, "fp8_scaled": 2**-2}
"""The most by which numbers differ that were rounded in two ways, relative to them."""
SUBNORMAL = 2**-9  # the distance of the smallest numbers in float8_e4m3fn
CASES = [
    *(("sd15", dtype) for dtype in STEP), ("sdxl", "fp16"), ("sdxl_refiner", "fp16"),
]  # fmt: skip
LAYER = "text_model.encoder.layers.1."
OF_TEXT = (
    "self_attn.q_proj.weight", "self_attn.v_proj.bias", "self_attn.out_proj.weight", "mlp.fc1.weight", "mlp.fc2.bias",
)  # fmt: skip
ENCODERS = {
    "sd15": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2"),
    "sdxl_refiner": ("text_encoder",),
}  # fmt: skip


def load(path):
    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(path), te_model_options=make_checkpoint.SMALL_TEXT
        )
    return model, clip, vae


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tmp_path_factory):
    """What the checkpoint gives, the erasure, and the files of Save Checkpoint and of ``bake``."""
    family, dtype = request.param
    folder = tmp_path_factory.mktemp("bake")
    path, saved, baked = (folder / f"{name}.safetensors" for name in ("own", "saved", "baked"))
    make_checkpoint.make(family, path, dtype)
    model, clip, vae = load(path)
    with torch.inference_mode():
        erasure = rece(ComfyModel(model, clip), ["van gogh -> art", "cat"]) + of_text(path, family)
        edited = apply_erasure(model, clip, erasure)
        comfy.sd.save_checkpoint(str(saved), *edited, vae, metadata={"title": "x"})
    result = bake(erasure, path, baked)
    yield dtype, erasure, edited, saved, result
    comfy.model_management.unload_all_models()
    for one in folder.iterdir():
        one.unlink()
    gc.collect()


def of_text(path, family: str) -> Erasure:
    """Changes of the text encoders, as few-shot makes them."""
    checkpoint, draw = open_checkpoint(path), torch.Generator().manual_seed(2)
    deltas = {}
    for name in (f"{encoder}.{LAYER}{layer}" for encoder in ENCODERS[family] for layer in OF_TEXT):
        shape = checkpoint.places(name)[0].shape
        deltas[name] = Dense(torch.randn(shape, generator=draw) / 20)
    return Erasure(deltas, (Origin("few_shot", (Concept("owl"),), {}, "0" * 16),))


def merged(model, clip, erasure: Erasure) -> dict[str, torch.Tensor]:
    """The weights that an erasure changes, with the patches that they have."""
    unet = {name: key for name, key in weight_keys(model).items() if name in erasure.deltas}
    text = _text_keys(clip, [name for name in erasure.deltas if name not in unet])
    places = {name: (model, key) for name, key in unet.items()} | {
        name: (clip.patcher, key) for name, key in text.items()
    }
    assert set(places) == set(erasure.deltas)
    return {name: stored(patcher, key).merged(CPU) for name, (patcher, key) in places.items()}


@torch.inference_mode()
def test_it_loads_as_the_patched_model(case):
    dtype, erasure, edited, _, result = case
    expected = merged(*edited, erasure)
    model, clip, _ = load(result.path)
    actual = merged(model, clip, erasure)
    for name, weight in expected.items():
        step = STEP[dtype] if name.startswith("unet.") else max(STEP[dtype] if dtype == "bf16" else 0, 2**-9)
        close(actual[name], weight, step, name)
    assert set(text_names(model)) <= set(erasure.deltas)


@torch.inference_mode()
def test_save_checkpoint_writes_the_same(case):
    """After our nodes; it keeps scales by other names from 0.33 on, so both are read as models."""
    dtype, erasure, _, saved, result = case
    model, clip, _ = load(saved)
    expected = merged(model, clip, erasure)
    model, clip, _ = load(result.path)
    for name, weight in merged(model, clip, erasure).items():
        step = STEP[dtype] if name.startswith("unet.") else max(STEP[dtype] if dtype == "bf16" else 0, 2**-9)
        close(weight, expected[name], 2 * step, name)


def test_the_rest_is_left_alone(case):
    *_, result = case
    own = comfy.utils.load_torch_file(str(result.path.with_name("own.safetensors")))
    baked = comfy.utils.load_torch_file(str(result.path))
    assert list(own) == list(baked)
    changed = [name for name in own if not torch.equal(own[name].float(), baked[name].float())]
    assert 0 < len(changed) <= result.changed + sum("scale" in name for name in changed)


def close(actual: torch.Tensor, expected: torch.Tensor, step: float, name: str) -> None:
    """Within ``step`` of the numbers, and within the distance of the smallest that the type tells apart."""
    bound = step * (expected.abs() + expected.abs().max() / 8) + (SUBNORMAL if step > 0.1 else 0)
    assert bool(((actual - expected).abs() <= bound).all()), (
        f"{name}: {float(((actual - expected).abs() / bound).max())}"
    )
