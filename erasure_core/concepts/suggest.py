"""Ranking other names of a concept by the text encoder of a model at hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import checked
from ..model import TextReader, TextRows
from .aliases import LIMIT, MINIMUM, Alias, candidates_of
from .names import distinct, reader
from .parse import as_prompts
from .readable import Read

MOST_CANDIDATES = 100


@checked
def suggest(
    model: TextReader,
    name: str,
    candidates: Sequence[str] | None = None,
    *,
    minimum: float = MINIMUM,
    limit: int = LIMIT,
) -> list[Alias]:
    """Return those of ``candidates`` that ``model`` reads like ``name``, with their similarities, the nearest first.

    The similarity is the cosine of all that the layers read from the name's last token on, which for single tokens is
    the measure of the table of aliases; over several text entries (SDXL's pooled vector) it is the mean. By default the
    candidates are those of ``candidates_of``, the first hundred. ``minimum`` is the least similarity and ``limit`` the
    most names. Names that the model cannot tell apart from ``name`` are left out, since erasing it reaches them.
    """
    names = candidates_of(name)[:MOST_CANDIDATES] if candidates is None else as_prompts(candidates, "candidates")
    name, *others = distinct([name, *names], reader(model))
    own, *rows = model.text_rows([name, *others])
    ranked = [(other, similarity(own, read)) for other, read in zip(others, rows, strict=True)]
    return sorted((one for one in ranked if one[1] >= minimum), key=lambda one: -one[1])[:limit]


def similarity(one: Read, other: Read) -> float:
    """Return the mean cosine, over all text entries, of what is read from the last tokens of two names on."""
    pairs = [pair for entry in one for pair in zip(one[entry], other[entry], strict=True)]
    return sum(_cosine(_behind(mine), _behind(theirs)) for mine, theirs in pairs) / len(pairs)


def _behind(read: TextRows) -> Tensor:
    return read.rows[read.last_content :].double()


def _cosine(one: Tensor, other: Tensor) -> float:
    rows = min(len(one), len(other))
    return float(torch.cosine_similarity(one[:rows].flatten(), other[:rows].flatten(), dim=0))
