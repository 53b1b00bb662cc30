"""Random checkpoints of every family through the stock loader: what is edited, what is saved, what is seen.

FAMILIES names some of them (all without it), FULL=1 makes them in full size. What holds is told to ``record``.
"""

import gc
import hashlib
import logging
import math
import os
from functools import lru_cache

import comfy.model_management
import comfy.sd
import comfy.utils
import make_checkpoint
import pytest
import torch
from pack.erasure_core import Concept, Dense, Erasure, LowRank, Origin, rece
from pack.erasure_core.closed_form.align import aligned_rows
from pack.erasure_core.methods.rece import ReceSettings
from pack.erasure_core.model import CONTEXT, POOLED, entry_weights, fingerprint
from pack.nodes.comfy_host.model import ComfyModel
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.trainable_model import TrainableComfyModel
from pack.nodes.rece import ErasureRECE
from record import record, settle, status
from safetensors.torch import save_file

FULL = os.environ.get("FULL") == "1"
FAMILIES = os.environ.get("FAMILIES", ",".join(make_checkpoint.FAMILIES)).split(",")
NODE = {
    "concepts": "van gogh -> art", "preserve": "monet\na lion", "preserve_common": False, "preset": "custom",
    "loops": 1, "regularization": 0.1, "erase_scale": 1.0, "preserve_scale": 0.1, "ridge": 0.1, "amplification": 1.0,
    "strength": 1.0,
}  # fmt: skip
MOST_MEGABYTES, MOST_TO_LOAD = 1500, 20 * 1024**3 / 1e6
MILLIONS = {
    "sd15": 1066, "sd15_inpainting": 1066, "sd15_instruct": 1066, "sd21": 1304, "sdxl": 3469, "sdxl_refiner": 3038
}  # fmt: skip
TEXT_LAYER = "text_model.encoder.layers.0.mlp.fc1"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def loaded(family, tmp_path_factory):
    """MODEL and CLIP; that nothing wrote into them is checked at the end."""
    folder = tmp_path_factory.mktemp(family)
    path = folder / f"{family}.safetensors"
    make_checkpoint.make(family, path, small="" if FULL else "all")
    options = {} if FULL else {"te_model_options": make_checkpoint.SMALL_TEXT}
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=str(folder), **options)
    path.unlink()
    before = digest(model.model, clip.cond_stage_model)
    yield model, clip
    comfy.model_management.unload_all_models()
    assert digest(model.model, clip.cond_stage_model) == before
    del model, clip
    gc.collect()


@pytest.fixture(autouse=True)
def inference():
    """Nodes run so."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def erased(loaded):
    """What the node gives: MODEL, CLIP and the erasure."""
    return measured(loaded)[0]


@lru_cache(maxsize=1)
def measured(loaded):
    """What the node gives, and the peak of memory meanwhile, in megabytes beyond what was in use before."""
    with torch.inference_mode():
        encoded(loaded[1], "pages of the file that are read for the first time")
        before = settle()
        return ErasureRECE.execute(*loaded, **NODE).result[:3], status("VmHWM") - before


def digest(*modules) -> str:
    """Of a part of every weight."""
    hashed = hashlib.sha256()
    for module in modules:
        for weight in module.state_dict().values():
            hashed.update(weight.flatten()[:4096].view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def weights(model, clip) -> dict[str, torch.Tensor]:
    return entry_weights(ComfyModel(model, clip))


def encoded(clip, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As the stock "CLIP Text Encode" gives it to the sampler."""
    return clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)


def test_full_size_is_that_of_the_published_checkpoints(family):
    shapes = make_checkpoint.shapes_of(make_checkpoint.FAMILIES[family], "").values()
    assert round(sum(map(math.prod, shapes)) / 1e6) == MILLIONS[family]


def test_the_stock_loader_knows_the_family(family, loaded):
    expected = make_checkpoint.FAMILIES[family]
    model, _ = loaded
    assert type(model.model.model_config).__name__ == expected.kind
    prediction = "v_prediction" if expected.v_prediction else "epsilon"
    seen = TrainableComfyModel.__new__(TrainableComfyModel)  # without text encoders: the refiner cannot be trained
    seen.model = model
    assert seen.prediction_type == prediction
    assert status("VmHWM") < MOST_TO_LOAD


