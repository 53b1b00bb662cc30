"""The sentence at a node on what it will erase and preserve, before it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..erasure_core.closed_form.collect import check_preserve, warnings_of_names
from ..erasure_core.concepts.common import built_in_prompts
from ..erasure_core.concepts.names import distinct
from ..erasure_core.concepts.parse import Concept, concepts_and_warnings, kept_prompts, parse_prompts, single_concept
from ..erasure_core.quoting import excerpt
from .input_checks import check_text
from .inputs import NO_LIST, preserved

SEVERAL, SINGLE, STATISTICS = "concepts", "concept", "statistics"  # inputs for what to erase
CAPTIONS = "everyday_captions"  # the input that preserves the built-in captions
NOTHING = "Name what to erase, for example: van gogh -> art. The rest can stay as it is."


@dataclass(frozen=True)
class Announcement:
    """What a node will do or, if ``wrong``, why it will refuse."""

    text: str
    wrong: bool = False


def announcement(values: Mapping[str, Any], linked: Collection[str]) -> Announcement:
    """Return what a node will erase and preserve, with the warnings on its lists of concepts and prompts.

    ``values`` are those of the node's widgets by their names; ``linked`` are its inputs that are connected, so that
    their values are not known before it runs. Raises ``ValueError`` where they are of another form, or name no concept.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"values must be an object of values by their names, got {excerpt(values)}")
    if not isinstance(linked, Collection) or not all(isinstance(one, str) for one in linked):
        raise ValueError(f"linked must be a list of names, got {excerpt(linked)}")
    if not {SEVERAL, SINGLE} & values.keys():
        raise ValueError(f"values names neither {SEVERAL} nor {SINGLE}, so there is nothing to announce")
    name = SEVERAL if SEVERAL in values else SINGLE
    if name in linked:
        return Announcement("Erases the concepts that are connected.")
    try:
        check_text(name, values[name])
        if values[name].strip():
            return Announcement(_sentences(name, values, linked))
        return Announcement("Erases the concepts of the statistics." if STATISTICS in linked else NOTHING)
    except ValueError as error:
        return Announcement(str(error), wrong=True)


def _sentences(name: str, values: Mapping[str, Any], linked: Collection[str]) -> str:
    concepts, warnings = concepts_and_warnings(values[name], name)
    if name == SINGLE:
        single_concept(concepts, "this node")
    own, exactly = (_prompts(one, values, linked) for one in ("preserve", "exactly"))
    check_preserve(concepts, own, exactly)
    warnings += warnings_of_names(concepts, own, exactly)
    which = values.get("preserve_list", NO_LIST)
    check_text("preserve_list", which)
    listed = preserved(concepts, "", values.get("preserve_common", False), which)
    prompts = [prompt for prompt in distinct([*own, *exactly, *listed]) if prompt]
    captions = values.get(CAPTIONS, False) and CAPTIONS not in linked
    built_in = set(built_in_prompts(concepts, common=False, captions=captions)) - {"", *prompts}
    stays = [_count(len(prompts), "prompt")] if prompts else []
    stays += [_count(len(built_in), "built-in caption")] if built_in else []
    stays += ["the prompts that are connected"] if {"preserve", "exactly"} & set(linked) else []
    erased = _erased(concepts) + (" and those of the statistics" if STATISTICS in linked else "")
    preserves = f", preserves {_enumerated(stays)}" if stays else ""
    return " ".join([f"Erases {erased}{preserves}.", *warnings])


def _erased(concepts: Sequence[Concept]) -> str:
    count, bare = _count(len(concepts), SINGLE), sum(not one.instead for one in concepts)
    if not bare:
        return count
    if bare < len(concepts):
        return f"{count} ({bare} without a replacement)"
    named = count if bare > 1 else f"'{excerpt(concepts[0].name)}'"
    return f"{named} without a replacement"


def _prompts(name: str, values: Mapping[str, Any], linked: Collection[str]) -> list[str]:
    """Return the prompts to preserve in a field; none if it is connected, or if the node has no such field."""
    text = "" if name in linked else values.get(name, "")
    check_text(name, text)
    return kept_prompts(parse_prompts(text, name), name)


def _enumerated(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
