"""A model run without its weights: every linear layer and convolution gives a constant, whatever it is fed.

What a layer is fed then depends on the model's inputs only along ways that pass no other such layer. The weights are
not touched, so they may be quantised, somewhere else or missing; norms, embeddings and bare parameters are real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Layer = nn.Linear | _ConvNd
"""What has the attributes of one of these, as quantised layers have; it need not be of the class."""
STEP = 101  # how far apart the constants of neighbouring layers start in the pool of numbers


def layers_of(modules: Mapping[str, nn.Module]) -> dict[str, Layer]:
    """The linear layers and convolutions, each under its first name.

    A linear layer is what has ``in_features`` and ``out_features`` and no layers of its own, as ``nn.Linear`` and its
    quantised relatives. One that is not recognised runs for real.
    """
    layers: dict[Layer, str] = {}
    for name, module in modules.items():
        if is_linear(module) or isinstance(module, _ConvNd):
            layers.setdefault(module, name)
    return {name: module for module, name in layers.items()}


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    widths = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    return all(isinstance(width, int) for width in widths) and not any(module.children())


@contextmanager
def skeleton(layers: Mapping[str, Layer], seen: Callable[[str, Tensor], None], salt: int = 0) -> Iterator[None]:
    """For the length of a ``with`` block ``seen(name, input)`` is called in place of each layer's forward.

    The layers' outputs are positive numbers that differ by layer, by feature and by ``salt``.
    """
    widths = [_width(layer) for layer in layers.values()]
    size = max(widths, default=0) + STEP * (len(widths) + salt)
    numbers = 0.5 + torch.rand(size, generator=torch.Generator().manual_seed(salt))
    pools: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def stand_in(name: str, layer: Layer, start: int) -> Callable[..., Tensor]:
        def forward(input: Tensor, *_, **__) -> Tensor:
            seen(name, input)
            kind = (input.dtype, input.device)
            if kind not in pools:
                pools[kind] = numbers.to(*kind[::-1])
            values = pools[kind][start : start + _width(layer)]
            if isinstance(layer, _ConvNd):
                values = values.reshape(-1, *[1] * len(layer.kernel_size))
            return input.new_empty(_output_shape(layer, input)).copy_(values)

        return forward

    patched: list[tuple[Layer, Callable | None]] = []
    try:
        for place, (name, layer) in enumerate(layers.items()):
            patched.append((layer, layer.__dict__.get("forward")))
            layer.__dict__["forward"] = stand_in(name, layer, STEP * (place + salt))
        yield
    finally:
        for layer, own in patched:
            if own is not None:
                layer.__dict__["forward"] = own
            else:
                layer.__dict__.pop("forward", None)


def _width(layer: Layer) -> int:
    return layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features


def _output_shape(layer: Layer, input: Tensor) -> tuple[int, ...]:
    if not isinstance(layer, _ConvNd):
        return *input.shape[:-1], layer.out_features
    dims = len(layer.kernel_size)
    sizes = [_conv_size(layer, axis, size) for axis, size in enumerate(input.shape[-dims:])]
    return *input.shape[: -dims - 1], layer.out_channels, *sizes


def _conv_size(layer: _ConvNd, axis: int, size: int) -> int:
    """The output's size along an axis, by the formulas in PyTorch's docs; never less than 1."""
    reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
    named = {"same": reach, "valid": 0}
    padding = named[layer.padding] if isinstance(layer.padding, str) else 2 * layer.padding[axis]
    if isinstance(layer, _ConvTransposeNd):
        return max(1, (size - 1) * layer.stride[axis] - padding + reach + layer.output_padding[axis] + 1)
    return max(1, (size + padding - reach - 1) // layer.stride[axis] + 1)
