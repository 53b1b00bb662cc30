"""The modules of a diffusers pipeline and their weights, some with stand-ins in their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..model import UnsupportedModelError

ENCODERS = ("text_encoder", "text_encoder_2")
PARTS = ("unet", *ENCODERS)
NEST = "text_model."


class Parts:
    """Weights by names as diffusers and LoRA files have them, with the part in front; nothing is written.

    Newer transformers have no ``text_model.`` in the names of a text encoder's weights; here it is always there.
    """

    def __init__(self, pipe, stand_ins: Mapping[str, Tensor] | None = None):
        self.pipe = pipe
        self.stand_ins = dict(stand_ins or {})
        self.encoders = tuple(part for part in ENCODERS if getattr(pipe, part, None) is not None)

    def weights(self, part: str) -> dict[str, nn.Parameter]:
        """All weights of a part, as they are stored. Raises ``UnsupportedModelError`` for LoRAs that are not fused."""
        self.check_no_loras()
        module = getattr(self.pipe, part)
        nest = NEST if part in ENCODERS and not hasattr(module, "text_model") else ""
        return {f"{part}.{nest}{name}": weight for name, weight in module.named_parameters()}

    def replaced(self, weights: Mapping[str, Tensor]) -> Parts:
        """The same with more stand-ins."""
        for name in weights:
            owner, leaf = self._place(name)
            if getattr(owner, leaf).dtype == torch.float16:
                raise UnsupportedModelError("training in float16 gives NaN; load the model in float32 or bfloat16")
        self.check_no_loras()
        return Parts(self.pipe, {**self.stand_ins, **weights})

    def has_stand_ins(self, part: str) -> bool:
        return any(name.startswith(f"{part}.") for name in self.stand_ins)

    def call(self, part: str, *arguments, **named):
        """The part with its stand-ins, differentiable in these; its own weights get and keep nothing for gradients."""
        module, ours = getattr(self.pipe, part), self._ours(part)
        if torch.is_grad_enabled():
            ours = {**{name: weight.detach() for name, weight in module.named_parameters()}, **ours}
        return functional_call(module, ours, arguments, named) if ours else module(*arguments, **named)

    def check_no_loras(self) -> None:
        for part in ("unet", *self.encoders):
            if any(hasattr(module, "lora_A") for module in getattr(self.pipe, part).modules()):
                raise UnsupportedModelError(
                    f"the {part} has LoRAs on it, which cannot be trained through; call pipe.fuse_lora() and then "
                    "pipe.unload_lora_weights()"
                )

    @contextmanager
    def patched(self, deltas: Mapping[str, Tensor]) -> Iterator[None]:
        """Stand-in parameters take the places of the named weights; the originals come back untouched."""
        places = {name: self._place(name) for name in deltas}
        originals = {name: getattr(owner, leaf) for name, (owner, leaf) in places.items()}
        try:
            for name, (owner, leaf) in places.items():
                weight, delta = originals[name], deltas[name]
                if delta.shape != weight.shape:
                    shapes = tuple(delta.shape), tuple(weight.shape)
                    raise ValueError("the erasure changes a weight of shape {}, the model has {}".format(*shapes))
                changed = weight.detach().float() + delta.to(weight.device, torch.float32)
                setattr(owner, leaf, nn.Parameter(changed.to(weight.dtype), requires_grad=False))
            yield
        finally:
            for name, (owner, leaf) in places.items():
                setattr(owner, leaf, originals[name])

    def _ours(self, part: str) -> dict[str, Tensor]:
        """Stand-ins for the weights of a part, by the names that it has for them, as it stores its own."""
        found = {}
        for name, tensor in self.stand_ins.items():
            if name.startswith(f"{part}."):
                owner, leaf = self._place(name)
                weight = getattr(owner, leaf)
                found[self._path(name)] = tensor.to(weight.device, weight.dtype)
        return found

    def _place(self, name: str) -> tuple[nn.Module, str]:
        part = name.partition(".")[0]
        module, _, leaf = self._path(name).rpartition(".")
        try:
            if part not in PARTS:
                raise AttributeError(part)
            owner = getattr(self.pipe, part).get_submodule(module)
            owner = getattr(owner, "base_layer", owner)
            getattr(owner, leaf)
        except AttributeError:
            raise ValueError(f"the erasure changes {name}, which the model does not have") from None
        return owner, leaf

    def _path(self, name: str) -> str:
        """A weight's name within its part."""
        part, _, path = name.partition(".")
        if path.startswith(NEST) and not hasattr(getattr(self.pipe, part, None), "text_model"):
            return path.removeprefix(NEST)
        return path


def merged(module: nn.Module) -> Tensor:
    """A linear layer's weight in at least float32, with the LoRAs that PEFT has put on it."""
    base = getattr(module, "base_layer", module)
    weight = base.weight.detach()
    weight = weight if weight.dtype == torch.float64 else weight.float()
    for adapter in getattr(module, "active_adapters", ()):
        if base is not module and not module.merged and adapter in module.lora_A:
            weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
    return weight
