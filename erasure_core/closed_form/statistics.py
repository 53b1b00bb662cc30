"""Sufficient statistics: all that a closed form needs of concepts and preserved prompts, as sums of a fixed size.

Statistics of some concepts can be added to those of others and subtracted again, without encoding the rest anew.
``collect`` computes them with a model, ``statistics_file`` saves and loads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..concepts.names import Reads, folded, spelled
from ..concepts.parse import Concept
from ..concepts.readable import SAME_ROWS
from ..quoting import excerpt
from .uce import PairSums, RowPairs


@dataclass(frozen=True)
class EntryStatistics:
    """The statistics of one text entry, whose layers read rows of width ``d``.

    ``edited`` are the rows that UCE edits with their target rows (UCE, eq. 7), ``derived`` those of RECE's loop (RECE,
    eq. 6). ``preserve_gram`` is ``sum R^T R``, float64 ``[d, d]``, over the rows ``R`` of prompts to preserve, and
    ``exactly_gram`` the same for prompts that must not change at all. ``reference_row``, float32 ``[d]``, is the last
    row for a fixed prompt: it identifies the text encoder. ``distance`` is ``sum |k - t|^2`` over the ``edited`` rows
    ``k`` and their target rows ``t``; ``None`` when an earlier version saved the statistics, which did not keep it.
    """

    edited: RowPairs | PairSums
    derived: RowPairs | PairSums
    preserve_gram: Tensor
    exactly_gram: Tensor
    reference_row: Tensor
    distance: float | None

    @property
    def width(self) -> int:
        """The width ``d`` of the rows."""
        return len(self.preserve_gram)

    def ridge_unit(self) -> float:
        """Return ``sum |k - t|^2 / d``, the unit of the setting ``relative_ridge``.

        Raises ``ValueError`` for statistics of an earlier version, whose ``distance`` is not known.
        """
        if self.distance is None:
            raise ValueError(
                "the statistics were saved by an earlier version, without what relative_ridge needs; gather them "
                "again, or set relative_ridge to 0"
            )
        return self.distance / self.width

    def summed(self) -> EntryStatistics:
        """Return the same statistics with sums in place of rows."""
        return replace(self, edited=self.edited.summed(), derived=self.derived.summed())

    def tensors(self) -> list[Tensor]:
        """Return all sums of ``summed`` statistics, float64: those of pairs, of prompts, and the distance ``[]``."""
        edited, derived = self.edited.summed(), self.derived.summed()
        distance = torch.tensor(self.distance, dtype=torch.float64)
        return [*vars(edited).values(), *vars(derived).values(), self.preserve_gram, self.exactly_gram, distance]

    def with_tensors(self, tensors: Sequence[Tensor]) -> EntryStatistics:
        """Return the statistics with other sums, in the order of ``tensors``."""
        pairs, (preserve, exactly, distance) = tensors[:4], tensors[4:]
        edited, derived = PairSums(*pairs[:2]), PairSums(*pairs[2:])
        return EntryStatistics(edited, derived, preserve, exactly, self.reference_row, float(distance))

    def plus(self, other: EntryStatistics, sign: int) -> EntryStatistics:
        """Return these sums plus ``sign`` (1 or -1) times those of ``other``."""
        return replace(
            self,
            edited=self.edited.summed().plus(other.edited.summed(), sign),
            derived=self.derived.summed().plus(other.derived.summed(), sign),
            preserve_gram=self.preserve_gram + sign * other.preserve_gram.to(self.preserve_gram),
            exactly_gram=self.exactly_gram + sign * other.exactly_gram.to(self.exactly_gram),
            distance=_sum(self.distance, other.distance, sign),
        )


@dataclass(frozen=True)
class Statistics:
    """The statistics of each text entry, by its name, and the concepts and prompts that they sum up.

    ``preserve`` are the prompts that the edit changes as little as it can, ``exactly`` those that it must not change.
    With ``name_only`` a concept is edited only in the row of its name's last token, as in the code of SPEED (arXiv
    2503.07392); by default in that row and all behind it, as UCE and RECE do.
    """

    entries: Mapping[str, EntryStatistics]
    concepts: tuple[Concept, ...]
    preserve: tuple[str, ...] = ()
    exactly: tuple[str, ...] = ()
    name_only: bool = False

    def __add__(self, other: Statistics) -> Statistics:
        """Return the sum of both; see ``plus``. Names that differ only in capitals count as the same."""
        return self.plus(other)

    def plus(self, other: Statistics, reads: Reads = folded) -> Statistics:
        """Return the statistics of the concepts and prompts of both.

        ``reads`` decides which names are the same; by default capitals make no difference. Raises ``ValueError`` for a
        concept or prompt that both hold, for different text encoders, and when only one is ``name_only``.
        """
        for kind in ("concepts", "preserve", "exactly"):
            own = set(map(reads, self._texts(kind)))
            twice = [text for text in other._texts(kind) if reads(text) in own]
            if twice:
                raise ValueError(f"both statistics hold '{excerpt(twice[0])}', which would count twice")
        return replace(
            self,
            entries=self._entries(other, 1),
            concepts=self.concepts + other.concepts,
            preserve=self.preserve + other.preserve,
            exactly=self.exactly + other.exactly,
        )

    def __sub__(self, other: Statistics) -> Statistics:
        """Return the statistics without the concepts and prompts of ``other``.

        Raises ``ValueError`` for a concept or prompt that is not among these, and for different text encoders.
        """
        return replace(
            self,
            concepts=self._without("concepts", other),
            preserve=self._without("preserve", other),
            exactly=self._without("exactly", other),
            entries=self._entries(other, -1),
        )

    def check_encoder(self, reference_rows: Mapping[str, Tensor]) -> None:
        """Raise ``ValueError`` for a model with another text encoder.

        ``reference_rows`` are those of the model, float32 ``[d]`` by text entry, as ``collect.reference_rows`` returns
        them. They may differ by ``SAME_ROWS``, relative to their norm, as they do in other precisions.
        """
        if set(reference_rows) != set(self.entries):
            raise ValueError(
                f"the statistics are for a model that reads {', '.join(self.entries)}, not {', '.join(reference_rows)}"
            )
        for name, entry in self.entries.items():
            row, own = reference_rows[name].double().cpu(), entry.reference_row.double().cpu()
            size = float(own.norm())  # of what is not finite nothing is known to be the same
            if row.shape != own.shape or not float((row - own).norm()) <= SAME_ROWS * size < math.inf:
                raise ValueError(f"the statistics are of another text encoder (its {name} differs)")

    def _without(self, kind: str, other: Statistics) -> tuple[Any, ...]:
        """Return the concepts or prompts, as ``kind`` says, that ``other`` does not hold."""
        own, theirs = ({spelled(str(one)): one for one in getattr(each, kind)} for each in (self, other))
        missing = [text for text in theirs if text not in own]
        if missing:
            raise ValueError(f"the statistics do not hold '{excerpt(missing[0])}' ({kind})")
        return tuple(one for text, one in own.items() if text not in theirs)

    def _texts(self, kind: str) -> list[str]:
        return [one.name if isinstance(one, Concept) else one for one in getattr(self, kind)]

    def _entries(self, other: Statistics, sign: int) -> dict[str, EntryStatistics]:
        if self.name_only != other.name_only:
            raise ValueError("of these statistics some edit names only (name_only), the others all rows")
        self.check_encoder({name: entry.reference_row for name, entry in other.entries.items()})
        return {name: entry.plus(other.entries[name], sign) for name, entry in self.entries.items()}


def _sum(one: float | None, other: float | None, sign: int) -> float | None:
    """Return ``one`` plus ``sign`` times ``other``, at least 0; ``None`` unless both are known."""
    return None if one is None or other is None else max(0.0, one + sign * other)
