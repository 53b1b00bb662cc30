"""The data of an erasure: changes of weights, context maps, and how they were made; ``erasure.py`` adds operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..concepts.parse import Concept
from .low_rank import Delta, LowRank

__version__ = "0.1.0"


@dataclass(frozen=True)
class ContextMap:
    """The change of a closed form in the space of text: ``E`` of ``W' = W (I + E)``, ``[d, d]``.

    ``names`` are the layers ``W`` of one text entry, ``columns`` those of their columns that read text (None for all).
    """

    change: LowRank
    names: tuple[str, ...]
    columns: tuple[int, int] | None = None


@dataclass(frozen=True)
class Origin:
    """How an erasure was made: the method's name, the concepts, the method's settings."""

    method: str
    concepts: tuple[Concept, ...]
    settings: Mapping[str, Any]
    fingerprint: str
    """The fingerprint of the text entries' weights in the model that it was computed on."""
    version: str = __version__
    """The version of this package."""
    losses: tuple[float, ...] = ()
    """The loss of each training step; empty for a closed form."""


@dataclass(frozen=True, repr=False, eq=False)
class ErasureRecord:
    """Changes of weights, by the weight's name, without any reference to a model.

    ``origins`` say how it was made. ``maps`` are the context maps of a closed form, by text entry; with them the same
    erasure can be computed for any model with the same text encoder. ``error`` is the relative Frobenius error that
    compression or rounding to float16 has left, 0 for none.
    """

    deltas: Mapping[str, Delta]
    origins: tuple[Origin, ...]
    maps: Mapping[str, ContextMap] = field(default_factory=dict)
    error: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", MappingProxyType(dict(self.deltas)))
        object.__setattr__(self, "maps", MappingProxyType(dict(self.maps)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what copies and other processes make it of; a ``MappingProxyType`` cannot be copied itself."""
        return type(self), (dict(self.deltas), self.origins, dict(self.maps), self.error)

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The concepts of all origins."""
        return tuple(concept for origin in self.origins for concept in origin.concepts)

    @property
    def rank(self) -> int:
        """The largest rank of the low-rank changes, or 0 if all changes are dense."""
        return max((delta.rank for delta in self.deltas.values() if isinstance(delta, LowRank)), default=0)
