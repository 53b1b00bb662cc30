"""Derived contexts: those that best regenerate a concept through the edited layers (RECE, arXiv 2407.12383, eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..erasures.low_rank import LowRank
from .linalg import check_coefficients, cholesky, stacked


def derived_context(context: Tensor, gram: Tensor, current_map: Tensor, *, regularization: float) -> Tensor:
    """Return the context that best regenerates ``context`` through the edited weights (RECE, arXiv 2407.12383, eq. 6).

    ``context`` is ``C``, ``[rows, d]``. ``gram`` is ``G = sum_l W_l^T W_l`` of the original weights and
    ``current_map`` the ``A`` of the edit so far, both ``[d, d]``. ``regularization`` is at least 0; larger values make
    the result shorter. Returns ``D = C [(A^T G A + regularization I)^-1 A^T G]^T``, float64 ``[rows, d]``, the
    minimiser of ``sum_l |W_l A D^T - W_l C^T|^2 + regularization * |D|^2``. Raises ``ValueError`` for numbers that are
    not finite or negative, and ``SingularSystemError`` when the minimiser is not unique.
    """
    edit = current_map.double()
    eye = torch.eye(len(edit), dtype=edit.dtype, device=edit.device)
    system = DerivedSystem.of(gram.double()).after(LowRank(edit - eye, eye))
    return system.derived([context], regularization=regularization)[0]


@dataclass(frozen=True)
class DerivedSystem:
    """The normal equations of derived contexts (RECE, eq. 6): ``(A^T G A + regularization I) D^T = A^T G C^T``.

    ``A`` is the edit so far and ``G = sum_l W_l^T W_l`` the Gram matrix of the original weights. ``edited`` is
    ``A^T G A`` and ``crossed`` is ``A^T G``, float64 ``[d, d]`` each.
    """

    edited: Tensor
    crossed: Tensor

    @classmethod
    def of(cls, gram: Tensor) -> DerivedSystem:
        """Return the system of the original weights, before any edit, from their Gram matrix ``[d, d]``."""
        return cls(gram, gram)

    def after(self, step: LowRank) -> DerivedSystem:
        """Return the system after one more step of the edit, ``A (I + step)`` in place of ``A``.

        ``step`` is ``[d, d]``. The cost is proportional to the rank of ``step``, not to that of all steps so far.
        """
        up, down = step.up, step.down
        edited_up = self.edited @ up
        cross = down.T @ torch.addmm(edited_up.T, up.T @ edited_up, down, alpha=0.5)
        return DerivedSystem(self.edited + cross + cross.T, torch.addmm(self.crossed, down.T, up.T @ self.crossed))

    def derived(self, contexts: Sequence[Tensor], *, regularization: float) -> list[Tensor]:
        """Return the ``derived_context`` of each of ``contexts``, ``[rows_i, d]``, with a single factorisation.

        Raises the errors of ``derived_context``.
        """
        factor = self._factor(regularization)
        return [torch.cholesky_solve(self.crossed @ stacked([context]).T, factor).T for context in contexts]

    def regenerating(self, regularization: float) -> Tensor:
        """Return the ``M``, float64 ``[d, d]``, with which the derived context of any ``C`` is ``C M^T`` (eq. 6)."""
        return torch.cholesky_solve(self.crossed, self._factor(regularization))

    def _factor(self, regularization: float) -> Tensor:
        check_coefficients(regularization=regularization)
        system = self.edited.clone()
        system.diagonal().add_(regularization)
        return cholesky(system)
