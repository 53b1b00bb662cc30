"""What an erasure holds, without what can be done with it."""

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
    """The ``E`` of ``W' = W (I + E)``, ``[d, d]``, for the layers ``names`` of one text entry.

    ``columns`` as in ``TextEntry``.
    """

    change: LowRank
    names: tuple[str, ...]
    columns: tuple[int, int] | None = None


@dataclass(frozen=True)
class Origin:
    """What made an erasure."""

    method: str
    concepts: tuple[Concept, ...]
    settings: Mapping[str, Any]
    fingerprint: str
    """Of the weights of the text entries that it was computed on."""
    version: str = __version__
    losses: tuple[float, ...] = ()
    """One a training step, where the method trains."""


@dataclass(frozen=True, repr=False)
class ErasureRecord:
    """Changes to weights, by the weight's name; nothing in it refers to a model.

    ``maps`` are by text entry where a closed form made the erasure: with them the same erasure can be had for any
    model that shares the text encoder. ``error`` is the relative Frobenius error that compression, or float16, has
    left, 0 for none.
    """

    deltas: Mapping[str, Delta]
    origins: tuple[Origin, ...]
    maps: Mapping[str, ContextMap] = field(default_factory=dict)
    error: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", MappingProxyType(dict(self.deltas)))
        object.__setattr__(self, "maps", MappingProxyType(dict(self.maps)))

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return tuple(concept for origin in self.origins for concept in origin.concepts)

    @property
    def rank(self) -> int:
        """The largest rank of a low-rank change, 0 when all are dense."""
        return max((delta.rank for delta in self.deltas.values() if isinstance(delta, LowRank)), default=0)
