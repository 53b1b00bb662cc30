"""What a closed form needs of concepts and of preserved prompts, as sums that do not grow with their number.

Sums add up: statistics of some concepts can be joined with those of others and taken out again, without encoding
the rest anew. ``collect`` makes them of a model, ``statistics_file`` keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..concepts.names import Reads, folded, spelled
from ..concepts.parse import Concept
from ..concepts.readable import SAME_ROWS
from ..quoting import shown
from .uce import PairSums, RowPairs


@dataclass(frozen=True)
class EntryStatistics:
    """Of what the layers of one text entry read, rows ``d`` wide.

    ``edited`` are the rows that UCE edits and those that they should become, ``derived`` those of RECE's loop. ``kept``
    and ``exempt`` are ``sum R^T R``, ``[d, d]``, of what is preserved and of what is left exactly alone. ``probe``,
    ``[n]``, is the end of what is read for a prompt that is always the same: it tells text encoders apart.
    """

    edited: RowPairs | PairSums
    derived: RowPairs | PairSums
    kept: Tensor
    exempt: Tensor
    probe: Tensor

    @property
    def width(self) -> int:
        return len(self.kept)

    def summed(self) -> EntryStatistics:
        """With sums where there are rows."""
        return replace(self, edited=self.edited.summed(), derived=self.derived.summed())

    def plus(self, other: EntryStatistics, sign: int) -> EntryStatistics:
        """With ``sign`` times the other's sums."""
        return replace(
            self,
            edited=self.edited.summed().plus(other.edited.summed(), sign),
            derived=self.derived.summed().plus(other.derived.summed(), sign),
            kept=self.kept + sign * other.kept.to(self.kept),
            exempt=self.exempt + sign * other.exempt.to(self.exempt),
        )


@dataclass(frozen=True)
class Statistics:
    """By text entry, and what they are of.

    ``preserve`` are the prompts that are weighed, ``exactly`` those that are left exactly alone. ``name_only``: of a
    concept's rows only that of its name's last token is edited.
    """

    entries: Mapping[str, EntryStatistics]
    concepts: tuple[Concept, ...]
    preserve: tuple[str, ...] = ()
    exactly: tuple[str, ...] = ()
    name_only: bool = False

    def __add__(self, other: Statistics) -> Statistics:
        """Of both, as ``plus`` where no text encoder is at hand, which might tell capitals apart."""
        return self.plus(other)

    def plus(self, other: Statistics, reads: Reads = folded) -> Statistics:
        """Of both. Raises ``ValueError`` for a concept or prompt that both hold, and for other text encoders."""
        for kind in ("concepts", "preserve", "exactly"):
            own = set(map(reads, self._texts(kind)))
            twice = [text for text in other._texts(kind) if reads(text) in own]
            if twice:
                raise ValueError(f"both statistics hold '{shown(twice[0])}', which would count twice")
        return replace(
            self,
            entries=self._entries(other, 1),
            concepts=self.concepts + other.concepts,
            preserve=self.preserve + other.preserve,
            exactly=self.exactly + other.exactly,
        )

    def __sub__(self, other: Statistics) -> Statistics:
        """Without the other's. Raises ``ValueError`` for what is not held, and for other text encoders."""
        return replace(
            self,
            concepts=self._left("concepts", other),
            preserve=self._left("preserve", other),
            exactly=self._left("exactly", other),
            entries=self._entries(other, -1),
        )

    def check_encoder(self, probes: Mapping[str, Tensor]) -> None:
        """Raise ``ValueError`` when rows that end in ``probes`` come from another text encoder than these."""
        if set(probes) != set(self.entries):
            raise ValueError(
                f"the statistics are for a model that reads {', '.join(self.entries)}, not {', '.join(probes)}"
            )
        for name, entry in self.entries.items():
            probe, own = probes[name].double().cpu(), entry.probe.double().cpu()
            size = float(own.norm())  # of what is not finite nothing is known to be the same
            if probe.shape != own.shape or not float((probe - own).norm()) <= SAME_ROWS * size < math.inf:
                raise ValueError(f"the statistics are of another text encoder (its {name} differs)")

    def _left(self, kind: str, other: Statistics) -> tuple[Any, ...]:
        """Those concepts or prompts of a kind that ``other`` does not hold."""
        own, taken = ({spelled(str(one)): one for one in getattr(each, kind)} for each in (self, other))
        missing = [text for text in taken if text not in own]
        if missing:
            raise ValueError(f"the statistics do not hold '{shown(missing[0])}' ({kind})")
        return tuple(one for text, one in own.items() if text not in taken)

    def _texts(self, kind: str) -> list[str]:
        return [one.name if isinstance(one, Concept) else one for one in getattr(self, kind)]

    def _entries(self, other: Statistics, sign: int) -> dict[str, EntryStatistics]:
        if self.name_only != other.name_only:
            raise ValueError("of these statistics some edit names only (name_only), the others all rows")
        self.check_encoder({name: entry.probe for name, entry in other.entries.items()})
        return {name: entry.plus(other.entries[name], sign) for name, entry in self.entries.items()}
