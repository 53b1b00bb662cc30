"""Measure RECE on the embedded model, concept by concept, and write docs/results.md. Run it again to resume.

python tools/make_results.py [--out docs/results.md] [--fresh]
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from erasure_core import Concept, Erasure, common_concepts
from erasure_core.evaluation import NAMES, evaluate_erasure, evaluate_model, evaluate_renders, subject_of
from erasure_core.methods.rece import PUBLISHED
from erasure_core.methods.registry import METHODS
from erasure_core.table import table
from erasure_core.toy import Judge, load_toy

TUNED_ON = ("cat", "pizza", "car", "noto")
OBJECTS = ("cat", "dog", "pizza", "car", "rose", "skull", "penguin", "banana", "guitar", "pumpkin")
STYLES = ("noto", "twemoji", "blob", "fluent")
REPLACED = ("cat -> dog", "rose -> sunflower", "noto -> fluent")
SETTINGS = {
    "default": ("rece", "the product's default: preset of this pack, common concepts preserved"),
    "unlisted": ("rece", "the default without the model's own objects and styles among what is preserved"),
    "published": ("rece", "the published settings: preset of the paper, only the empty prompt preserved"),
    "uce": ("uce", "UCE with common concepts preserved"),
}
NOTHING = "nothing"
ERASED, OTHERS, SEED = 24, 72, 100
COLUMNS = ("UA", "IRA", "CRA", "colour")


def concepts() -> list[Concept]:
    """Ten objects and four styles towards nothing in particular, and three with a replacement."""
    pairs = [text.split(" -> ") for text in REPLACED]
    return [Concept(name) for name in (*OBJECTS, *STYLES)] + [Concept(*pair) for pair in pairs]


def erase(model, concept: Concept, setting: str) -> Erasure:
    method = METHODS[SETTINGS[setting][0]]
    kind = "style" if subject_of(concept).kind == "style" else "object"
    presets = PUBLISHED if setting == "published" else method.presets
    preserve = () if setting == "published" else common_concepts([concept])
    if setting == "unlisted":
        known = {*NAMES["object"], *(f"in the style of {style}" for style in NAMES["style"])}
        preserve = [prompt for prompt in preserve if prompt not in known]
    return method.run(model, [concept], preserve=preserve, **asdict(presets[kind]))


def measure(model, judge: Judge, concept: Concept, setting: str) -> dict:
    """The row of a setting, or of the unedited model, always on the same captions and noise."""
    erasure = None if setting == NOTHING else erase(model, concept, setting)
    scores, _ = evaluate_erasure(model, judge, concept, erasure, erased=ERASED, others=OTHERS, seed=SEED)
    shares = dict(zip(COLUMNS, (scores.ua, scores.ira, scores.cra, scores.colour), strict=True))
    return {"concept": str(concept), "kind": scores.subject.kind, "setting": setting, **shares}


def report(rows: list[dict], quality: str) -> str:
    """The page, from the rows."""
    parts = [HEAD.format(erased=ERASED, others=OTHERS, quality=quality, tuned=", ".join(TUNED_ON))]
    for setting, (_, meaning) in SETTINGS.items():
        parts.append(f"## {setting}: {meaning}\n\n{_setting_table(rows, setting)}")
    return "\n\n".join(parts) + "\n"


def _setting_table(rows: list[dict], setting: str) -> str:
    before = {row["concept"]: row for row in rows if row["setting"] == NOTHING}
    order = [str(concept) for concept in concepts()]
    after = sorted((row for row in rows if row["setting"] == setting), key=lambda row: order.index(row["concept"]))
    lines = [_line(row["concept"], row, before[row["concept"]]) for row in after]
    single = [row for row in after if "->" not in row["concept"]]
    groups = {
        "mean of objects": [row for row in single if row["kind"] == "object"],
        "mean of styles": [row for row in single if row["kind"] == "style"],
        "mean of all single": single,
        "mean of those never tuned on": [row for row in single if row["concept"] not in TUNED_ON],
    }
    for name, group in groups.items():
        unedited = [before[row["concept"]] for row in group]
        lines.append(_line(f"**{name}**", _mean(group), _mean(unedited)))
    return table(("erased", *COLUMNS), lines)


def _mean(rows: list[dict]) -> dict:
    return {key: mean(row[key] for row in rows) for key in COLUMNS}


def _line(name: str, row: dict, before: dict) -> list[str]:
    cells = [f"{100 * row['UA']:.0f}"]
    cells += [f"{100 * row[key]:.0f} ({100 * (row[key] - before[key]):+.0f})" for key in COLUMNS[1:]]
    return [name, *cells]


HEAD = """# What RECE does to the embedded model

Every number on this page comes from `make results` (`tools/make_results.py`), by the judge that ships with the model.
Percent; in brackets the change against the unedited model on the same captions and the same noise. {erased} pictures
of what is erased and {others} of the others of its kind for each row.

- **UA**: pictures of the erased concept that are no longer recognised as it.
- **IRA**: pictures of the other objects (styles, when a style was erased) recognised as what was asked for.
- **CRA**: accuracy on the other kind: styles when an object was erased, objects when a style was.
- **colour**: background colours that are right.

{quality}

Everything that IRA and CRA count is itself on the default list of what is preserved. "unlisted" takes it off that list
and so shows what happens to concepts that nobody listed.

Settings were tuned on {tuned}. Of the other concepts, pictures of roses were looked at when the amplification of
objects was chosen, and the rows of objects at an amplification of 1.6, which are the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--rows", type=Path, default=Path("build/results.jsonl"))
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    args = parser.parse_args()
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        args.rows.unlink(missing_ok=True)
    model, judge = load_toy(), Judge.load()
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    done = {(row["concept"], row["setting"]) for row in rows}
    for concept, setting in itertools.product(concepts(), (NOTHING, *SETTINGS)):
        if (str(concept), setting) in done:
            continue
        rows.append(measure(model, judge, concept, setting))
        print(rows[-1], flush=True)
        with args.rows.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    found, renders = evaluate_model(model, judge, images=384, seed=SEED), evaluate_renders(model, judge)
    quality = (
        f"Unedited, on {found.images} fresh captions: object {100 * found.object:.1f} %, "
        f"style {100 * found.style:.1f} %, colour {100 * found.colour:.1f} %.\n"
        f"Of {renders.raw.images} real renders the judge names {100 * renders.raw.object:.1f} / "
        f"{100 * renders.raw.style:.1f} / {100 * renders.raw.colour:.1f} % rightly, and passed through the autoencoder "
        f"(PSNR {renders.psnr:.1f} dB) {100 * renders.decoded.object:.1f} / {100 * renders.decoded.style:.1f} / "
        f"{100 * renders.decoded.colour:.1f} %."
    )
    args.out.write_text(report(rows, quality), encoding="utf-8")


if __name__ == "__main__":
    main()
