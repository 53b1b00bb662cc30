"""Pipelines as users have them: compiled, fused, offloaded, quantised; each is edited rightly or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import accelerate
import pytest
import torch
from torch import nn
from toy import tiny
from toy.test_families import bits, learned

from erasure_core import Erasure, UnsupportedModelError, from_diffusers, rece
from erasure_core.methods.few_shot import FewShotSettings, few_shot
from erasure_core.methods.rece import ReceSettings
from erasure_core.sampling.ddim import generate

VALUES = "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


def compiled(pipe) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    pipe.text_encoder = torch.compile(pipe.text_encoder, backend="eager")
    pipe.text_encoder_2 = torch.compile(pipe.text_encoder_2, backend="eager")


def compiled_in_place(pipe) -> None:
    pipe.unet.compile(backend="eager")
    pipe.text_encoder.compile(backend="eager")


def a_block_compiled(pipe) -> None:
    pipe.unet.mid_block = torch.compile(pipe.unet.mid_block, backend="eager")
    pipe.unet.up_blocks[0] = torch.compile(pipe.unet.up_blocks[0], backend="eager")


def fused(pipe) -> None:
    pipe.fuse_qkv_projections()


def fused_and_unfused(pipe) -> None:
    pipe.fuse_qkv_projections()
    pipe.unfuse_qkv_projections()


def fused_and_compiled(pipe) -> None:
    fused(pipe)
    compiled(pipe)


def offloaded(pipe) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def offloaded_by_layer(pipe) -> None:
    """As ``enable_sequential_cpu_offload`` does it; that itself asks for a numbered device, which the CPU is not."""
    for part in ("unet", "text_encoder", "text_encoder_2", "vae"):
        accelerate.cpu_offload(getattr(pipe, part), torch.device("cpu"))


def fused_and_offloaded_by_layer(pipe) -> None:
    fused(pipe)
    offloaded_by_layer(pipe)


WAYS = [
    compiled, compiled_in_place, a_block_compiled, fused, fused_and_unfused, fused_and_compiled, offloaded,
    offloaded_by_layer, fused_and_offloaded_by_layer,
]  # fmt: skip
BY_LAYER = (offloaded_by_layer, fused_and_offloaded_by_layer)


@pytest.fixture(scope="module")
def plain():
    return from_diffusers(tiny.sdxl())


@pytest.fixture(scope="module")
def no_cat(plain) -> Erasure:
    return rece(plain, "cat -> dog", ReceSettings(loops=1), preserve=["a house"])


@pytest.fixture(scope="module")
def pictures(plain, no_cat) -> tuple[torch.Tensor, torch.Tensor]:
    """Before and after."""
    before = generate(plain, ["a cat"], [1], steps=2)
    with no_cat.applied_to(plain):
        return before, generate(plain, ["a cat"], [1], steps=2)


def close(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-4)


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request) -> Callable:
    torch._dynamo.reset()
    return request.param


def test_an_erasure_of_it_is_that_of_the_plain_model(way: Callable, no_cat: Erasure, tmp_path) -> None:
    pipe = tiny.sdxl()
    way(pipe)
    found = rece(from_diffusers(pipe), "cat -> dog", ReceSettings(loops=1), preserve=["a house"])
    assert set(found.deltas) == set(no_cat.deltas) and found.origins == no_cat.origins
    for name, delta in no_cat.deltas.items():
        close(found.deltas[name].dense(), delta.dense())
    assert set(Erasure.load(found.save(tmp_path / "a.safetensors")).deltas) == set(no_cat.deltas)


def test_it_is_erased_from_and_comes_back(way: Callable, no_cat: Erasure, pictures) -> None:
    pipe, (before, after) = tiny.sdxl(), pictures
    way(pipe)
    model, kept = from_diffusers(pipe), None if way in BY_LAYER else bits(pipe)
    close(generate(model, ["a cat"], [1], steps=2), before)
    with no_cat.applied_to(model):
        close(generate(model, ["a cat"], [1], steps=2), after)
        own = pipe("a cat", num_inference_steps=2, guidance_scale=1.0, output_type="pt", generator=seeded()).images
    restored = pipe("a cat", num_inference_steps=2, guidance_scale=1.0, output_type="pt", generator=seeded()).images
    assert (own - restored).abs().max() > 1e-3, "what the pipeline itself draws has changed too"
    close(generate(model, ["a cat"], [1], steps=2), before)
    assert kept is None or bits(pipe) == kept


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_view_of_it_is_erased(way: Callable, no_cat: Erasure, pictures) -> None:
    pipe = tiny.sdxl()
    way(pipe)
    model = from_diffusers(pipe)
    if way in BY_LAYER:
        with pytest.raises(UnsupportedModelError, match=r"layer by layer.*pipe.enable_model_cpu_offload\(\)"):
            no_cat.over(model)
        return
    close(generate(no_cat.over(model), ["a cat"], [1], steps=2), pictures[1])
    close(generate(model, ["a cat"], [1], steps=2), pictures[0])


@pytest.mark.parametrize("way", [compiled, fused, offloaded])
def test_it_is_trained_as_the_plain_model(plain, way: Callable) -> None:
    pipe = tiny.sdxl()
    way(pipe)
    torch.manual_seed(0)
    found = learned(from_diffusers(pipe), "abo", seed=3)
    torch.manual_seed(0)
    expected = learned(plain, "abo", seed=3)
    assert set(found.deltas) == set(expected.deltas)
    for name, delta in expected.deltas.items():
        torch.testing.assert_close(found.deltas[name].dense(), delta.dense(), rtol=0.05, atol=5e-4)


class Int8Params(nn.Parameter):
    """As bitsandbytes keeps eight bits."""

    def __new__(cls, values: torch.Tensor):
        return torch.Tensor._make_subclass(cls, values, False)


class Linear8bitLt(nn.Linear):
    """A linear layer that computes in its own way."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) / 2


