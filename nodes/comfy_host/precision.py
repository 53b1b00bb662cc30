"""The error of an erasure whose changed weights are rounded to the model's own precision."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache

import torch

from ...erasure_core.erasures.low_rank import Delta
from ...erasure_core.erasures.rounding import acting_squares, orthonormal_rows
from .weights import stored

log = logging.getLogger(__name__)
MOST = 0.1  # of the change; above it a user is warned
SAMPLED = 8  # weights that are measured, of hundreds


def report_rounding(patcher, deltas: Mapping[str, Delta], strength: float, what: str) -> float:
    """Log the ``rounding_error`` of a sample of weights and return it; above ``MOST`` the log is a warning.

    ``patcher`` has the changes ``deltas``, by ComfyUI's keys, as patches of this ``strength``. ``what``, MODEL or CLIP,
    names it in the log.
    """
    keys = spread(sorted(deltas), SAMPLED)
    precision = " and ".join(sorted({stored(patcher, key).precision for key in keys}))
    error = rounding_error(patcher, {key: deltas[key] for key in keys}, strength)
    share = f"{error:.2%} of the change, by {len(keys)} of {len(deltas)} weights"
    if error > MOST:
        log.warning(
            "%s is stored in %s, and rounding to it loses %s: the erasure is not exact. Load it in a finer precision.",
            what, precision, share,
        )  # fmt: skip
    else:
        log.info("%s is stored in %s; rounding to it loses %s.", what, precision, share)
    return error


@torch.no_grad()
def rounding_error(patcher, deltas: Mapping[str, Delta], strength: float) -> float:
    """Return the error of rounding where the changes act, relative to them, in the Frobenius norm over all ``deltas``.

    ``patcher`` has the changes, by ComfyUI's keys, as patches of this ``strength``. For a weight ``W`` that has its
    change ``dW = U D`` already, and orthonormal rows ``V`` that span those of ``D``, it is
    ``|(q(W) - W) V^T| / |dW V^T|``, where ``q`` rounds as the model does. A dense change acts everywhere.
    """
    error_square = change_square = 0.0
    basis = lru_cache(orthonormal_rows)  # one for all layers that share a factor
    for key, delta in deltas.items():
        weight = stored(patcher, key)
        exact = weight.merged(torch.device("cpu"))
        error = weight.rounded(exact.clone()) - exact
        lost, acted = acting_squares(delta, error, basis)
        error_square, change_square = error_square + lost, change_square + strength**2 * acted
    return (error_square / change_square) ** 0.5 if change_square else 0.0


def spread(names: list[str], count: int) -> list[str]:
    """Return at most ``count`` of ``names``, at even distances, the first and the last among them."""
    if len(names) <= count:
        return names
    return [names[round(place * (len(names) - 1) / (count - 1))] for place in range(count)]
