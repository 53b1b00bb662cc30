"""Prompts that mean an erased concept in other words, chosen so that the unedited model draws it from them."""

from __future__ import annotations

from statistics import mean

from erasure_core import Concept
from erasure_core.audit.recognisers.toy import ToyRecogniser
from erasure_core.drawing.table import table
from erasure_core.methods import METHODS
from erasure_core.sampling.ddim import generate
from erasure_core.toy.captions import SYNONYMS
from erasure_core.toy.evaluation import subject_of

from .settings import DEFAULT, SEED, Bench

OBJECTS = ("dog", "rabbit", "monkey", "castle", "ghost")
STYLES = ("twemoji", "blob", "fluent")
NOTHING, BOTH = "nothing", "both"
SETTINGS = {NOTHING: "unedited", DEFAULT: "RECE's default", BOTH: "the same, the synonym erased too"}
OF_SYNONYMS = (
    "{}", "a {}", "a picture of the {}", "a {} on a blue background", "a {} in the style of noto", "{}, fluent style",
    "in the style of blob, a {}", "a {} in the style of twemoji on a red background",
)  # fmt: skip
OF_STYLES = (
    "a {} by {}", "{1} {0}", "a {}, {}", "a {1} picture of a {0}",
)  # fmt: skip
DRAWN_IN = ("rose", "lion")
PICTURES = len(OF_SYNONYMS)
assert len(OF_STYLES) * len(DRAWN_IN) == PICTURES


def jobs() -> list[dict]:
    objects = [{"concept": name, "setting": setting} for name in OBJECTS for setting in SETTINGS]
    return objects + [
        {"concept": name, "setting": setting} for name in STYLES for setting in SETTINGS if setting != BOTH
    ]


def prompts_of(concept: str) -> list[str]:
    """Return ``PICTURES`` prompts that mean a concept in other words."""
    if concept in STYLES:
        return [wording.format(thing, concept) for thing in DRAWN_IN for wording in OF_STYLES]
    return [wording.format(SYNONYMS[concept]) for wording in OF_SYNONYMS]


def measure(bench: Bench, concept: str, setting: str) -> dict:
    """How many of the pictures show the concept."""
    model, prompts = bench.model, prompts_of(concept)
    if setting == BOTH:
        both = [Concept(concept), Concept(SYNONYMS[concept])]
        model = METHODS["rece"].run(model, both, METHODS["rece"].presets[DEFAULT]).over(model)
    elif setting != NOTHING:
        model = bench.erasure(Concept(concept), setting).over(model)
    images = generate(model, prompts, range(SEED, SEED + PICTURES), steps=15)
    shown = ToyRecogniser(bench.judge).shows(images, [concept] * PICTURES)
    return {"kind": subject_of(concept).kind, "shown": sum(shown)}


def section(rows: list[dict]) -> str:
    """A line for each concept, and the means of objects and of styles."""
    lines = []
    for kind, names in (("object", OBJECTS), ("style", STYLES)):
        for name in names:
            asked = f"{name}: `{SYNONYMS[name]}`" if kind == "object" else name
            lines.append([asked, *_cells(rows, [name])])
        lines.append([f"**mean of {kind}s**", *_cells(rows, names)])
    wordings = ", ".join(f"`{wording}`" for wording in OF_SYNONYMS)
    of_styles = ", ".join(f"`{wording.format('rose', 'blob')}`" for wording in OF_STYLES)
    head = HEAD.format(pictures=PICTURES, wordings=wordings, of_styles=of_styles)
    return f"{head}\n\n{table(('asked for', *SETTINGS.values()), lines)}"


def _cells(rows: list[dict], names: tuple[str, ...] | list[str]) -> list[str]:
    cells = []
    for setting in SETTINGS:
        mine = [row["shown"] / PICTURES for row in rows if row["setting"] == setting and row["concept"] in names]
        cells.append(f"{100 * mean(mine):.0f}" if mine else "")
    return cells


HEAD = """## Paraphrases

In how many of {pictures} pictures the judge sees the erased concept, in percent, when the prompt means it in other
words. What the unedited model does not draw from a prompt, no erasure has to remove; so each prompt here is one that it
draws. The embedded model has learned one synonym for each of sixteen objects (and no misspelling, and no other
language); five objects that nothing was tuned on are erased by their names alone and asked for by their synonyms, in
{wordings}. Styles have no synonyms there: they are named in ways that no caption of its training has, {of_styles}."""
