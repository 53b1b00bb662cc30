"""What RECE's default does to prompts without the name, in a negative prompt, and under a name that nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from erasure_core import Concept, common_concepts
from erasure_core.concepts.common import EVERYDAY_CAPTIONS as BUILT_IN
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE, rece
from erasure_core.sampling.ddim import generate
from erasure_core.toy.captions import OBJECTS as ALL_OBJECTS
from erasure_core.toy.captions import Caption, sample_captions
from erasure_core.toy.evaluation import Subject, draw, subject_of

from .settings import DEFAULT, INSTEAD, SEED, STYLES, Bench

OBJECTS = ("cat", "pizza", "penguin", "guitar")
HELD = tuple(name for name in ALL_OBJECTS if any(name in caption.split() for caption in BUILT_IN))
"""The objects in the built-in captions; no picture here is of them."""
WITHOUT, NOTHING, COMMON = LISTED = ("without the captions", "nothing", "everyday")
NAMELESS, NEGATIVE, UNKNOWN = "nameless", "negative", "unknown"
PICTURES, EMPTY = 40, 24
MISSPELT = ("kat -> dog", "zebra")


def jobs() -> list[dict]:
    nameless = [(NAMELESS, name, listed) for name in (*STYLES, *OBJECTS) for listed in LISTED]
    negative = [(NEGATIVE, text, NOTHING) for name in ("cat", "noto") for text in (name, f"{name} -> {INSTEAD[name]}")]
    unknown = [(UNKNOWN, text, listed) for text in MISSPELT for listed in LISTED]
    return [{"case": case, "erased": text, "listed": one} for case, text, one in (*nameless, *negative, *unknown)]


def measure(bench: Bench, case: str, erased: str, listed: str) -> dict:
    """Shares of pictures of the unedited model (``before``) and of the edited one (``after``)."""
    concept = Concept(*erased.split(" -> "))
    settings = replace(RECE[DEFAULT], everyday_captions=listed != WITHOUT)
    preserve = common_concepts([concept]) if listed == COMMON else []
    erasure = rece(bench.model, [concept], settings, preserve=preserve)
    share = {NAMELESS: nameless_share, NEGATIVE: _negative, UNKNOWN: _recognised}[case]
    before = share(bench, concept)
    with erasure.applied_to(bench.model):
        return {"before": before, "after": share(bench, concept)}


def nameless_captions(subject: Subject) -> list[Caption]:
    """Captions that name nothing of the subject's kind, and no object that is held."""
    drawn = [one for one in sample_captions(1000, SEED) if one.object not in (*HELD, subject.name)]
    return [replace(one, **{subject.kind: None}) for one in drawn[:PICTURES]]


def nameless_share(bench: Bench, concept: Concept) -> float:
    """The share of pictures that show the concept though no prompt names anything of its kind."""
    subject = subject_of(concept)
    verdict = draw(bench.model, bench.judge, nameless_captions(subject), seed=SEED).verdict
    return list(getattr(verdict, f"{subject.kind}s")).count(subject.name) / PICTURES


def _negative(bench: Bench, concept: Concept) -> dict[str, float]:
    """The same of the empty prompt, without a negative prompt and with the concept's name as one."""
    subject, shares = subject_of(concept), {}
    for way, negative in (("without", ""), ("with", concept.name)):
        images = generate(bench.model, [""] * EMPTY, range(EMPTY), negative=negative)
        shares[way] = list(getattr(bench.judge.judge(images), f"{subject.kind}s")).count(subject.name) / EMPTY
    return shares


def _recognised(bench: Bench, concept: Concept) -> float:
    """The share of other objects that are recognised."""
    captions = [one for one in sample_captions(1000, SEED) if one.object not in (*HELD, "cat")][:PICTURES]
    objects = draw(bench.model, bench.judge, captions, seed=SEED).verdict.objects
    return sum(found == caption.object for found, caption in zip(objects, captions, strict=True)) / PICTURES


def section(rows: list[dict]) -> str:
    by_case = {case: [row for row in rows if row["case"] == case] for case in (NAMELESS, NEGATIVE, UNKNOWN)}
    head = HEAD.format(pictures=PICTURES, held=len(BUILT_IN))
    parts = [head + _by_list(by_case[NAMELESS])]
    lines = [
        [row["erased"], *(_percent(row[when][way]) for when in ("before", "after") for way in ("without", "with"))]
        for row in by_case[NEGATIVE]
    ]
    columns = ("erased", "before, none", "before, its name", "after, none", "after, its name")
    parts.append(NEGATIVES.format(empty=EMPTY) + table(columns, lines))
    parts.append(UNKNOWNS.format(pictures=PICTURES) + _by_list(by_case[UNKNOWN]))
    return "\n\n".join(parts)


def _by_list(rows: Sequence[dict]) -> str:
    """A line for each concept: the share before, and after with each list."""
    lines = []
    for erased in dict.fromkeys(row["erased"] for row in rows):
        mine = {row["listed"]: row for row in rows if row["erased"] == erased}
        if len(mine) == len(LISTED):
            lines.append([erased, _percent(mine[NOTHING]["before"]), *(_percent(mine[one]["after"]) for one in LISTED)])
    return table(("erased", "before", "without the captions", "the default", "and the everyday list"), lines)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


HEAD = """## Prompts that do not name the concept

How often pictures show the erased concept though their prompts name nothing of its kind: no style, where a style was
erased (`a lion on a red background`), and no object, where an object was (`in the style of blob on a red background`).
RECE's default, the preset `general`, without a replacement, {pictures} pictures each. Before it held its {held}
built-in captions (`everyday_captions`), it drew an erased style in most pictures of prompts that name none. No picture
here is of an object in these captions. The everyday list is `--common`.

"""
NEGATIVES = """## The concept as a negative prompt

Pictures of the empty prompt that show the concept, of {empty} each: with no negative prompt, and with the concept's
name as the negative prompt, before and after it was erased by the default.

"""
UNKNOWNS = """## A name that the model does not know

The embedded model never learned these two words. The shares are those of other objects that are recognised, in
{pictures} pictures; 100 means that nothing was harmed.

"""
