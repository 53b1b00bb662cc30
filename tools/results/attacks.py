"""What brings an erased concept back: every attack against every method."""

from __future__ import annotations

from erasure_core import Concept
from erasure_core.audit.attacks import ATTACKS
from erasure_core.audit.recognisers.toy import ToyRecogniser
from erasure_core.audit.red_team import attack
from erasure_core.drawing.table import table
from erasure_core.toy.evaluation import pictures_of, subject_of

from .settings import ALL, DEFAULT, INSTEAD, SEED, Bench

CONCEPTS = ("dog", "penguin", "twemoji")
SETTINGS = (DEFAULT, "listed", "uce", *ALL)
NOTHING = "nothing"
PICTURES, STEPS = 16, 200
ELSEWHERE = ("list", "finetune")
"""The attacks that ``paraphrases`` and ``finetune`` measure."""


def jobs() -> list[dict]:
    return [{"concept": name, "setting": setting} for name in CONCEPTS for setting in (NOTHING, *SETTINGS)]


def measure(bench: Bench, concept: str, setting: str) -> dict:
    """The share of each attack's pictures that show the concept; of the unedited model the name's."""
    subject = subject_of(concept)
    edited, chosen = bench.model, ["name"]
    if setting != NOTHING:
        edited = bench.erasure(asked(concept, setting), setting).over(bench.model)
        chosen = [name for name in ATTACKS if name not in ELSEWHERE]
    found = attack(
        bench.model, edited, concept, kind=subject.kind, attacks=chosen, images=pictures_of(subject, 8),
        recogniser=ToyRecogniser(bench.judge), pictures=PICTURES, steps=STEPS, seed=SEED,
    )  # fmt: skip
    return {
        "recovered": {one.attack: found.recovered(index) for index, one in enumerate(found.attempts)},
        "seconds": {one.attack: one.seconds for one in found.attempts},
        "words": next((one.prompts[0] for one in found.attempts if one.attack == "discrete"), ""),
    }


def asked(name: str, setting: str) -> Concept:
    """With its replacement where the setting has one."""
    return Concept(name, INSTEAD[name] if setting in ALL and ALL[setting].instead else "")


def section(rows: list[dict]) -> str:
    attacks = list(next(row for row in rows if row["setting"] != NOTHING)["recovered"])
    lines = []
    for setting in (NOTHING, *SETTINGS):
        for concept in CONCEPTS:
            (row,) = [row for row in rows if (row["concept"], row["setting"]) == (concept, setting)]
            shares = [row["recovered"].get(name) for name in attacks]
            cells = ["" if share is None else f"{100 * share:.0f}" for share in shares]
            lines.append([f"{'unedited' if setting == NOTHING else setting}, {concept}", *cells])
    words = [f"- {row['setting']}, {row['concept']}: `{row['words']}`" for row in rows if row["words"]]
    told = [
        f"- **{name}**: {one.summary}; the attacker needs {one.knows}."
        for name, one in ATTACKS.items()
        if name not in ELSEWHERE
    ]
    head = HEAD.format(pictures=PICTURES, steps=STEPS, told="\n".join(told))
    found = "\n".join(words)
    shown = table(("erased by, concept", *attacks), lines)
    return f"{head}{shown}\n\nWords that the search found:\n\n{found}"


HEAD = """## Attacks

How many of {pictures} pictures show the concept again, in percent, by the judge. Searches took {steps} steps (discrete:
a quarter of that) and learned from eight real renders. Paraphrases and fine-tuning are on
[a page of their own](results-resist.md).

{told}
- **noised, no prompt**: a control: how much of the concept is in the noised picture itself.

"""
