"""Statistics with more concepts, or with some taken back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..arguments import checked
from ..concepts.common import COMMON, common_concepts
from ..concepts.names import Named, distinct, finder, reader
from ..concepts.parse import Concept, as_concepts, as_prompts, check_targets
from ..model import Callback, TextReader
from ..quoting import quoted, shown
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
) -> Statistics:
    """With more concepts and prompts; those that are held already are passed over.

    A prompt that was preserved and names a new concept is no longer preserved.
    Raises ``ValueError`` for a concept that is held with something else to draw instead, and for other text encoders.
    """
    concepts, reads = as_concepts(concepts) if concepts else [], reader(model)
    held = {reads(concept.name): concept for concept in statistics.concepts}
    for concept in concepts:
        known = held.get(reads(concept.name), concept)
        if reads(known.instead) != reads(concept.instead):
            raise ValueError(f"the statistics hold '{known}', not '{concept}'; take '{known.name}' back first")
    names = Named([concept.name for concept in concepts], reads)
    named = [prompt for prompt in statistics.preserve if names.alone_in(prompt)]
    if named:
        statistics -= collect(model, (), named, (), statistics.name_only, callback)
    new = [concept for concept in concepts if reads(concept.name) not in held]
    preserve = distinct([*statistics.preserve, *checked_prompts(preserve, "preserve", reads)], reads)
    exactly = distinct([*statistics.exactly, *checked_prompts(exactly, "exactly", reads)], reads)
    check_lists((*statistics.concepts, *new), preserve, exactly, reads)
    check_targets(statistics.concepts, [concept.name for concept in new], reads)
    check_targets(new, [concept.name for concept in statistics.concepts], reads)
    kept, exempt = (set(map(reads, prompts)) for prompts in (statistics.preserve, statistics.exactly))
    return statistics.plus(
        collect(
            model,
            new,
            [prompt for prompt in preserve if reads(prompt) not in kept],
            [prompt for prompt in exactly if reads(prompt) not in exempt],
            statistics.name_only,
            callback,
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
) -> Statistics:
    """Without the concepts of these names, as if they had never been named, and without prompts in ``preserve``.

    ``names`` may say what to draw instead, as concepts do. Raises ``ValueError`` for one that is not held, and for
    other text encoders.
    """
    concepts, preserve = held_concepts(statistics, names), checked_prompts(preserve, "preserve", reader(model))
    return statistics - collect(model, concepts, preserve, (), statistics.name_only, callback, check=False)


def held_concepts(statistics: Statistics, names: Iterable[str] | str) -> list[Concept]:
    """The concepts of these names, or as they are written with what to draw instead.

    Raises ``ValueError`` for a name that is not held, and for one that may be several.
    """
    held = {name: concept for concept in statistics.concepts for name in (concept.name, str(concept))}
    find, names = finder(held), as_prompts(names, "names")
    found = {name: list(dict.fromkeys(held[one] for one in find(name))) for name in names}
    missing = [name for name, concepts in found.items() if not concepts]
    if missing:
        known = quoted([str(concept) for concept in statistics.concepts]) or "none"
        raise ValueError(f"the statistics hold no concept {quoted(missing)}; they hold {known}")
    for name, concepts in found.items():
        if len(concepts) > 1:
            several = quoted([str(concept) for concept in concepts])
            raise ValueError(f"'{shown(name)}' may be each of {several} in the statistics; write it as they do")
    return list(dict.fromkeys(concept for concepts in found.values() for concept in concepts))


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
    callback: Callback | None = None,
) -> Statistics:
    """With some concepts taken back and others added.

    ``common``: those of the common concepts are preserved that would be if all had been named at once. The empty prompt
    is preserved where nothing else is. Raises ``ValueError`` for a concept that is taken back and added as it was.
    """
    concepts = as_concepts(concepts) if concepts else []
    back, reads = held_concepts(statistics, as_prompts(restore, "restore")), reader(model)
    taken = {(reads(concept.name), reads(concept.instead)) for concept in back}
    both = [str(concept) for concept in concepts if (reads(concept.name), reads(concept.instead)) in taken]
    if both:
        raise ValueError(f"{quoted(both)} is both to be erased and to be restored; take it out of one of the two lists")
    erased = [concept for concept in statistics.concepts if concept not in back] + list(concepts)
    wanted = [*as_prompts(preserve, "preserve"), *(common_concepts(erased) if common else ())]
    left = [text for text in statistics.preserve if common and text in COMMON and text not in wanted]
    if statistics.preserve == ("",) and preserve and not common:
        left = [""]
    found = extended(
        restored(statistics, model, map(str, back), preserve=left, callback=callback),
        model, concepts, wanted, exactly=exactly, callback=callback,
    )  # fmt: skip
    return found if found.preserve else extended(found, model, preserve=[""])
