"""Computing ``Statistics``: encodes each concept and prompt once, and frees its rows once they are summed up."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..arguments import checked
from ..concepts.names import Named, Reads, distinct, folded, reader, spelled
from ..concepts.parse import EMPTY_TARGET, Concept, as_concepts, as_prompts, kept_prompts
from ..concepts.readable import Read, check_reads, warn_of_unknown_words
from ..devices import has_float64
from ..model import Callback, NameReader, TextReader, TextRows
from ..quoting import excerpt
from ..workers import ALONE, Workers
from .already_erased import check_pair
from .gatherer import EntryGatherer, reference_row
from .statistics import EntryStatistics, Statistics

log = logging.getLogger(__name__)
ENCODING = "encoding prompts"
BATCH = 16  # prompts that are encoded between two reports of progress
BATCH_OF_NAMES = 128  # names that are encoded without the rows behind them, which are most of a window


@checked
def gather_statistics(
    model: TextReader,
    concepts: Sequence[Concept | str] | Concept | str,
    preserve: Sequence[str] | str = (),
    *,
    exactly: Sequence[str] | str = (),
    name_only: bool = False,
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> Statistics:
    """Return the statistics of ``concepts`` to erase, prompts to ``preserve`` and prompts to leave ``exactly`` alone.

    ``name_only`` and the two lists are explained at ``Statistics``; by default both lists are empty. Rows are kept as
    they are while they are fewer than their width, which gives an erasure of lower rank, and summed up from then on.
    ``callback`` gets the progress. With ``workers`` each process encodes its share, and all return the same sums.
    Raises ``ValueError`` for a concept or prompt that cannot be used: one that the text encoder cannot tell from
    another or from nothing, a prompt to preserve that is itself a concept to erase, a prompt longer than the window, or
    a concept that the model has lost already (``ErasedAlreadyError``).
    """
    concepts, reads = as_concepts(concepts), reader(model)
    preserve, exactly = checked_prompts(preserve, "preserve", reads), checked_prompts(exactly, "exactly", reads)
    check_lists(concepts, preserve, exactly, reads)
    return collect(model, concepts, preserve, exactly, name_only, callback, workers=workers)


def reference_rows(model: TextReader) -> dict[str, Tensor]:
    """Return the row that each text entry reads last for a fixed prompt, float32 ``[d]`` on the CPU, by its name.

    ``Statistics.check_encoder`` compares them: other text encoders give other rows.
    """
    with torch.no_grad():
        (read,) = model.text_rows([EMPTY_TARGET])
    return {name: reference_row(rows) for name, rows in read.items()}


def check_preserve(
    concepts: Iterable[Concept], preserve: Iterable[str], exactly: Iterable[str] = (), reads: Reads = folded
) -> None:
    """Raise ``ValueError`` for a prompt to preserve that is itself a concept to erase, and nothing else.

    ``preserve`` and ``exactly`` are lists of prompts; messages call them by these names. ``reads`` gives equal values
    for texts that count as the same. By default these are texts that differ only in capitals and spelling, since
    ``folded`` needs no model; with ``reader(model)`` they are those of the same tokens.
    """
    erased = Named([concept.name for concept in concepts], reads)
    for what, prompts in (("preserve", preserve), ("exactly", exactly)):
        for prompt in as_prompts(prompts, what):
            if erased.alone_in(prompt):
                text = excerpt(spelled(prompt))
                raise ValueError(f"{what} lists '{text}', which is to be erased; take it out of one of the two lists")


def warn_of_names(concepts: Iterable[Concept], preserve: Iterable[str], exactly: Iterable[str] = ()) -> None:
    """Log the ``warnings_of_names``."""
    for warning in warnings_of_names(concepts, preserve, exactly):
        log.warning(warning)


def warnings_of_names(concepts: Iterable[Concept], preserve: Iterable[str], exactly: Iterable[str] = ()) -> list[str]:
    """Return a sentence for each list of prompts to preserve in which prompts name a concept among other things.

    Such a prompt preserves part of the concept. ``preserve`` and ``exactly`` are lists of prompts; the sentences call
    them by these names.
    """
    erased = Named([concept.name for concept in concepts])
    sentences = []
    for what, prompts in (("preserve", preserve), ("exactly", exactly)):
        naming = [prompt for prompt in prompts if erased.within(prompt)]
        if naming:
            more = f" (so do {len(naming) - 1} more)" if len(naming) > 1 else ""
            sentences.append(
                f"{what} lists '{naming[0]}', which names '{erased.within(naming[0])}'{more}: part of what is to be "
                "erased is held in place."
            )
    return sentences


def checked_prompts(prompts: Iterable[str] | str, what: str, reads: Reads) -> list[str]:
    """Return the prompts in one spelling, each once.

    ``what`` is the name of the list in error messages. Of prompts with equal ``reads`` the first is returned. Raises
    ``ConceptError`` for prompt syntax, as ``kept_prompts`` does.
    """
    return distinct(kept_prompts(prompts, what), reads)


def check_lists(concepts: Sequence[Concept], preserve: Sequence[str], exactly: Sequence[str], reads: Reads) -> None:
    """Raise ``ValueError`` for two concepts that the text encoder reads alike, and as ``check_preserve`` does.

    The lists are those of ``Statistics``; ``reads`` gives equal values for texts with the same tokens. Logs the
    warnings of ``warn_of_names``.
    """
    by_tokens: dict[Hashable, Concept] = {}
    for concept in concepts:
        earlier = by_tokens.setdefault(reads(concept.name), concept)
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
    workers: Workers = ALONE,
) -> Statistics:
    """Encode lists that were checked before, and return their statistics; see ``gather_statistics``.

    Processes share lists of at least ``BATCH`` texts for each; shorter ones each encodes as a whole. An error in one
    process is raised in all of them. With ``check``, the default, a concept that the model cannot read raises
    ``ConceptError``, one that the model has lost already ``ErasedAlreadyError``, and words that the model has not
    learned are warned of. It is off for concepts that were checked when they were added, and are now encoded again to
    subtract them.
    """
    lists = (tuple(concepts), tuple(preserve), tuple(exactly))
    if check:
        warn_of_unknown_words(model, concepts)
    if workers.count == 1 or sum(map(len, lists)) < workers.count * BATCH:
        return Statistics(_entries(model, *lists, name_only, callback, check), *lists, name_only)
    entries, error = {}, None
    shares = workers.share_of(lists[0]), workers.share_of(lists[1]), workers.share_of(lists[2])
    try:
        entries = _entries(model, *shares, name_only, callback, check)
    except Exception as problem:
        error = problem
    workers.agree(error)
    return Statistics(summed_entries(entries, workers), *lists, name_only)


def summed_entries(entries: Mapping[str, EntryStatistics], workers: Workers) -> dict[str, EntryStatistics]:
    """Return the sums of the statistics of all processes, by text entry; all processes must call this."""
    own = {name: entries[name].summed() for name in sorted(entries)}
    sums = iter(workers.summed([tensor for entry in own.values() for tensor in entry.tensors()]))
    return {name: entry.with_tensors([next(sums) for _ in entry.tensors()]) for name, entry in own.items()}


def _entries(
    model: TextReader,
    concepts: Sequence[Concept],
    preserve: Sequence[str],
    exactly: Sequence[str],
    name_only: bool,
    callback: Callback | None,
    check: bool,
) -> dict[str, EntryStatistics]:
    """Encode lists, and return the statistics of each text entry by its name."""
    pairs = {(concept.name, concept.instead or EMPTY_TARGET): concept for concept in concepts}
    whole = list(dict.fromkeys([EMPTY_TARGET, *preserve, *exactly]))
    names = [one for one in dict.fromkeys(prompt for pair in pairs for prompt in pair) if one not in set(whole)]
    erasures = model.erasures if check else ()
    to_preserve, to_exempt = set(preserve), set(exactly)
    gatherers: dict[str, EntryGatherer] = {}
    pending = _PendingPairs(list(pairs))
    for batch in _encoded(model, whole, names, name_only, callback):
        checks = []
        for prompt, read in batch:
            for name, rows in read.items():
                if name not in gatherers:
                    gatherers[name] = EntryGatherer(rows, name_only)  # of the empty prompt, which comes first
                gatherers[name].read(rows, prompt in to_preserve, prompt in to_exempt)
            if prompt == EMPTY_TARGET:
                nothing = read
            for pair, concept, target in pending.complete_with(prompt, read):
                if check:
                    checks.append((pairs[pair], concept, target))
                if erasures:
                    check_pair(erasures, pairs[pair], concept, target)
                for name, gatherer in gatherers.items():
                    gatherer.add_pair(concept[name], target[name], pair[1])
        check_reads(checks, nothing)
    return {name: gatherer.statistics() for name, gatherer in gatherers.items()}


def _encoded(
    model: TextReader, whole: Sequence[str], names: Sequence[str], name_only: bool, callback: Callback | None
) -> Iterator[list[tuple[str, Read]]]:
    """Encode prompts in batches, and yield each batch with the rows that the text entries read for its prompts.

    Of ``whole`` all rows are needed. With ``name_only`` those of ``names`` are needed up to the last token only, which
    a ``NameReader`` computes alone.
    """
    if name_only and isinstance(model, NameReader):
        batches = [(model.text_rows, part) for part in _batches(whole, BATCH)]
        batches += [(model.name_rows, part) for part in _batches(names, BATCH_OF_NAMES)]
    else:
        batches = [(model.text_rows, part) for part in _batches([*whole, *names], BATCH)]
    for done, (encode, batch) in enumerate(batches):
        if callback:
            callback(done, len(batches), ENCODING)
        with torch.no_grad():
            reads = on_float64_device(encode(batch))
        yield list(zip(batch, reads, strict=True))


def _batches(prompts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def on_float64_device(reads: Sequence[Read]) -> Sequence[Read]:
    """Return the rows of a batch as they are, or on the CPU if they are on an Apple device, which has no float64.

    Each text entry is moved once, not prompt by prompt.
    """
    moved: list[dict[str, list[TextRows]]] = [{} for _ in reads]
    for name in reads[0] if reads else ():
        parts = [part for read in reads for part in read[name]]
        if has_float64(parts[0].rows.device):
            rows = [part.rows for part in parts]
        else:
            rows = list(torch.cat([part.rows for part in parts]).cpu().split([len(part.rows) for part in parts]))
        each = iter([replace(part, rows=one) for part, one in zip(parts, rows, strict=True)])
        for read, result in zip(reads, moved, strict=True):
            result[name] = [next(each) for _ in read[name]]
    return moved


class _PendingPairs:
    """Pairs of prompts, name and target, that wait until both are encoded, and the rows encoded so far."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self.pairs = deque(pairs)
        self.uses = Counter(prompt for pair in pairs for prompt in pair)
        self.rows: dict[str, Read] = {}

    def complete_with(self, prompt: str, read: Read) -> Iterator[tuple[tuple[str, str], Read, Read]]:
        """Add an encoded prompt, and yield the pairs that are now complete, with the rows of both prompts.

        The rows of a prompt are freed after the last pair that needs them.
        """
        if self.uses[prompt]:
            self.rows[prompt] = read
        while self.pairs and all(one in self.rows for one in self.pairs[0]):
            pair = self.pairs.popleft()
            yield pair, self.rows[pair[0]], self.rows[pair[1]]
            for one in pair:
                self.uses[one] -= 1
                if not self.uses[one]:
                    del self.rows[one]