def linear(layer: nn.Module) -> nn.Module:
    return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)


def eight_bits(layer: nn.Module) -> nn.Module:
    layer.weight = Int8Params((layer.weight.detach() * 100).to(torch.int8))
    return layer


def packed(layer: nn.Module) -> nn.Module:
    layer.weight = nn.Parameter(torch.zeros(layer.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
    return layer


def float_subclass(layer: nn.Module) -> nn.Module:
    """torchao's and GGUF's tensors say that they are of floating point."""
    layer.weight = Int8Params(layer.weight.detach())
    return layer


def float8(layer: nn.Module) -> nn.Module:
    return layer.to(torch.float8_e4m3fn)


def own_forward(layer: nn.Module) -> nn.Module:
    return Linear8bitLt(layer.in_features, layer.out_features, bias=layer.bias is not None)


def not_linear(layer: nn.Module) -> nn.Module:
    """As HQQ and GPTQ, which have no ``weight`` at all."""
    return type("HQQLinear", (nn.Module,), {})()


def another_shape(layer: nn.Module) -> nn.Module:
    layer.weight = nn.Parameter(layer.weight.detach().reshape(1, -1))
    return layer


def lazily_loaded(layer: nn.Module) -> nn.Module:
    return layer.to("meta")


def parametrised(layer: nn.Module) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(layer)


REFUSED = {
    eight_bits: r"attn2.to_v.weight is stored as Int8Params of torch.int8, .*unquantised",
    packed: r"attn2.to_v.weight is stored as Parameter of torch.uint8, .*unquantised",
    float_subclass: r"attn2.to_v.weight is stored as Int8Params of torch.float32, .*unquantised",
    float8: r"attn2.to_v.weight is stored as Parameter of torch.float8_e4m3fn, .*unquantised",
    own_forward: r"attn2.to_v is a \w+ Linear8bitLt, not a plain linear layer; .*unquantised",
    not_linear: r"attn2.to_v is a \w+ HQQLinear, not a plain linear layer",
    another_shape: r"attn2.to_v.weight is stored as \(1, 1280\) where its layer has \(32, 40\)",
    lazily_loaded: r"attn2.to_v.weight is on the meta device",
    parametrised: r"attn2.to_v is a torch ParametrizedLinear, not a plain linear layer",
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_what_cannot_be_edited_is_refused(change: Callable, no_cat: Erasure) -> None:
    """Before it is read, and when it came to be so after the model was adapted."""
    pipe = tiny.sdxl()
    model, attention = from_diffusers(pipe), pipe.unet.get_submodule(VALUES.rpartition(".")[0])
    attention.to_v = change(attention.to_v)
    with pytest.raises(UnsupportedModelError, match=REFUSED[change]):
        from_diffusers(pipe)
    with pytest.raises(UnsupportedModelError, match=REFUSED[change]), no_cat.applied_to(model):
        raise AssertionError("it was applied")
    with pytest.raises(UnsupportedModelError, match=REFUSED[change]):
        rece(model, "cat -> dog", ReceSettings(loops=1), preserve=["a house"])


def test_a_quantised_text_encoder_is_refused() -> None:
    pipe = tiny.sdxl()
    encoder = pipe.text_encoder_2
    layer = next(module for name, module in encoder.named_modules() if name.endswith("mlp.fc1"))
    eight_bits(layer)
    with pytest.raises(UnsupportedModelError, match=r"text_encoder_2\..*mlp.fc1.weight is stored as Int8Params"):
        from_diffusers(pipe)


def test_groups_that_are_offloaded_are_refused() -> None:
    pipe = tiny.sdxl()
    pipe.unet.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(UnsupportedModelError, match="the unet is offloaded in groups"):
        from_diffusers(pipe)


class PassingBy:
    """An attention processor that has values of its own, as one that fuses in another way."""

    def __init__(self, attention: nn.Module):
        self.own = attention.to_v.weight.detach().clone()

    def __call__(self, attention, hidden_states, encoder_hidden_states=None, **_):
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        values = text @ self.own.T
        return attention.to_out[0](values.mean(1, keepdim=True).expand(-1, hidden_states.shape[1], -1))


def test_a_layer_that_does_not_compute_is_told_and_all_is_restored(no_cat: Erasure) -> None:
    pipe = tiny.sdxl()
    model, before = from_diffusers(pipe), bits(pipe)
    for name, module in pipe.unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(PassingBy(module))
    told = pytest.raises(UnsupportedModelError, match="was changed, but the model does not compute with it")
    with told, no_cat.applied_to(model):
        raise AssertionError("it was applied")
    assert bits(pipe) == before
    with told:
        no_cat.over(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strength", [1e-6, 0.01, 1.0, 30.0])
def test_the_proof_holds_for_every_change_and_precision(no_cat: Erasure, dtype, strength: float) -> None:
    pipe = tiny.sdxl().to(dtype)
    model = from_diffusers(pipe)
    with no_cat.scaled(strength).applied_to(model):
        pass
    if dtype != torch.float16:
        no_cat.scaled(strength).over(model)


def test_changes_of_the_text_encoders_are_proven(plain) -> None:
    erasure = few_shot(plain, "cat", FewShotSettings(steps=1, learning_rate=1e-2), images=None)
    pipe = tiny.sdxl()
    model = from_diffusers(pipe)
    with erasure.applied_to(model):
        pass
    encoder = pipe.text_encoder_2
    for name, module in encoder.named_modules():
        if name.endswith(("fc1", "fc2", "_proj")):
            module.register_forward_hook(lambda layer, given, output: torch.zeros_like(output))
    with pytest.raises(UnsupportedModelError, match="does not compute with it"), erasure.applied_to(model):
        raise AssertionError("it was applied")


def test_a_pipeline_with_loras_on_the_unet_is_edited() -> None:
    peft = pytest.importorskip("peft")
    pipe = tiny.plain()
    lora = peft.LoraConfig(r=2, target_modules=["to_k", "to_v"], init_lora_weights=False)
    peft.inject_adapter_in_model(lora, pipe.unet)
    model = from_diffusers(pipe)
    erasure = rece(model, "cat")
    with torch.no_grad():
        inputs = torch.randn(1, 4, 8, 8), torch.tensor([5]), model.encode_prompts(["a cat"])
        before = model.predict_noise(*inputs)
        with erasure.applied_to(model):
            assert not torch.allclose(model.predict_noise(*inputs), before)
        assert torch.equal(model.predict_noise(*inputs), before)


def test_an_erasure_is_applied_to_a_view_as_to_the_model(plain) -> None:
    first = rece(plain, "cat")
    view = first.over(plain)
    second = rece(view, "dog")
    seed, prompt = [0], ["a dog"]
    before, both = generate(view, prompt, seed, steps=2), generate(second.over(view), prompt, seed, steps=2)
    with second.applied_to(view):
        inside = generate(view, prompt, seed, steps=2)
    assert torch.equal(inside, both) and not torch.equal(inside, before)
    assert torch.equal(generate(view, prompt, seed, steps=2), before)


def test_the_pipeline_of_a_view_does_not_draw(plain) -> None:
    view = rece(plain, "cat").over(plain)
    assert view.pipe.unet is plain.pipe.unet and copy.copy(view.pipe).unet is plain.pipe.unet
    with pytest.raises(
        UnsupportedModelError, match=r"its pipe has the weights without the erasure; draw with generate"
    ):
        view.pipe("a cat")
