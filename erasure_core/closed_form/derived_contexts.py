"""The context that best regenerates a concept through edited layers (RECE, arXiv 2407.12383, eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..erasures.low_rank import LowRank
from .linalg import check_coefficients, cholesky, stacked


def derived_context(context: Tensor, gram: Tensor, current_map: Tensor, *, regularization: float) -> Tensor:
    """The context ``[rows, d]`` that best regenerates ``context`` through the edited weights (RECE, arXiv 2407.12383).

    ``gram`` is ``sum_l W_l^T W_l`` of the original weights, ``current_map`` the ``A`` of the edit so far, both
    ``[d, d]``. Minimises ``sum_l |W_l A D^T - W_l C^T|^2 + regularization * |D|^2``. Returns float64.
    """
    edit = current_map.double()
    eye = torch.eye(len(edit), dtype=edit.dtype, device=edit.device)
    seen = SeenWeights.of(gram.double()).after(LowRank(edit - eye, eye))
    return seen.derived([context], regularization=regularization)[0]


@dataclass(frozen=True)
class SeenWeights:
    """All that RECE needs of the weights, with ``A`` the edit so far: ``A^T G A`` and ``A^T G``, ``[d, d]``."""

    edited: Tensor
    crossed: Tensor

    @classmethod
    def of(cls, gram: Tensor) -> SeenWeights:
        """Before any edit."""
        return cls(gram, gram)

    def after(self, step: LowRank) -> SeenWeights:
        """With ``A (I + step)`` for ``A``; costs in proportion to the rank of the step, not of all steps so far."""
        up, down = step.up, step.down
        seen = self.edited @ up
        cross = down.T @ torch.addmm(seen.T, up.T @ seen, down, alpha=0.5)
        return SeenWeights(self.edited + cross + cross.T, torch.addmm(self.crossed, down.T, up.T @ self.crossed))

    def derived(self, contexts: Sequence[Tensor], *, regularization: float) -> list[Tensor]:
        """``derived_context`` of several: one factorisation serves all."""
        factor = self._factor(regularization)
        return [torch.cholesky_solve(self.crossed @ stacked([context]).T, factor).T for context in contexts]

    def regenerating(self, regularization: float) -> Tensor:
        """The ``M`` of shape ``[d, d]`` with which the derived context of every ``C`` is ``C M^T``."""
        return torch.cholesky_solve(self.crossed, self._factor(regularization))

    def _factor(self, regularization: float) -> Tensor:
        check_coefficients(regularization=regularization)
        system = self.edited.clone()
        system.diagonal().add_(regularization)
        return cholesky(system)
