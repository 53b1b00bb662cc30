"""Updating statistics: adding concepts and prompts, and taking some back, without encoding the rest anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..arguments import checked
from ..concepts.common import COMMON, EVERYDAY_CAPTIONS, built_in_prompts
from ..concepts.names import Named, distinct, finder, reader
from ..concepts.parse import Concept, as_concepts, as_prompts, check_targets
from ..model import Callback, TextReader
from ..quoting import excerpt, quoted
from ..workers import ALONE, Workers
from .collect import check_lists, checked_prompts, collect
from .statistics import Statistics


@checked
def extended(
    statistics: Statistics,
    model: TextReader,
    concepts: Sequence[Concept | str] | Concept | str = (),
    preserve: Sequence[str] | str = (),
    *,
    exactly: Sequence[str] | str = (),
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> Statistics:
    """Return ``statistics`` with more concepts, prompts to ``preserve`` and prompts to leave ``exactly`` alone.

    ``model`` encodes what is new. Concepts and prompts that the statistics already hold are skipped, and a preserved
    prompt that names a new concept is no longer preserved. ``callback`` gets the progress; ``workers`` share the
    encoding, here and in the functions below. Raises ``ValueError`` for
    a concept that the statistics hold with another target, for lists that contradict each other, and for a model with
    another text encoder.
    """
    concepts, reads = as_concepts(concepts) if concepts else [], reader(model)
    by_tokens = {reads(concept.name): concept for concept in statistics.concepts}
    for concept in concepts:
        earlier = by_tokens.get(reads(concept.name), concept)
        if reads(earlier.instead) != reads(concept.instead):
            raise ValueError(f"the statistics hold '{earlier}', not '{concept}'; take '{earlier.name}' back first")
    names = Named([concept.name for concept in concepts], reads)
    conflicting = [prompt for prompt in statistics.preserve if names.alone_in(prompt)]
    if conflicting:
        statistics -= collect(model, (), conflicting, (), statistics.name_only, callback, workers=workers)
    new = [concept for concept in concepts if reads(concept.name) not in by_tokens]
    preserve = distinct([*statistics.preserve, *checked_prompts(preserve, "preserve", reads)], reads)
    exactly = distinct([*statistics.exactly, *checked_prompts(exactly, "exactly", reads)], reads)
    check_lists((*statistics.concepts, *new), preserve, exactly, reads)
    check_targets(statistics.concepts, [concept.name for concept in new], reads)
    check_targets(new, [concept.name for concept in statistics.concepts], reads)
    old_preserve, old_exactly = (set(map(reads, prompts)) for prompts in (statistics.preserve, statistics.exactly))
    return statistics.plus(
        collect(
            model,
            new,
            [prompt for prompt in preserve if reads(prompt) not in old_preserve],
            [prompt for prompt in exactly if reads(prompt) not in old_exactly],
            statistics.name_only,
            callback,
            workers=workers,
        ),
        reads,
    )


@checked
def restored(
    statistics: Statistics,
    model: TextReader,
    names: Iterable[str] | str = (),
    *,
    preserve: Sequence[str] | str = (),
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> Statistics:
    """Return ``statistics`` without the concepts of these ``names`` and without the prompts in ``preserve``.

    The result is as if these had never been in the lists; ``model`` encodes them once more to subtract them. A name may
    be written with its target (``cat -> dog``). ``callback`` gets the progress. Raises ``ValueError`` for a concept or
    prompt that the statistics do not hold, and for a model with another text encoder.
    """
    concepts, preserve = held_concepts(statistics, names), checked_prompts(preserve, "preserve", reader(model))
    taken = collect(model, concepts, preserve, (), statistics.name_only, callback, check=False, workers=workers)
    return statistics - taken


def without_unlisted(
    statistics: Statistics,
    model: TextReader,
    listed: Collection[str],
    preserve: Iterable[str],
    *,
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> Statistics:
    """Return ``statistics`` without the preserved names of a list that are no longer to be preserved.

    ``listed`` is the whole list, and ``preserve`` are the prompts to preserve now: names that share a word with a
    concept that is new are not among them. The other arguments are those of ``restored``.
    """
    unlisted = set(listed) - set(preserve)
    obsolete = [text for text in statistics.preserve if text in unlisted]
    if not obsolete:
        return statistics
    return restored(statistics, model, preserve=obsolete, callback=callback, workers=workers)


def held_concepts(statistics: Statistics, names: Iterable[str] | str) -> list[Concept]:
    """Return the concepts of these names, each with or without its target.

    Raises ``ValueError`` for a name that the statistics do not hold, and for one that fits several concepts.
    """
    by_name = {name: concept for concept in statistics.concepts for name in (concept.name, str(concept))}
    find, names = finder(by_name), as_prompts(names, "names")
    matches = {name: list(dict.fromkeys(by_name[one] for one in find(name))) for name in names}
    missing = [name for name, concepts in matches.items() if not concepts]
    if missing:
        listing = quoted([str(concept) for concept in statistics.concepts]) or "none"
        raise ValueError(f"the statistics hold no concept {quoted(missing)}; they hold {listing}")
    for name, concepts in matches.items():
        if len(concepts) > 1:
            several = quoted([str(concept) for concept in concepts])
            raise ValueError(f"'{excerpt(name)}' may be each of {several} in the statistics; write it as they do")
    return list(dict.fromkeys(concept for concepts in matches.values() for concept in concepts))


@checked
def updated(
    statistics: Statistics,
    model: TextReader,
    concepts: Sequence[Concept | str] | Concept | str = (),
    preserve: Sequence[str] | str = (),
    *,
    restore: Iterable[str] | str = (),
    exactly: Sequence[str] | str = (),
    common: bool = True,
    captions: bool = False,
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> Statistics:
    """Return ``statistics`` with the concepts in ``restore`` taken back and ``concepts`` added.

    ``preserve`` and ``exactly`` add prompts as in ``extended``. With ``common``, the default, the built-in list of
    everyday concepts is preserved as if all concepts had been listed at once, and with ``captions``, off by default, so
    are the built-in captions. The empty prompt is preserved if nothing else is. Raises ``ValueError`` for a concept
    that is taken back and added with the same target, and as ``extended`` and ``restored`` do.
    """
    concepts = as_concepts(concepts) if concepts else []
    to_restore, reads = held_concepts(statistics, as_prompts(restore, "restore")), reader(model)
    keys = {(reads(concept.name), reads(concept.instead)) for concept in to_restore}
    both = [str(concept) for concept in concepts if (reads(concept.name), reads(concept.instead)) in keys]
    if both:
        raise ValueError(f"{quoted(both)} is both to be erased and to be restored; take it out of one of the two lists")
    erased = [concept for concept in statistics.concepts if concept not in to_restore] + list(concepts)
    built_in = {*(COMMON if common else ()), *(EVERYDAY_CAPTIONS if captions else ())}
    preserve_now = [*as_prompts(preserve, "preserve"), *built_in_prompts(erased, common=common, captions=captions)]
    obsolete = [text for text in statistics.preserve if text in built_in and text not in preserve_now]
    if statistics.preserve == ("",) and preserve and not built_in:
        obsolete = [""]
    result = extended(
        restored(statistics, model, map(str, to_restore), preserve=obsolete, callback=callback, workers=workers),
        model, concepts, preserve_now, exactly=exactly, callback=callback, workers=workers,
    )  # fmt: skip
    return result if result.preserve else extended(result, model, preserve=[""])
