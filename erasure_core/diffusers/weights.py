"""The modules of a diffusers pipeline and their weights, some with stand-ins in their places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..devices import on_cpu
from ..model import UnsupportedModelError
from .detection import encoders_of
from .proof import can_be_proven, prove_held, prove_replaced
from .unsupported import check_weights
from .weight_slots import Slot, bring_in, find, is_offloaded_by_layer, stored, weights_in, whole

NEST = "text_model."


class Parts:
    """Weights by names as diffusers and LoRA files have them, with the part in front; nothing is written.

    Newer transformers have no ``text_model.`` in the names of a text encoder's weights; here it is always there. What
    ``torch.compile`` puts into a name is never there.
    """

    def __init__(self, pipe, stand_ins: Mapping[str, Tensor] | None = None):
        """``stand_ins`` are used in place of weights of ``pipe``, by the weights' names."""
        self.pipe = pipe
        self.stand_ins = dict(stand_ins or {})
        self.encoders = encoders_of(pipe)

    def module(self, part: str) -> nn.Module:
        """Return a part of the pipeline by its name there, without the wrapper of ``torch.compile``."""
        return whole(getattr(self.pipe, part))

    def check(self) -> None:
        """Raise ``UnsupportedModelError`` unless all weights can be read and edited."""
        for part in ("unet", *self.encoders):
            check_weights(part, self.module(part))

    def weights(self, part: str) -> dict[str, Tensor]:
        """Return all weights of a part, which is ``unet`` or a text encoder, by name, in the precision that they have.

        Raises ``UnsupportedModelError`` for LoRAs that are not fused, and for weights that cannot be read.
        """
        self.check_no_loras()
        self.check()
        module = self.module(part)
        nest = NEST if part in self.encoders and not hasattr(module, "text_model") else ""
        return {f"{part}.{nest}{path}": find(module, path).value for path in weights_in(module)}

    def slot(self, name: str) -> Slot:
        """Return where the weight called ``name`` is kept. Raises ``ValueError`` if the model has none of that name."""
        part = name.partition(".")[0]
        try:
            if part not in ("unet", *self.encoders):
                raise AttributeError(part)
            return find(self.module(part), self._path(name))
        except AttributeError:
            raise ValueError(f"the erasure changes {name}, which the model does not have") from None

    def replaced(self, weights: Mapping[str, Tensor]) -> Parts:
        """Return the same with ``weights`` as further stand-ins, by name.

        Raises ``UnsupportedModelError`` for a model in float16, with LoRAs, or offloaded layer by layer, and where a
        stand-in turns out not to compute. Raises ``ValueError`` for a name that the model does not have.
        """
        self.check()
        slots = {name: self.slot(name) for name in weights}
        if any(slot.value.dtype == torch.float16 for slot in slots.values()):
            raise UnsupportedModelError("training in float16 gives NaN; load the model in float32 or bfloat16")
        self.check_no_loras()
        for part in {name.partition(".")[0] for name in weights}:
            if is_offloaded_by_layer(self.module(part)):
                raise UnsupportedModelError(
                    f"the {part} is offloaded layer by layer, which cannot be trained through; use "
                    "pipe.enable_model_cpu_offload() in place of pipe.enable_sequential_cpu_offload()"
                )
        more = Parts(self.pipe, {**self.stand_ins, **weights})
        provable = [name for name, slot in slots.items() if can_be_proven(slot)]
        if provable:
            name = max(provable, key=lambda name: slots[name].attention is not None)
            prove_replaced(name, slots[name], more._by_path(name.partition(".")[0], [name]))
        return more

    def has_stand_ins(self, part: str) -> bool:
        """Return whether weights of ``part`` have stand-ins."""
        return any(name.startswith(f"{part}.") for name in self.stand_ins)

    def call(self, part: str, *arguments, **named):
        """Call a part of the pipeline with its stand-ins, and with ``arguments`` and ``named`` as they are.

        The output is differentiable in the stand-ins; the pipeline's own weights get no gradients.
        """
        if self.has_stand_ins(part):
            bring_in(self.module(part))
        module, weights = self.module(part), self._by_path(part, self.stand_ins)
        if torch.is_grad_enabled() and not is_offloaded_by_layer(module):
            weights = {**{path: weight.detach() for path, weight in module.named_parameters()}, **weights}
        if not weights:
            return getattr(self.pipe, part)(*arguments, **named)
        return functional_call(module, weights, arguments, named)

    def final_norm(self, part: str, hidden: Tensor) -> Tensor:
        """Return the final norm of a text encoder, with its stand-ins, of hidden states ``[n, tokens, d]``."""
        module = self.module(part)
        path = f"{NEST if hasattr(module, 'text_model') else ''}final_layer_norm"
        own = {name: weight.detach() for name, weight in module.get_submodule(path).named_parameters()}
        ours = self._by_path(part, [name for name in self.stand_ins if ".final_layer_norm." in name])
        weights = own | {name.removeprefix(f"{path}."): one for name, one in ours.items()}
        return functional_call(module.get_submodule(path), weights, (hidden,))

    def check_no_loras(self) -> None:
        """Raise ``UnsupportedModelError`` for a part with LoRAs on it that are not fused."""
        for part in ("unet", *self.encoders):
            if any(hasattr(module, "lora_A") for module in self.module(part).modules()):
                raise UnsupportedModelError(
                    f"the {part} has LoRAs on it, which cannot be trained through; call pipe.fuse_lora() and then "
                    "pipe.unload_lora_weights()"
                )

    @contextmanager
    def patched(self, deltas: Mapping[str, Tensor]) -> Iterator[None]:
        """Add changes to weights inside a ``with`` block; the originals come back untouched after it.

        ``deltas`` are the changes by the weights' names, of the weights' shapes. Raises ``ValueError`` for another
        shape or name, and ``UnsupportedModelError`` where the layer that is changed most turns out not to compute.
        """
        self.check()
        slots = {name: self.slot(name) for name in deltas}
        provable, sizes = [], []
        with ExitStack() as stack:
            for name, slot in slots.items():
                old, delta = slot.value.detach(), deltas[name]
                if delta.shape != old.shape:
                    shapes = tuple(delta.shape), tuple(old.shape)
                    raise ValueError("the erasure changes a weight of shape {}, the model has {}".format(*shapes))
                if name in self.stand_ins:
                    stack.enter_context(self._stood_in(name, delta))
                    continue
                new = (old.float() + delta.to(old.device, torch.float32)).to(old.dtype)
                stack.enter_context(slot.holding(new))
                if can_be_proven(slot):
                    provable.append((name, slot, old))
                    sizes += [delta.norm().float(), old.float().norm()]
            moved = [float(one) for one in on_cpu(sizes)]
            shares = [change / (1e-12 + size) for change, size in zip(moved[::2], moved[1::2], strict=True)]
            most = max((share for share in shares if share > 0), default=None)
            if most is not None:
                prove_held(*provable[shares.index(most)])
            yield

    @contextmanager
    def _stood_in(self, name: str, delta: Tensor) -> Iterator[None]:
        """Add a change to the stand-in of a weight inside a ``with`` block."""
        before = self.stand_ins[name]
        self.stand_ins[name] = before + delta.to(before)
        try:
            yield
        finally:
            self.stand_ins[name] = before

    def _by_path(self, part: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the stand-ins for the weights of a part by their paths, in the form in which it stores its own."""
        weights: dict[str, Tensor] = {}
        for name in names:
            if not name.startswith(f"{part}."):
                continue
            slot = self.slot(name)
            weights[slot.path] = self.stand_ins[name].to(slot.value.device, slot.value.dtype)
            if slot.fused:
                own = stored(getattr(slot.attention, slot.fused), slot.leaf).detach()
                weights[slot.fused_path] = slot.within(weights.get(slot.fused_path, own), weights[slot.path])
        return weights

    def _path(self, name: str) -> str:
        """Return the path of the weight called ``name`` within its part."""
        part, _, path = name.partition(".")
        module = getattr(self.pipe, part, None)
        if path.startswith(NEST) and not (module is not None and hasattr(whole(module), "text_model")):
            return path.removeprefix(NEST)
        return path


def merged(root: nn.Module, path: str) -> Tensor:
    """Return the weight of a linear layer, merged with the LoRAs that PEFT has put on it.

    ``path`` is the layer's within ``root``, a part of a pipeline. The result is in float64 if the weight is stored so,
    otherwise in float32. Raises ``AttributeError`` where there is no such layer.
    """
    weight = find(root, f"{path}.weight").value.detach()
    weight = weight if weight.dtype == torch.float64 else weight.float()
    module: Any = whole(root)  # its last layer may be one of PEFT's
    for atom in path.split("."):
        module = whole(getattr(module, atom))
    for adapter in getattr(module, "active_adapters", ()):
        if hasattr(module, "base_layer") and not module.merged and adapter in module.lora_A:
            weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
    return weight
