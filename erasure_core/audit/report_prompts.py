"""The prompts of a report: those of the erased concept, of its nearest neighbours and of far concepts."""

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
MOST = 50  # neighbours that a report can have


@dataclass(frozen=True)
class ReportPrompt:
    """A prompt, the concept that it names, and the group that this is in (one of ``GROUPS``)."""

    prompt: str
    concept: str
    group: str


def report_prompts(
    model: TextReader,
    concept: str,
    kind: str = "object",
    *,
    among: Sequence[str] | str = COMMON,
    count: int = 6,
    more: Sequence[str] | str = (),
) -> list[ReportPrompt]:
    """Return prompts for ``concept``, for its nearest neighbours and for far concepts.

    The concept's prompts are the templates of its ``kind`` (``object`` or ``style``) and then ``more``, by default
    none. ``count`` neighbours and as many far concepts are chosen from ``among``, by default the built-in list of
    everyday concepts; when that is short, each gets half of it. Neighbours are of the same kind and nearest in the text
    encoder, where damage is likely; far concepts are the objects least like it, where there should be none. Names that
    share a word with the concept are left out. Raises ``ValueError`` for a ``count`` outside of 1 to 50, an empty
    concept, an unknown kind, and when no other concept is left.
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
    own_prompts = dict.fromkeys([*wordings(kind, name), *more])
    return [
        *(ReportPrompt(prompt, concept_text(name, kind), ERASED) for prompt in own_prompts),
        *(ReportPrompt(_plain_prompt(other), other, NEIGHBOUR) for other in near),
        *(ReportPrompt(_plain_prompt(other), other, FAR) for other in far),
    ]


def concept_text(name: str, kind: str) -> str:
    """Return a concept as recognisers and lists name it: an object as it is, a style as "in the style of" it."""
    return STYLE + name if kind == "style" else name


def _plain_prompt(other: str) -> str:
    if other.startswith(STYLE):
        return other
    return f"{'an' if other[0] in 'aeiou' else 'a'} {other}"


def _ranked(model: TextReader, name: str, others: Sequence[str]) -> list[str]:
    """Return ``others``, those most like ``name`` first.

    Likeness is the cosine between the rows of the last tokens, after the mean of all rows is subtracted.
    """
    if not others:
        return []
    last = torch.stack([_last_row(rows) for rows in model.text_rows([name, *others])]).float()
    near = F.normalize(last - last.mean(0), dim=1)
    likeness = (near[1:] @ near[0]).tolist()
    return [other for _, other in sorted(zip(likeness, others, strict=True), key=lambda pair: -pair[0])]


def _last_row(read: Read) -> Tensor:
    """Return the row of a prompt's last token that the layers of the first text entry read."""
    first, *_ = next(iter(read.values()))
    return first.rows[first.last_content]
