"""What is left to reach: how closely any context can regenerate what was erased, through the edited layers.

RECE erases the contexts that best regenerate a concept (arXiv 2407.12383, eq. 6). After the last loop there are such
contexts still; how near they come says how much the edit leaves to an attacker who may choose any context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import checked
from ..concepts.names import content
from ..concepts.parse import EMPTY_TARGET
from ..erasures.erasure import Erasure
from ..erasures.low_rank import LowRank
from ..model import TextReader
from .align import aligned_rows
from .linalg import cholesky, gram_matrix, stacked

NO_BOUND = 1e-10
"""The regularization that counts as none, relative to the mean eigenvalue of the normal equations."""
STEPS, CLOSE = 50, 1e-6
"""The most steps in the search for the regularization, and how near to the allowed length it ends, relative to it."""


@checked
def regeneration_error(model: TextReader, erasures: Sequence[Erasure] | Erasure, concept: str) -> float | None:
    """Return how closely any context can regenerate an erased ``concept`` through the edited layers.

    With ``C`` the rows that the layers ``W`` read for the concept's name, from its last token on, ``T`` those of its
    target, and ``W'`` the edited layers, it is ``min_D |W' D - W C| / |W C - W T|`` in the Frobenius norm (the quantity
    that RECE, arXiv 2407.12383, eq. 6, minimises), over all ``D`` that are no longer than the rows ``C``: 0 where some
    context gives the concept back exactly, as in an unedited model, and 1 where none comes nearer than the target.
    ``D`` need not be the text encoder's output for any prompt; a prompt reaches less.

    ``model`` is the one that the first of ``erasures`` was computed on, each of the others on top of those before it.
    It is only read. Articles, plural and the word "style" make no difference in ``concept``. Returns ``None`` where it
    is not known: when ``concept`` is none of those erased, or when not all of ``erasures`` are closed forms.
    """
    erasures = [erasures] if isinstance(erasures, Erasure) else list(erasures)
    names = {frozenset(content(one.name)): one for erasure in erasures for one in erasure.concepts}
    erased, maps = names.get(frozenset(content(concept))), _composed(erasures)
    if erased is None or not maps:
        return None
    entries = model.text_entries()
    if set(maps) - set(entries):
        return None
    with torch.no_grad():
        name, target = model.text_rows([erased.name, erased.instead or EMPTY_TARGET])
        missing = whole = 0.0
        for entry, change in maps.items():
            gram = gram_matrix(entries[entry].part(weight) for weight in entries[entry].weights.values())
            for one, other in zip(name[entry], target[entry], strict=True):
                rows = aligned_rows(one.rows, other.rows, one.last_content, other.last_content)
                squares = regeneration(*rows, gram, change)
                missing, whole = missing + squares[0], whole + squares[1]
    return math.sqrt(max(0.0, missing) / whole)


def _composed(erasures: Sequence[Erasure]) -> dict[str, LowRank] | None:
    """Return the changes of all ``erasures`` together, by text entry; ``None`` unless all are closed forms."""
    maps: dict[str, LowRank] = {}
    if not all(erasure.maps for erasure in erasures):
        return None
    for erasure in erasures:
        for entry, one in erasure.maps.items():
            step = LowRank(one.change.up.double(), one.change.down.double())
            maps[entry] = maps[entry].followed_by(step) if entry in maps else step
    return maps


def regeneration(concept: Tensor, target: Tensor, gram: Tensor, change: LowRank) -> tuple[float, float]:
    """Return ``min_D |W' D - W C|^2`` and ``|W C - W T|^2`` for rows ``C`` of a concept and ``T`` of its target.

    ``concept`` and ``target`` are ``[rows, d]``, ``gram`` is ``sum W^T W``, float64 ``[d, d]``, and ``change`` is the
    ``E`` of ``W' = W (I + E)``. ``D`` is at most as long as ``C``, in the Frobenius norm. It is a derived context whose
    regularization is the least that makes it so short, found by Newton's method on the secular equation (More and
    Sorensen, 1983).
    """
    device = gram.device
    rows, goal = stacked([concept]).to(device), stacked([target]).to(device)
    edit = torch.eye(len(gram), dtype=gram.dtype, device=device) + change.dense().to(gram)
    system, right = edit.T @ gram @ edit, edit.T @ gram @ rows.T
    allowed = float(rows.norm())
    regularization = NO_BOUND * float(system.trace()) / len(system)
    for _ in range(STEPS):
        regularized = system.clone()
        regularized.diagonal().add_(regularization)
        factor = cholesky(regularized)
        derived = torch.cholesky_solve(right, factor)
        length = float(derived.norm())
        if length <= allowed * (1 + CLOSE):
            break
        slope = float(torch.linalg.solve_triangular(factor, derived, upper=False).square().sum())
        regularization += length**2 / slope * (length - allowed) / allowed
    missing = edit @ derived - rows.T
    return float((missing * (gram @ missing)).sum()), float(((rows - goal).T * (gram @ (rows - goal).T)).sum())
