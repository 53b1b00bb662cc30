"""Prompts that an erasure is judged by: the concept's own, its nearest neighbours' and those of far concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..concepts.common import COMMON, STYLE, sharing_no_word, without_style
from ..concepts.parse import Concept, as_prompts
from ..concepts.readable import Read
from ..concepts.templates import wordings
from ..model import TextReader

ERASED, NEIGHBOUR, FAR = "erased", "neighbour", "far"
GROUPS = (ERASED, NEIGHBOUR, FAR)
MOST = 50  # neighbours


@dataclass(frozen=True)
class Probe:
    """A prompt, the concept that it asks for, and its group."""

    prompt: str
    concept: str
    group: str


def probes(
    model: TextReader,
    concept: str,
    kind: str = "object",
    *,
    among: Sequence[str] | str = COMMON,
    count: int = 6,
    more: Sequence[str] | str = (),
) -> list[Probe]:
    """All wordings of ``concept``, then ``count`` neighbours and as many far concepts out of ``among``.

    Neighbours are of the same kind and nearest to the concept in the text encoder; far are the least like it among the
    objects; of a short list there are fewer, half of it each. Collateral damage is looked for where it is likely, and
    where it should not be. Concepts that share a word with this one are left out. ``more`` are further prompts that ask
    for the concept.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"there must be from 1 to {MOST} neighbours, got {count}")
    if not concept.strip():
        raise ValueError("concept is empty: name what was erased, for example 'van gogh'")
    among, more = as_prompts(among, "among"), as_prompts(more, "more")
    (name,) = as_prompts(without_style(concept), "concept")
    others = sharing_no_word([Concept(name)], among)
    own = [other for other in others if other.startswith(STYLE) == (kind == "style")]
    objects = [other for other in others if not other.startswith(STYLE)]
    ranked = _ranked(model, concept_text(name, kind), own)
    near = ranked[: count if kind == "style" else min(count, (len(ranked) + 1) // 2)]
    far = [other for other in reversed(_ranked(model, name, objects)) if other not in near][:count]
    if not near or not far:
        raise ValueError(f"there is no other concept to compare '{name}' with in the list of {len(among)}")
    asked = [*wordings(kind, name), *more]
    return [
        *(Probe(prompt, concept_text(name, kind), ERASED) for prompt in dict.fromkeys(asked)),
        *(Probe(_plainly(other), other, NEIGHBOUR) for other in near),
        *(Probe(_plainly(other), other, FAR) for other in far),
    ]


def concept_text(name: str, kind: str) -> str:
    """A style as the lists and recognisers have it: in the style of it."""
    return STYLE + name if kind == "style" else name


def _plainly(other: str) -> str:
    if other.startswith(STYLE):
        return other
    return f"{'an' if other[0] in 'aeiou' else 'a'} {other}"


def _ranked(model: TextReader, name: str, others: Sequence[str]) -> list[str]:
    """``others`` by the cosine of their last word's context to that of ``name``, less what all have in common."""
    if not others:
        return []
    last = torch.stack([_last_row(rows) for rows in model.text_rows([name, *others])]).float()
    near = F.normalize(last - last.mean(0), dim=1)
    likeness = (near[1:] @ near[0]).tolist()
    return [other for _, other in sorted(zip(likeness, others, strict=True), key=lambda pair: -pair[0])]


def _last_row(read: Read) -> Tensor:
    """The row of a prompt's last token, as the layers of the first text entry read it."""
    first, *_ = next(iter(read.values()))
    return first.rows[first.last_content]
