"""Running a model as a skeleton: each linear layer and convolution returns a constant, whatever its input is.

The input of a layer then depends on the model's inputs only along paths that pass no other layer. Weights are not
read, so they may be quantised, on another device or missing; norms, embeddings and bare parameters work as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Layer = nn.Linear | _ConvNd
"""A module with the attributes of one of these, as quantised layers have; it need not be of the class."""
STEP = 101  # distance between the places where neighbouring layers take their constants from the pool of numbers


def layers_of(modules: Mapping[str, nn.Module]) -> dict[str, Layer]:
    """Return the linear layers and convolutions by name; a layer with several names is listed under its first.

    A linear layer is a module with ``in_features`` and ``out_features`` and without children, as ``nn.Linear`` and its
    quantised relatives. A layer that is not recognised computes as usual.
    """
    layers: dict[Layer, str] = {}
    for name, module in modules.items():
        if is_linear(module) or isinstance(module, _ConvNd):
            layers.setdefault(module, name)
    return {name: module for module, name in layers.items()}


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a module is a linear layer; see ``layers_of``."""
    widths = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    return all(isinstance(width, int) for width in widths) and not any(module.children())


@contextmanager
def skeleton(layers: Mapping[str, Layer], record: Callable[[str, Tensor], None], salt: int = 0) -> Iterator[None]:
    """Replace the forward of each layer inside a ``with`` block by a call of ``record(name, input)``.

    The outputs of the layers are positive numbers that differ by layer, by feature and by ``salt``.
    """
    widths = [_width(layer) for layer in layers.values()]
    size = max(widths, default=0) + STEP * (len(widths) + salt)
    numbers = 0.5 + torch.rand(size, generator=torch.Generator().manual_seed(salt))
    pools: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def stand_in(name: str, layer: Layer, start: int) -> Callable[..., Tensor]:
        def forward(input: Tensor, *_, **__) -> Tensor:
            record(name, input)
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
    """Return the size of the output along an axis, by the formulas in PyTorch's documentation; at least 1."""
    reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
    named = {"same": reach, "valid": 0}
    padding = named[layer.padding] if isinstance(layer.padding, str) else 2 * layer.padding[axis]
    if isinstance(layer, _ConvTransposeNd):
        return max(1, (size - 1) * layer.stride[axis] - padding + reach + layer.output_padding[axis] + 1)
    return max(1, (size + padding - reach - 1) // layer.stride[axis] + 1)
