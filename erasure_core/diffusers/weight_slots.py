"""The place where a diffusers module keeps each weight: as it was made, compiled, fused, or offloaded by accelerate."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

COMPILED = "_orig_mod"
FUSED = ("to_kv", "to_qkv")


@dataclass(frozen=True)
class Slot:
    """A weight of a pipeline's part, and where it is kept."""

    path: str
    """How the part names the weight, with what compiling and LoRAs put into names."""
    owner: nn.Module
    """The layer that keeps it."""
    leaf: str
    """The owner's name for it: ``weight`` or ``bias``."""
    caller_path: str
    """The path of ``attention``, or of ``owner`` where there is none."""
    attention: nn.Module | None = None
    """What the layer belongs to, where it makes queries, keys or values."""
    fused: str = ""
    """The attention's name for the layer that ``fuse_qkv_projections`` has made of several, or ""."""
    rows: slice = field(default_factory=lambda: slice(None))
    """The rows of the fused layer that stand for this weight's."""

    @property
    def layer(self) -> nn.Module:
        """The module that computes with the weight."""
        return getattr(self.attention, self.fused) if self._computes_fused() else self.owner

    @property
    def value(self) -> Tensor:
        """The weight that computes, as it is stored."""
        return stored(self.layer, self.leaf)[self.rows] if self._computes_fused() else stored(self.owner, self.leaf)

    @property
    def fused_path(self) -> str:
        """How the part names the fused layer's weight."""
        return f"{self.caller_path}.{self.fused}.{self.leaf}"

    @contextmanager
    def holding(self, value: Tensor) -> Iterator[None]:
        """Put ``value`` in the weight's place inside a ``with`` block, and restore the original after it.

        ``value`` has the weight's shape; its precision and device become those of the weight.
        """
        with ExitStack() as stack:
            stack.enter_context(_held(self.owner, self.leaf, value))
            if self.fused:
                layer = getattr(self.attention, self.fused)
                several = self.within(stored(layer, self.leaf).detach(), value)
                stack.enter_context(_held(layer, self.leaf, several))
            yield

    def within(self, several: Tensor, value: Tensor) -> Tensor:
        """Return the fused layer's weight with ``value`` in the rows of this one; differentiable in both.

        ``several`` is the fused weight ``[out of all, in]``, and ``value`` the new one of this layer, ``[out, in]``.
        """
        return torch.cat([several[: self.rows.start], value.to(several), several[self.rows.stop :]])

    def _computes_fused(self) -> bool:
        """Return whether fused layers are in use; ``unfuse_qkv_projections`` leaves them in place although unused."""
        processor = getattr(self.attention, "processor", None)
        return bool(self.fused) and "Fused" in type(processor).__name__


def find(root: nn.Module, path: str) -> Slot:
    """Return the slot of the weight of ``root``, a part of a pipeline, that is called ``path``.

    ``path`` is without what compiling and LoRAs put into names. Raises ``AttributeError`` for a weight that is missing.
    """
    *atoms, leaf = path.split(".")
    modules, real = [whole(root)], []
    for atom in atoms:
        if not isinstance(module := getattr(modules[-1], atom), nn.Module):
            raise AttributeError(path)
        real.append(atom)
        for wrapper in (COMPILED, "base_layer"):
            while (inner := module._modules.get(wrapper)) is not None:
                module = inner
                real.append(wrapper)
        modules.append(module)
    stored(modules[-1], leaf)
    own = ".".join(real)
    if len(atoms) > 1 and atoms[-2] in ("attn1", "attn2") and atoms[-1] in ("to_q", "to_k", "to_v"):
        attention = modules[-2]
        fused, rows = _fused(attention, atoms[-1])
        caller = ".".join(real[: -1 - real[::-1].index(atoms[-1])])
        return Slot(f"{own}.{leaf}", modules[-1], leaf, caller, attention, fused, rows)
    return Slot(f"{own}.{leaf}", modules[-1], leaf, own)


def weights_in(root: nn.Module) -> Iterator[str]:
    """Yield the path of every weight of ``root``, as ``find`` takes it; for a fused layer those that it was made of."""
    for path, _ in whole(root).named_parameters():
        atoms = [atom for atom in path.split(".") if atom not in (COMPILED, "base_layer")]
        if len(atoms) < 2 or atoms[-2] not in FUSED:
            yield ".".join(atoms)


def whole(module: nn.Module) -> nn.Module:
    """Return the module that ``torch.compile`` has wrapped in ``module``, or ``module`` if it is not compiled."""
    while (inner := module._modules.get(COMPILED)) is not None:
        module = inner
    return module


def stored(module: nn.Module, leaf: str) -> Tensor:
    """Return the weight ``leaf`` of ``module``, or what accelerate keeps for it elsewhere until a call.

    Raises ``AttributeError`` for a name that the module does not have.
    """
    weight = getattr(module, leaf)
    hook = offloading(module)
    return hook.weights_map[leaf] if weight.is_meta and hook is not None else weight


def offloading(module: nn.Module):
    """Return the hook by which accelerate brings the weights of ``module`` in for each call, or ``None``."""
    return next((hook for hook in _hooks(module) if getattr(hook, "weights_map", None) is not None), None)


def is_offloaded_by_layer(module: nn.Module) -> bool:
    """Return whether accelerate brings in the weights of ``module`` layer by layer."""
    return any(offloading(one) is not None for one in whole(module).modules())


def device_of(module: nn.Module) -> torch.device:
    """Return the device on which ``module`` computes, also while its weights are stored elsewhere."""
    for one in whole(module).modules():
        for hook in _hooks(one):
            if getattr(hook, "execution_device", None) is not None:
                return torch.device(hook.execution_device)
    return next(whole(module).parameters()).device


def bring_in(module: nn.Module) -> None:
    """Let accelerate move ``module`` to the device on which it computes, as a call of it would."""
    for hook in _hooks(whole(module)):
        hook.pre_forward(whole(module))


def _hooks(module: nn.Module) -> tuple:
    hook = getattr(module, "_hf_hook", None)
    return tuple(getattr(hook, "hooks", (hook,) if hook is not None else ()))


def _fused(attention: nn.Module, layer: str) -> tuple[str, slice]:
    for name in FUSED:
        letters = name.removeprefix("to_")
        if name in attention._modules and layer[-1] in letters:
            sizes = {letter: getattr(attention, f"to_{letter}").out_features for letter in letters}
            start = sum(sizes[letter] for letter in letters[: letters.index(layer[-1])])
            return name, slice(start, start + sizes[layer[-1]])
    return "", slice(None)


@contextmanager
def _held(module: nn.Module, leaf: str, value: Tensor) -> Iterator[None]:
    hook, original = offloading(module), getattr(module, leaf)
    if hook is not None:
        before = hook.weights_map
        hook.weights_map = ChainMap({leaf: value.to(before[leaf])}, before)
    else:
        setattr(module, leaf, nn.Parameter(value.to(original), requires_grad=False))
    try:
        yield
    finally:
        if hook is not None:
            hook.weights_map = before
        else:
            moved = getattr(module, leaf).device
            if original.device != moved:  # accelerate moved the module meanwhile, and knows nothing of this weight
                original.data = original.data.to(moved)
            setattr(module, leaf, original)
