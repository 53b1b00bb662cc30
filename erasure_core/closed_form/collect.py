"""Encodes concepts and prompts into ``Statistics``: each prompt once, and none kept longer than it is needed."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..arguments import checked
from ..concepts.names import Named, Reads, distinct, folded, reader, spelled
from ..concepts.parse import EMPTY_TARGET, Concept, as_concepts, as_prompts, kept_prompts
from ..concepts.readable import Read, check_read
from ..model import Callback, TextReader, TextRows
from ..quoting import shown
from .align import aligned_rows, facing_rows
from .already_erased import check_pair
from .linalg import row_gram
from .statistics import EntryStatistics, Statistics
from .uce import PairSums, RowPairs

log = logging.getLogger(__name__)
PART = 16  # prompts encoded between two reports of progress


@checked
def gather_statistics(
    model: TextReader,
    concepts: Sequence[Concept | str] | Concept | str,
    preserve: Sequence[str] | str = (),
    *,
    exactly: Sequence[str] | str = (),
    name_only: bool = False,
    callback: Callback | None = None,
) -> Statistics:
    """Of what is to be erased, to be preserved by weight, and to be left exactly alone.

    Rows stay as they are while they are fewer than they are wide. Raises ``ValueError`` for a prompt to preserve that
    names nothing but a concept, and for one longer than the window.
    """
    concepts, reads = as_concepts(concepts), reader(model)
    preserve, exactly = checked_prompts(preserve, "preserve", reads), checked_prompts(exactly, "exactly", reads)
    check_lists(concepts, preserve, exactly, reads)
    return collect(model, concepts, preserve, exactly, name_only, callback)


def probes(model: TextReader) -> dict[str, Tensor]:
    """What ``Statistics.check_encoder`` compares, of a model."""
    with torch.no_grad():
        (read,) = model.text_rows([EMPTY_TARGET])
    return {name: _probe(rows) for name, rows in read.items()}


def _probe(rows: Sequence[TextRows]) -> Tensor:
    return rows[-1].rows[-1].float().cpu().clone()


def check_preserve(
    concepts: Iterable[Concept], preserve: Iterable[str], exactly: Iterable[str] = (), reads: Reads = folded
) -> None:
    """Raise ``ValueError`` for a prompt that names nothing but what is to be erased."""
    erased = Named([concept.name for concept in concepts], reads)
    for what, prompts in (("preserve", preserve), ("exactly", exactly)):
        for prompt in as_prompts(prompts, what):
            if erased.alone_in(prompt):
                named = shown(spelled(prompt))
                raise ValueError(f"{what} lists '{named}', which is to be erased; take it out of one of the two lists")


def warn_of_names(concepts: Iterable[Concept], preserve: Iterable[str], exactly: Iterable[str] = ()) -> None:
    """Warn of prompts that name what is to be erased among other things: they hold part of it in place."""
    erased = Named([concept.name for concept in concepts])
    for what, prompts in (("preserve", preserve), ("exactly", exactly)):
        naming = [prompt for prompt in prompts if erased.within(prompt)]
        if naming:
            name, more = erased.within(naming[0]), f" (so do {len(naming) - 1} more)" if len(naming) > 1 else ""
            log.warning(
                "%s lists '%s', which names '%s'%s: part of what is to be erased is held in place.",
                what, naming[0], name, more,
            )  # fmt: skip


def checked_prompts(prompts: Iterable[str] | str, what: str, reads: Reads) -> list[str]:
    """In one spelling, each once. Raises ``ValueError`` for what no text encoder is meant to read."""
    return distinct(kept_prompts(prompts, what), reads)


def check_lists(concepts: Sequence[Concept], preserve: Sequence[str], exactly: Sequence[str], reads: Reads) -> None:
    """What only a text encoder can tell of names, and what is to be preserved of that which is to be erased."""
    seen: dict[Hashable, Concept] = {}
    for concept in concepts:
        earlier = seen.setdefault(reads(concept.name), concept)
        if earlier is not concept:
            raise ValueError(
                f"'{earlier.name}' and '{concept.name}' are the same to this text encoder; list one of the two"
            )
    check_preserve(concepts, preserve, exactly, reads)
    warn_of_names(concepts, preserve, exactly)


def collect(
    model: TextReader,
    concepts: Sequence[Concept],
    preserve: Sequence[str],
    exactly: Sequence[str],
    name_only: bool,
    callback: Callback | None,
    check: bool = True,
) -> Statistics:
    pairs = {(concept.name, concept.instead or EMPTY_TARGET): concept for concept in concepts}
    mentioned = [prompt for pair in pairs for prompt in pair]
    known = model.erasures if check else ()
    prompts = list(dict.fromkeys([EMPTY_TARGET, *preserve, *exactly, *mentioned]))
    listed = set(preserve), set(exactly)
    gatherers: dict[str, _Gatherer] = {}
    waiting = _Waiting(list(pairs))
    for prompt, read in _encoded(model, prompts, callback):
        for name, rows in read.items():
            if name not in gatherers:
                gatherers[name] = _Gatherer(rows, name_only)  # of the empty prompt, which comes first
            gatherers[name].read(rows, prompt in listed[0], prompt in listed[1])
            if prompt == EMPTY_TARGET:
                nothing = read
        for pair, concept, target in waiting.complete_with(prompt, read):
            if check:
                check_read(pairs[pair], concept, target, nothing)
            if known:
                check_pair(known, pairs[pair], concept, target)
            for name, gatherer in gatherers.items():
                gatherer.face(concept[name], target[name])
    entries = {name: gatherer.found() for name, gatherer in gatherers.items()}
    return Statistics(entries, tuple(concepts), tuple(preserve), tuple(exactly), name_only)


def _encoded(model: TextReader, prompts: Sequence[str], callback: Callback | None) -> Iterator[tuple[str, Read]]:
    parts = [prompts[start : start + PART] for start in range(0, len(prompts), PART)]
    for done, part in enumerate(parts):
        if callback:
            callback(done, len(parts), "encoding prompts")
        with torch.no_grad():
            reads = model.text_rows(part)
        for prompt, read in zip(part, reads, strict=True):
            yield prompt, {name: [_solvable(rows) for rows in found] for name, found in read.items()}


def _solvable(rows: TextRows) -> TextRows:
    """Off a device that lacks float64."""
    return replace(rows, rows=rows.rows.cpu()) if rows.rows.device.type == "mps" else rows


class _Waiting:
    """Pairs of prompts, and what was read for those that still have a pair before them."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self.pairs = deque(pairs)
        self.uses = Counter(prompt for pair in pairs for prompt in pair)
        self.held: dict[str, Read] = {}

    def complete_with(self, prompt: str, read: Read) -> Iterator[tuple[tuple[str, str], Read, Read]]:
        """The pairs that were waiting for this prompt, with what was read for both.

        Whatever has no other pair before it is let go.
        """
        if self.uses[prompt]:
            self.held[prompt] = read
        while self.pairs and all(one in self.held for one in self.pairs[0]):
            pair = self.pairs.popleft()
            yield pair, self.held[pair[0]], self.held[pair[1]]
            for one in pair:
                self.uses[one] -= 1
                if not self.uses[one]:
                    del self.held[one]


