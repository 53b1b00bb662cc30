"""Adding up the rows of one text entry: Gram matrices of many rows at once, and the products of pairs of rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import TextRows
from .align import aligned_rows, facing_rows
from .linalg import check_finite, check_widths
from .statistics import EntryStatistics
from .uce import PairSums, RowPairs

MOST_WAITING = 1024  # rows that wait to be multiplied together
MOST_TARGETS = 32  # targets whose products wait


class GramSum:
    """The sum ``R^T R``, float64 ``[d, d]``, over rows that are added; many rows are multiplied at once."""

    def __init__(self, width: int, device: torch.device):
        self._total = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Add the rows of a matrix ``[rows, d]``; they are copied."""
        self._waiting.append(rows.to(torch.float64, copy=True))
        if sum(map(len, self._waiting)) >= MOST_WAITING:
            self.total()

    def total(self) -> Tensor:
        """Return the sum so far, which later rows are still added to."""
        if self._waiting:
            rows = torch.cat(self._waiting)
            self._total.addmm_(rows.T, rows)
            self._waiting = []
        return self._total


class CrossSum:
    """The sum ``K^T T``, float64 ``[d, d]``, over pairs of rows of concepts and targets.

    Concepts with the same target rows are added up before they are multiplied: ``sum_i K_i^T T = (sum_i K_i)^T T``.
    """

    def __init__(self, width: int, device: torch.device):
        self._total = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._waiting: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def add(self, target_key: Hashable, concept: Tensor, target: Tensor) -> None:
        """Add paired rows ``[rows, d]`` in float64; equal ``target_key`` means the same rows of ``target``."""
        if target_key in self._waiting:
            self._waiting[target_key][0].add_(concept)
            return
        if len(self._waiting) == MOST_TARGETS:
            self.total()
        self._waiting[target_key] = concept.clone(), target.clone()

    def total(self) -> Tensor:
        """Return the sum so far, which later pairs are still added to."""
        if self._waiting:
            concepts, targets = (torch.cat(part) for part in zip(*self._waiting.values(), strict=True))
            self._total.addmm_(concepts.T, targets)
            self._waiting = {}
        return self._total


@dataclass(frozen=True)
class _Pair:
    """The rows of a concept and of its target, of one encoder; ``target_key`` is equal for the same target rows."""

    concept: Tensor
    target: Tensor
    concept_end: int
    target_end: int
    target_key: Hashable

    def aligned(self) -> tuple[Tensor, Tensor]:
        """Return the pairs of rows that UCE edits."""
        return aligned_rows(self.concept, self.target, self.concept_end, self.target_end)

    def facing(self) -> tuple[Tensor, Tensor]:
        """Return the pairs of rows of RECE's loop."""
        return facing_rows(self.concept, self.target, self.concept_end, self.target_end)

    def of_last_tokens(self) -> _Pair:
        """Return a copy of the rows of the last tokens alone, which does not hold the others."""
        one, other = (rows[:1].clone() for rows in self.aligned())
        return _Pair(one, other, 0, 0, self.target_key)


class _Sums:
    """The ``PairSums`` of edited and of derived pairs. Rows that are in both are multiplied once."""

    def __init__(self, like: Tensor):
        width, device = like.shape[1], like.device
        self._edited, self._outside = GramSum(width, device), GramSum(width, device)
        self._edited_cross, self._derived_cross = CrossSum(width, device), CrossSum(width, device)

    def add(self, pair: _Pair) -> None:
        """Add one pair."""
        (concept, target), (facing, facing_target) = (
            [rows.double() for rows in part] for part in (pair.aligned(), pair.facing())
        )
        same_length = len(pair.concept) == len(pair.target)
        ahead = pair.concept_end if same_length else len(facing) - len(concept)
        self._edited.add(concept)
        self._outside.add(torch.cat([facing[:ahead], facing[ahead + len(concept) :]]))
        key = (pair.target_key, len(pair.concept), pair.concept_end)
        self._edited_cross.add(key, concept, target)
        self._derived_cross.add(pair.target_key if same_length else key, facing, facing_target)

    def sums(self) -> tuple[PairSums, PairSums]:
        """Return the sums of the edited and of the derived pairs. Raises ``ValueError`` unless they are finite."""
        edited = PairSums(self._edited.total(), self._edited_cross.total())
        derived = PairSums(edited.concepts + self._outside.total(), self._derived_cross.total())
        check_finite(edited.concepts, edited.crossed, derived.concepts, derived.crossed)
        return edited, derived


