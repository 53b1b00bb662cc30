"""Weights packed as ComfyUI-GGUF does it, with a stand-in for its classes; ``check_real_gguf`` has the pack itself."""

import comfy.ops
import comfy.sample
import comfy.sd
import comfy.utils
import pytest
import torch
from pack.erasure_core import Concept, Dense, Erasure, Origin, UnsupportedModelError, rece
from pack.erasure_core.model import entry_weights
from pack.nodes.comfy_host.model import ComfyModel
from pack.nodes.comfy_host.patches import apply_erasure
from pack.nodes.comfy_host.toy import load_toy
from pack.nodes.comfy_host.weights import stored

CPU = torch.device("cpu")
LAYER = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
NAME = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
BLOCK = 32


@pytest.fixture(autouse=True)
def inference():
    """Nodes run so."""
    with torch.inference_mode():
        yield


class PackedTensor(torch.Tensor):
    """Bytes, and the kind and shape that they stand for. Of itself it gives out no copy."""

    def __new__(cls, data, **_):
        return super().__new__(cls, data)

    def __init__(self, data, *, tensor_type, tensor_shape, patches=()):
        self.tensor_type, self.tensor_shape, self.patches = tensor_type, tensor_shape, patches

    shape = property(lambda self: self.tensor_shape)

    def detach(self):
        return self

    def clone(self):
        return self


class PackedLinear(comfy.ops.manual_cast.Linear):
    """Adds the weight's patches when it unpacks."""

    def get_weight(self, tensor, dtype):
        packed = tensor.data.as_subclass(torch.Tensor)
        scales, numbers = packed[:, :4].contiguous().view(torch.float32), packed[:, 4:].contiguous().view(torch.int8)
        weight = (scales * numbers).reshape(tensor.tensor_shape).to(dtype)
        return weight + sum(tensor.patches)


def packed(weight: torch.Tensor) -> PackedTensor:
    """Eight bits a number, a scale a block."""
    blocks = weight.float().reshape(-1, BLOCK)
    scales = blocks.abs().amax(1, keepdim=True) / 127
    numbers = (blocks / scales).round().to(torch.int8)
    data = torch.cat([scales.view(torch.uint8), numbers.view(torch.uint8)], 1)
    return PackedTensor(data, tensor_type="Q8_0", tensor_shape=weight.shape)


@pytest.fixture
def toy():
    """MODEL with one packed layer, CLIP, and that layer's weight before."""
    model, clip, _ = load_toy()
    layer = comfy.utils.get_attr(model.model, LAYER)
    own = layer.weight.detach().clone()
    layer.__class__ = PackedLinear
    layer.weight = torch.nn.Parameter(packed(own), requires_grad=False)
    return model, clip, own


def test_packed_weights_are_read_and_changed(toy):
    model, clip, own = toy
    weight = stored(model, LAYER + ".weight")
    assert weight.precision == "GGUF Q8_0" and weight.shape == tuple(own.shape)
    seen = ComfyModel(model, clip)
    read = entry_weights(seen)[NAME]
    assert type(read) is torch.Tensor and 0 < (read - own).norm() < 1e-2 * own.norm()
    erasure = rece(seen, "cat -> dog")
    edited, _ = apply_erasure(model, clip, erasure)
    change = erasure.deltas[NAME].dense()
    torch.testing.assert_close(entry_weights(ComfyModel(edited, clip))[NAME], read + change, rtol=0, atol=1e-5)


def test_what_a_loaded_clone_has_left_on_a_weight_is_not_the_models(toy):
    model, clip, own = toy
    read = entry_weights(ComfyModel(model, clip))[NAME]
    comfy.utils.get_attr(model.model, LAYER).weight.patches = [torch.ones_like(own)]
    assert torch.equal(entry_weights(ComfyModel(model, clip))[NAME], read)


def test_bytes_that_nobody_can_unpack_are_refused(toy):
    """As NF4 leaves them; when something is computed, and when an erasure is applied."""
    model, clip, own = toy
    layer = comfy.utils.get_attr(model.model, LAYER)
    layer.__class__ = comfy.ops.manual_cast.Linear
    layer.weight = torch.nn.Parameter(torch.zeros(own.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
    erasure = Erasure({NAME: Dense(torch.ones_like(own))}, (Origin("test", (Concept("cat"),), {}, "0" * 16),))
    for act in (
        lambda: rece(ComfyModel(model, clip), "cat"),
        lambda: apply_erasure(model, clip, erasure),
    ):
        with pytest.raises(UnsupportedModelError, match=r"MODEL is quantised .*to_k.weight is stored as uint8"):
            act()
