"""One concept after another: UA, IRA, CRA and colour by RECE, UCE, and few-shot as published."""

from __future__ import annotations

import time
from collections import Counter
from functools import lru_cache
from statistics import mean

from erasure_core import Concept, Erasure
from erasure_core.drawing.table import table
from erasure_core.toy.evaluation import drift_outside, evaluate_erasure

from .settings import ALL, INSTEAD, OBJECTS, RECE, REPLACED, SEED, STYLES, TUNED_ON, Bench

NOTHING = "nothing"
METHODS = {name: ALL[name] for name in ("rece", "few_shot")}
"""``learned`` measures DoCo and AbO, with several seeds."""
ERASED, OTHERS = 24, 72
COLUMNS = ("UA", "IRA", "CRA", "colour")


def concepts(setting: str) -> list[Concept]:
    """Ten objects and four styles, with their replacements or (and then three with one) without."""
    single = (*OBJECTS, *STYLES)
    if setting in ALL:
        return [Concept(name, INSTEAD[name] if ALL[setting].instead else "") for name in single]
    return [Concept(name) for name in single] + [Concept(*text.split(" -> ")) for text in REPLACED]


def jobs() -> list[dict]:
    """Everything to measure, the settings of one concept after one another."""
    pairs = [(concept, name) for name in RECE for concept in concepts(name)]
    pairs += [(concept, NOTHING) for concept in concepts("listed")]
    pairs += [(concept, name) for name in METHODS for concept in concepts(name)]
    return [{"concept": str(concept), "setting": name} for concept, name in sorted(pairs, key=lambda one: one[0].name)]


def measure(bench: Bench, concept: str, setting: str) -> dict:
    """Of a setting, or of the unedited model, always on the same captions and noise."""
    asked = Concept(*concept.split(" -> "))
    before = unedited(bench, asked.name)
    began = time.perf_counter()
    erasure = None if setting == NOTHING else bench.erased_anew(asked, setting)
    seconds = time.perf_counter() - began
    scores, gallery = before if erasure is None else drawn(bench, asked.name, erasure)
    shares = dict(zip(COLUMNS, (scores.ua, scores.ira, scores.cra, scores.colour), strict=True))
    seen = getattr(gallery.verdict, f"{scores.subject.kind}s")[: scores.erased]
    return {
        "kind": scores.subject.kind, **shares, "seconds": seconds,
        "outside": drift_outside(before[1], gallery, scores.subject), "seen": Counter(seen).most_common(),
    }  # fmt: skip


@lru_cache(maxsize=16)
def unedited(bench: Bench, name: str) -> tuple:
    return drawn(bench, name, None)


def drawn(bench: Bench, name: str, erasure: Erasure | None) -> tuple:
    counts = {"erased": ERASED, "others": OTHERS, "seed": SEED}
    return evaluate_erasure(bench.model, bench.judge, name, erasure, **counts)


def section(rows: list[dict]) -> str:
    """One table of means, then one for each setting."""
    parts = [HEAD.format(erased=ERASED, others=OTHERS, tuned=", ".join(TUNED_ON)), _summary(rows)]
    for name, setting in {**RECE, **METHODS}.items():
        parts.append(f"### {name}: {setting.meaning}\n\n{_setting_table(rows, name)}")
    return "\n\n".join(parts)


def _summary(rows: list[dict]) -> str:
    """Means of every method in one table, objects first."""
    before, lines = _unedited_rows(rows), []
    for kind in ("object", "style"):
        for name in ("listed", "uce", *METHODS):
            group = [row for row in _single(rows, name) if row["kind"] == kind]
            cells = _line(f"{kind}s, {name}", _mean(group), _mean([before[_name(row)] for row in group]))
            lines.append([*cells, f"{100 * mean(r['outside'] for r in group):.1f}", _seconds(group)])
    return table(("erased, setting", *COLUMNS, "outside", "seconds"), lines)


def _setting_table(rows: list[dict], name: str) -> str:
    before = _unedited_rows(rows)
    order = [str(concept) for concept in concepts(name)]
    found = sorted((row for row in rows if row["setting"] == name), key=lambda row: order.index(row["concept"]))
    lines = [_line(row["concept"], row, before[_name(row)]) + _extras(row, name) for row in found]
    single = _single(rows, name)
    groups = {
        "mean of objects": [row for row in single if row["kind"] == "object"],
        "mean of styles": [row for row in single if row["kind"] == "style"],
        "mean of all single": single,
        "mean of those never tuned on": [row for row in single if _name(row) not in TUNED_ON],
    }
    for label, group in groups.items():
        line = _line(f"**{label}**", _mean(group), _mean([before[_name(row)] for row in group]))
        lines.append(line + ([f"{100 * mean(row['outside'] for row in group):.1f}", ""] if name in ALL else []))
    return table(("erased", *COLUMNS, *(("outside", "what the judge sees instead") if name in ALL else ())), lines)


def _extras(row: dict, name: str) -> list[str]:
    if name not in ALL:
        return []
    seen = ", ".join(f"{count} {thing}" for thing, count in row["seen"][:5] if thing != _name(row))
    return [f"{100 * row['outside']:.1f}", seen]


def _single(rows: list[dict], name: str) -> list[dict]:
    """Each concept once: of the RECE settings the rows without a replacement."""
    return [row for row in rows if row["setting"] == name and (name in ALL or "->" not in row["concept"])]


def _unedited_rows(rows: list[dict]) -> dict[str, dict]:
    return {_name(row): row for row in rows if row["setting"] == NOTHING and "->" not in row["concept"]}


def _name(row: dict) -> str:
    return row["concept"].partition(" -> ")[0]


def _seconds(group: list[dict]) -> str:
    return f"{mean(row['seconds'] for row in group):.1f}"


def _mean(rows: list[dict]) -> dict:
    return {key: mean(row[key] for row in rows) for key in COLUMNS}


def _line(name: str, row: dict, before: dict) -> list[str]:
    cells = [f"{100 * row['UA']:.0f}"]
    cells += [f"{100 * row[key]:.0f} ({100 * (row[key] - before[key]):+.0f})" for key in COLUMNS[1:]]
    return [name, *cells]


HEAD = """## One concept at a time

Each row has {erased} pictures of the erased concept and {others} of the others of its kind. In brackets stands the
change against the unedited model, on the same captions and the same noise.

Everything that IRA and CRA count is on the list of common concepts, which "listed", "uce" and "rece" preserve.
"unlisted" shows what happens to concepts that nobody listed. Few-shot as published, which is what stands here, takes no
list and sees four real renders of each concept; the page few-shot has its default. The tables name each concept's
replacement. RECE's default needs no list; it has [a page of its own](results-general.md). So have [DoCo and
AbO](results-learned.md).

Settings were tuned on {tuned}. The other concepts are not wholly unseen. Pictures of roses were looked at when
the amplification of objects was chosen, and so were the rows of objects at an amplification of 1.6, which are the same.
Few-shot's limit was raised from 3 to 5 after guitars and penguins had survived it."""
