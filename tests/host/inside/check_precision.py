"""Checkpoints in every precision: the weights that are read, what rounding leaves of an erasure, what is said of it."""

import dataclasses
import gc
import logging

import comfy.model_management
import comfy.sd
import comfy.utils
import make_checkpoint
import pytest
import torch
from pack.erasure_core import Concept, Dense, Erasure, Origin, rece
from pack.erasure_core.model import entry_weights
from pack.nodes.comfy_host.model import ComfyModel, unet_keys
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.precision import SAMPLED, rounding_error, spread
from pack.nodes.comfy_host.trainable_model import trainable
from pack.nodes.comfy_host.weights import stored
from record import record

CPU = torch.device("cpu")
LAYER = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
NAME = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
ROUNDING = {
    "fp32": (0, 1e-6),
    "fp16": (1e-5, 1e-3),
    "bf16": (1e-4, 1e-2),
    "fp8_e4m3fn": (1e-2, 1e-1),
    "fp8_scaled": (1e-2, 1e-1),
}
"""Within what the error of a whole erasure lies."""


@pytest.fixture(scope="module", params=ROUNDING)
def loaded(request, tmp_path_factory):
    """The precision, MODEL and CLIP, and the weights of one layer as the file has them."""
    precision = request.param
    path = tmp_path_factory.mktemp(precision) / "sd15.safetensors"
    make_checkpoint.make("sd15", path, precision)
    file = comfy.utils.load_torch_file(str(path))
    own = file["model." + LAYER + ".weight"].float() * file.get("model." + LAYER + ".scale_weight", 1)
    del file
    dtype = {} if precision == "fp8_scaled" else {"dtype": make_checkpoint.DTYPES[precision]}
    options = {"te_model_options": make_checkpoint.SMALL_TEXT, "model_options": dtype}
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(path), **options)
    path.unlink()
    yield precision, model, clip, own
    comfy.model_management.unload_all_models()
    gc.collect()


@pytest.fixture(autouse=True)
def inference():
    """Nodes run so."""
    with torch.inference_mode():
        yield


def test_weights_are_read_exactly(loaded):
    precision, model, clip, own = loaded
    weight = entry_weights(ComfyModel(model, clip))[NAME]
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, own, rtol=1e-6, atol=0)
    names = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp8_e4m3fn": "float8_e4m3fn"}
    assert stored(model, LAYER + ".weight").precision == names.get(precision, "float8_e4m3fn, scaled")


def test_what_rounding_leaves_is_what_is_told(loaded, caplog):
    """The weights with which the host samples, against the exact ones."""
    precision, model, clip, _ = loaded
    erasure = rece(ComfyModel(model, clip), "van gogh -> art", preserve=["", "monet"])
    with caplog.at_level(logging.INFO):
        edited, _ = apply_erasure(model, clip, erasure)
    keys = unet_keys(model)
    changes = {keys[name]: delta for name, delta in erasure.deltas.items()}
    told = rounding_error(edited, changes, 1.0)
    assert told == pytest.approx(by_hand(edited, changes), rel=0.1, abs=1e-7)
    least, most = ROUNDING[precision]
    assert least <= told <= most
    few = rounding_error(edited, {key: changes[key] for key in spread(sorted(changes), SAMPLED)}, 1.0)
    assert few == pytest.approx(told, rel=0.2, abs=1e-7) and f"loses {few:.2%} of the change" in caplog.text
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING if few > 0.1 else logging.INFO]
    record("sd15", model, closed_form=True, rounding=told)


def by_hand(edited, changes) -> float:
    """The relative error of the weights that are in memory for sampling, over the directions that were changed."""
    exact = {key: stored(edited, key).merged(CPU) for key in changes}
    comfy.model_management.load_models_gpu([edited])
    live = {key: in_memory(edited, key) for key in changes}
    comfy.model_management.unload_all_models()
    lost = whole = 0.0
    for key, delta in changes.items():
        directions = torch.linalg.svd(delta.down, full_matrices=False).Vh
        lost += float(((live[key] - exact[key]) @ directions.T).square().sum())
        whole += float((delta.dense() @ directions.T).square().sum())
    return (lost / whole) ** 0.5


def in_memory(patcher, key: str) -> torch.Tensor:
    weight = stored(patcher, key)
    return dataclasses.replace(weight, weight=weight.layer.weight, patches=()).merged(CPU)


def test_an_edit_that_the_precision_eats_is_warned_about(loaded, caplog):
    precision, model, clip, own = loaded
    slight = own.abs().mean() / 500
    erasure = made({NAME: Dense(torch.full_like(own, slight))})
    apply_erasure(model, clip, erasure)
    warned = "MODEL is stored in" in caplog.text and "the erasure is not exact" in caplog.text
    assert warned == (precision in ("bf16", "fp8_e4m3fn", "fp8_scaled"))


def test_training_predicts_what_sampling_predicts(loaded):
    """With the model's weights as normal tensors in the places of its own, scaled or not."""
    precision, model, clip, _ = loaded
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    sigma = model.model.model_sampling.sigma(torch.tensor([400.0])).reshape(1)
    with torch.inference_mode(False), torch.no_grad(), trainable(model, clip) as seen:
        text = seen.encode_prompts(["a cat"])
        scaled = (noise / (sigma**2 + 1) ** 0.5).clone()
        predicted = seen.predict_noise(scaled, torch.tensor([400]), text)
    clean = model.model.apply_model(noise, sigma, c_crossattn=text.context)
    torch.testing.assert_close((noise - clean) / sigma, predicted, rtol=1e-3, atol=2e-3)


def made(deltas) -> Erasure:
    return Erasure(deltas, (Origin("test", (Concept("cat"),), {}, "0" * 16),))
