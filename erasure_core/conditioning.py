"""What a denoiser reads of prompts: a context each, and in some families a pooled vector beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditioning:
    """The text of ``n`` prompts as a denoiser reads it. Only ``tensors`` asks whether there is a pooled vector."""

    context: Tensor
    """``[n, tokens, d]``: what cross-attention reads."""
    pooled: Tensor | None = None
    """``[n, p]``: one vector for the whole prompt, as SDXL and its refiner read it; None for models that read none."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The context, and the pooled vectors where there are some."""
        return (self.context,) if self.pooled is None else (self.context, self.pooled)

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, prompts: slice | Tensor) -> Conditioning:
        """Of some of the prompts, or of some of them several times."""
        return self._each(lambda one: one[prompts])

    @classmethod
    def cat(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Of the prompts of all parts, one part after the other."""
        return cls(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))

    def split(self, sizes: int | Sequence[int]) -> list[Conditioning]:
        """Parts of so many prompts each, as ``torch.split`` makes them."""
        lengths = sizes if isinstance(sizes, int) else list(sizes)
        return [Conditioning(*part) for part in zip(*(one.split(lengths) for one in self.tensors), strict=True)]

    def expand(self, count: int) -> Conditioning:
        """The conditioning of a single prompt ``count`` times, without copies."""
        return self._each(lambda one: one.expand(count, *one.shape[1:]))

    def to(self, *where: Any) -> Conditioning:
        """The same on a device, in a precision, or both, as ``Tensor.to`` takes them."""
        return self._each(lambda one: one.to(*where))

    def clone(self) -> Conditioning:
        return self._each(torch.clone)

    def detach(self) -> Conditioning:
        return self._each(torch.detach)

    def requires_grad_(self) -> Conditioning:
        return self._each(Tensor.requires_grad_)

    def inner(self, other: Conditioning) -> Tensor:
        """The sum of the products of both, number by number. Its gradient with respect to this one is ``other``."""
        return torch.stack([(one * two).sum() for one, two in zip(self.tensors, other.tensors, strict=True)]).sum()

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return Conditioning(*map(change, self.tensors))