class _Gatherer:
    """What becomes the ``EntryStatistics`` of one text entry."""

    def __init__(self, of_empty_prompt: Sequence[TextRows], name_only: bool):
        rows, self.probe = of_empty_prompt[0].rows, _probe(of_empty_prompt)
        self.name_only = name_only
        self.edited, self.derived = _Pairs(rows), _Pairs(rows)
        nothing = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
        self.kept, self.exempt = nothing, nothing.clone()

    def read(self, parts: Sequence[TextRows], kept: bool, exempt: bool) -> None:
        gram = row_gram([part.rows for part in parts]) if kept or exempt else None
        if gram is not None:
            self.kept += gram * kept
            self.exempt += gram * exempt

    def face(self, concept: Sequence[TextRows], target: Sequence[TextRows]) -> None:
        for one, other in zip(concept, target, strict=True):
            faced = (one.rows, other.rows, one.last_content, other.last_content)
            aligned = aligned_rows(*faced)
            if self.name_only:
                aligned = aligned[0][:1], aligned[1][:1]
            self.edited.add(*aligned)
            self.derived.add(*(aligned if self.name_only else facing_rows(*faced)))

    def found(self) -> EntryStatistics:
        return EntryStatistics(self.edited.found(), self.derived.found(), self.kept, self.exempt, self.probe)


class _Pairs:
    """Rows as they are while they are fewer than they are wide, their sums from then on."""

    def __init__(self, like: Tensor):
        self.concepts, self.targets = [like[:0].clone()], [like[:0].clone()]
        self.sums: PairSums | None = None

    def add(self, concept: Tensor, target: Tensor) -> None:
        if self.sums is not None:
            self.sums.add_(concept, target)
            return
        self.concepts.append(concept.clone())  # not a view, which would hold all that was encoded together
        self.targets.append(target.clone())
        if sum(map(len, self.concepts)) >= concept.shape[1]:
            self.sums = PairSums.of(self.concepts, self.targets)
            self.concepts, self.targets = [], []

    def found(self) -> RowPairs | PairSums:
        return self.sums or RowPairs(self.concepts, self.targets)
