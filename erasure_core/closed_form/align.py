"""Which rows of a concept's context and of its target's face each other in an edit."""

from __future__ import annotations

import torch
from torch import Tensor


def aligned_rows(concept: Tensor, target: Tensor, concept_end: int, target_end: int) -> tuple[Tensor, Tensor]:
    """The rows of two contexts ``[tokens, d]`` that face each other in the edit.

    From the last content token on (``concept_end``, ``target_end``), cut to the same number of rows.
    """
    count = min(len(concept) - concept_end, len(target) - target_end)
    return concept[concept_end : concept_end + count], target[target_end : target_end + count]


def facing_rows(concept: Tensor, target: Tensor, concept_end: int, target_end: int) -> tuple[Tensor, Tensor]:
    """All rows of two contexts that face each other in RECE's loop, where a derived context is erased.

    Contexts of one length face each other row by row, as published. Where encoders give as many rows as tokens, rows
    before both last content tokens do, and the ``aligned_rows`` behind.
    """
    if len(concept) == len(target):
        return concept, target
    ahead = min(concept_end, target_end)
    tails = aligned_rows(concept, target, concept_end, target_end)
    return torch.cat([concept[:ahead], tails[0]]), torch.cat([target[:ahead], tails[1]])