def test_weights_change_by_what_the_erasure_says(family, loaded, erased):
    seen, erasure = ComfyModel(*loaded), erased[2]
    before, after = entry_weights(seen), weights(*erased[:2])
    assert set(erasure.deltas) == set(before) == set(after)
    for name, delta in erasure.deltas.items():
        torch.testing.assert_close(after[name], before[name] + delta.dense(), rtol=0, atol=1e-5)
        assert delta.dense().any()
    assert fingerprint(before) == erasure.origins[0].fingerprint
    record(family, loaded[0], closed_form=True)


def test_memory(family, loaded):
    """Beyond the model, in a process in which nothing was erased before when FAMILIES names one."""
    megabytes = measured(loaded)[1]
    assert megabytes < MOST_MEGABYTES
    record(family, loaded[0], megabytes=round(megabytes))


def test_memory_of_many(family, loaded):
    """In full size so many that the change has full rank."""
    measured(loaded)
    before = settle()
    names = [f"{adjective} {noun}" for adjective in ("old", "red", "tall", "wet") for noun in "abcdefgh"]
    asked = NODE | {"concepts": "\n".join(names if FULL else names[:2])}
    erasure = ErasureRECE.execute(*loaded, **asked).result[2]
    megabytes = status("VmHWM") - before
    assert megabytes < MOST_MEGABYTES
    if FULL:
        assert erasure.maps[CONTEXT].change.rank == erasure.maps[CONTEXT].change.up.shape[0]
        record(family, loaded[0], megabytes_of_many=round(megabytes))


def test_the_concept_becomes_its_replacement(loaded, erased):
    """In every layer, on the rows that the edit is about: nearer by default, the same if nothing holds the weights."""
    model, clip = loaded
    seen = ComfyModel(model, clip)
    concept, instead = seen.text_rows(["van gogh", "art"])
    free = rece(seen, "van gogh -> art", ReceSettings(loops=0, ridge=1e-6, preserve_scale=1e-9))
    for erasure, most in ((erased[2], 0.9), (free, 0.05)):
        after = weights(*apply_erasure(model, clip, erasure))
        for name, entry in seen.text_entries().items():
            own, target = concept[name][0], instead[name][0]
            rows, wanted = aligned_rows(own.rows, target.rows, own.last_content, target.last_content)
            for layer, weight in entry.weights.items():
                old, new = entry.part(weight), entry.part(after[layer])
                distance = (rows @ new.T - wanted @ old.T).norm() / (rows @ old.T - wanted @ old.T).norm()
                assert distance < most, (layer, distance)


def test_the_file_in_the_stock_lora_loader(family, loaded, erased, tmp_path, caplog):
    model, clip = loaded
    direct = weights(*erased[:2])
    path = erased[2].save(tmp_path / "erasure.safetensors")
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    with caplog.at_level(logging.WARNING):
        stock = weights(*comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0))
    assert "not loaded" not in caplog.text
    for name, weight in direct.items():
        assert torch.equal(weight, stock[name]), name
    assert Erasure.load(path).origins[0].fingerprint == erased[2].origins[0].fingerprint
    record(family, model, saved_file=True)


def test_changes_of_the_text_encoders_in_the_stock_lora_loader(family, loaded, tmp_path, caplog):
    """As the few-shot method makes them: dense and low-rank, weights and biases, in every tower."""
    model, clip = loaded
    deltas = {}
    for tower, (_, width) in towers(clip).items():
        deltas[f"{tower}.{TEXT_LAYER}.weight"] = Dense(torch.randn(4 * width, width) / width)
        deltas[f"{tower}.{TEXT_LAYER}.bias"] = Dense(torch.randn(4 * width) / width)
        for projection in ("q_proj", "out_proj"):
            name = f"{tower}.text_model.encoder.layers.0.self_attn.{projection}.weight"
            deltas[name] = LowRank(torch.randn(width, 2), torch.randn(2, width) / width)
    erasure = Erasure(deltas, (Origin("test", (Concept("cat"),), {}, "0" * 16),))
    _, direct = apply_erasure(model, clip, erasure)
    path = erasure.save(tmp_path / "erasure.safetensors")
    assert set(Erasure.load(path).deltas) == set(deltas)
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    with caplog.at_level(logging.WARNING):
        _, stock = comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
    assert "not loaded" not in caplog.text
    assert set(direct.patcher.patches) == set(stock.patcher.patches) and len(direct.patcher.patches) == len(deltas)
    ours, theirs, own = (encoded(one, "a cat") for one in (direct, stock, clip))
    for one, other, plain in zip(ours, theirs, own, strict=True):
        assert torch.equal(one, other) and not torch.allclose(one, plain)
    record(family, model, text_encoders=True)