class EntryGatherer:
    """Gathers the ``EntryStatistics`` of one text entry, whose rows come encoder by encoder.

    Nothing waits for the device that computes: what has to be known on the CPU is known at the end.
    """

    def __init__(self, of_empty_prompt: Sequence[TextRows], name_only: bool):
        """``of_empty_prompt`` are the rows of the prompt by which text encoders are compared."""
        rows = of_empty_prompt[0].rows
        self.reference_row = reference_row(of_empty_prompt)
        self._name_only, self._width = name_only, rows.shape[1]
        self._pairs: list[_Pair] = []
        self._edited_rows = 0
        self._sums: _Sums | None = None
        self._like = rows[:0].clone()
        self._distance = torch.zeros((), dtype=torch.float64, device=rows.device)
        self._preserve, self._exactly = GramSum(self._width, rows.device), GramSum(self._width, rows.device)

    def read(self, parts: Sequence[TextRows], preserve: bool, exactly: bool) -> None:
        """Add the rows of one prompt, by encoder, if it is in the list ``preserve``, or in the list ``exactly``."""
        for wanted, gram in ((preserve, self._preserve), (exactly, self._exactly)):
            for part in parts if wanted else ():
                check_widths([self._like, part.rows])
                gram.add(part.rows)

    def add_pair(self, concept: Sequence[TextRows], target: Sequence[TextRows], target_name: str) -> None:
        """Add the rows of a concept and of its target, by encoder; a target's name stands for its rows."""
        for place, (one, other) in enumerate(zip(concept, target, strict=True)):
            check_widths([self._like, one.rows, other.rows])
            ends = one.last_content, other.last_content
            pair = _Pair(one.rows, other.rows, *ends, target_key=(target_name, place))
            if self._name_only:
                pair = pair.of_last_tokens()
            aligned = pair.aligned()
            self._distance += (aligned[0].double() - aligned[1].double()).square().sum()
            if self._sums is not None:
                self._sums.add(pair)
                continue
            self._pairs.append(pair)
            self._edited_rows += len(aligned[0])
            if self._edited_rows >= self._width:
                self._sums, pairs, self._pairs = _Sums(self._like), self._pairs, []
                for earlier in pairs:
                    self._sums.add(earlier)

    def statistics(self) -> EntryStatistics:
        """Return the statistics of all prompts and pairs so far. Raises ``ValueError`` for rows that are not finite."""
        edited, derived = self._sums.sums() if self._sums is not None else self._rows()
        preserve, exactly = self._preserve.total(), self._exactly.total()
        check_finite(preserve, exactly)
        return EntryStatistics(edited, derived, preserve, exactly, self.reference_row, float(self._distance))

    def _rows(self) -> tuple[RowPairs, RowPairs | PairSums]:
        """Return the pairs as they are: copies, not views, which would hold all that was encoded together."""
        edited, derived = (
            RowPairs(*([self._like, *(rows.clone() for rows in part)] for part in zip(*pairs, strict=True)))
            if pairs
            else RowPairs([self._like], [self._like])
            for pairs in (
                [pair.aligned() for pair in self._pairs],
                [pair.facing() for pair in self._pairs],
            )
        )
        if sum(map(len, derived.concepts)) >= self._width:
            return edited, derived.summed()
        return edited, derived


def reference_row(rows: Sequence[TextRows]) -> Tensor:
    """Return the row that a text entry reads last of a prompt, float32 ``[d]`` on the CPU."""
    return rows[-1].rows[-1].float().cpu().clone()
