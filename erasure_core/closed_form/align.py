"""Pairing the rows of a concept's context with rows of its target's context for the edit."""

from __future__ import annotations

import torch
from torch import Tensor


def aligned_rows(concept: Tensor, target: Tensor, concept_end: int, target_end: int) -> tuple[Tensor, Tensor]:
    """Return the paired rows of two contexts ``[tokens, d]`` for the edit of UCE.

    These are the rows from the last content token on (the indices ``concept_end`` and ``target_end``), cut to the
    same number ``[rows, d]``.
    """
    count = min(len(concept) - concept_end, len(target) - target_end)
    return concept[concept_end : concept_end + count], target[target_end : target_end + count]


def facing_rows(concept: Tensor, target: Tensor, concept_end: int, target_end: int) -> tuple[Tensor, Tensor]:
    """Return the paired rows of two contexts ``[tokens, d]`` for RECE's loop, in which a derived context is erased.

    Contexts of the same length are paired row by row, as published. If an encoder gives as many rows as the prompt has
    tokens, the lengths may differ: then the rows that both have before their last content token are paired, and after
    them the ``aligned_rows``.
    """
    if len(concept) == len(target):
        return concept, target
    ahead = min(concept_end, target_end)
    tails = aligned_rows(concept, target, concept_end, target_end)
    return torch.cat([concept[:ahead], tails[0]]), torch.cat([target[:ahead], tails[1]])