def towers(clip) -> dict[str, tuple[str, int]]:
    """CLIP's text encoders by diffusers' names: their names in ComfyUI, l before g, and their widths."""
    names = [name for name in ("clip_l", "clip_h", "clip_g") if hasattr(clip.cond_stage_model, name)]
    parts = [getattr(clip.cond_stage_model, name).transformer.text_model for name in names]
    widths = [part.embeddings.token_embedding.weight.shape[1] for part in parts]
    return dict(zip(("text_encoder", "text_encoder_2"), zip(names, widths, strict=True), strict=False))


def test_a_lora_before_is_seen(loaded, erased):
    """It changes what is computed, and an erasure of the patched model is not taken for one of the other."""
    model, clip = loaded
    before = entry_weights(ComfyModel(model, clip))
    name = next(iter(before))
    up, down = torch.randn(before[name].shape[0], 2), torch.randn(2, before[name].shape[1])
    key = "lora_" + name.removesuffix(".weight").replace(".", "_")
    tensors = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    patched, _ = comfy.sd.load_lora_for_models(model, clip, tensors, 0.5, 0.5)
    torch.testing.assert_close(weights(patched, clip)[name], before[name] + 0.5 * up @ down, rtol=0, atol=1e-5)
    on_top = rece(ComfyModel(patched, clip), "van gogh -> art", ReceSettings(loops=0))
    assert on_top.origins[0].fingerprint != erased[2].origins[0].fingerprint
    (edit,) = (one.change.dense() for one in on_top.maps.values() if name in one.names)
    change, expected, plain = on_top.deltas[name].dense(), weights(patched, clip)[name] @ edit, before[name] @ edit
    assert (change - expected).norm() < 1e-4 * expected.norm()
    assert (change - plain).norm() > 0.1 * plain.norm()


@pytest.mark.parametrize("how", ["as loaded", "clip skip", "a LoRA on the text encoder", "an embedding"])
def test_the_edited_context_is_the_one_that_sampling_uses(loaded, how, tmp_path, monkeypatch):
    model, clip = loaded
    prompt = "a painting by van gogh"
    plain, _ = encoded(clip, prompt)
    if how == "clip skip":
        clip = clip.clone()
        clip.clip_layer(-2 if "clip_l" in dict(towers(clip).values()) and len(towers(clip)) == 1 else -1)
    if how == "a LoRA on the text encoder":
        clip = with_lora(model, clip)
    if how == "an embedding":
        prompt = f"{prompt} embedding:swirl"
        add_embedding(clip, tmp_path, monkeypatch)
    context, pooled = encoded(clip, prompt)
    (rows,) = ComfyModel(model, clip).text_rows([prompt])
    assert torch.equal(rows[CONTEXT][0].rows, context[0])
    if POOLED in rows:
        assert torch.equal(rows[POOLED][0].rows, pooled)
    assert torch.equal(context, plain) == (how == "as loaded")


def with_lora(model, clip):
    """CLIP with a LoRA on one layer of its first tower, by the stock loader."""
    name, width = towers(clip)["text_encoder"]
    key = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors = {f"{key}.lora_up.weight": torch.randn(4 * width, 2), f"{key}.lora_down.weight": torch.randn(2, width)}
    return comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)[1]


def add_embedding(clip, folder, monkeypatch) -> None:
    """A textual inversion of two tokens, ``embedding:swirl``, for every tower."""
    found = towers(clip).values()
    tensors = {name: torch.randn(2, width) for name, width in found}
    save_file(tensors if len(found) > 1 else {"emb_params": next(iter(tensors.values()))}, folder / "swirl.safetensors")
    for name, _ in found:
        monkeypatch.setattr(getattr(clip.tokenizer, name), "embedding_directory", str(folder))
