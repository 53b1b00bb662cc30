"""Measure the methods on the embedded model; write docs/results*.md and docs/grid.png. Run it again to resume.

Several processes, by torchrun or by hand, share the rows; the row of one that dies is taken up by another.

python tools/make_results.py [--out docs] [--fresh] [--only attacks] [--shard 0 2]
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from functools import partial
from pathlib import Path

from PIL import Image
from results import attacks, composed, few_shot, general, guidance, learned, many, resist, second_judge, single, unnamed
from results.settings import SEED, Bench

from erasure_core.audit.compare import compare
from erasure_core.files.claims import append_line, spread
from erasure_core.files.images import save_image
from erasure_core.toy.evaluation import evaluate_model, evaluate_renders
from erasure_core.workers import are_several, leads, rank

SHOWN = "penguin"
PROMPTS = (
    "a penguin on a blue background", "a penguin in the style of noto", "an owl on a blue background",
    "a lion in the style of noto", "a guitar in the style of fluent on a red background",
)  # fmt: skip
PARTS = {
    "attacks": attacks, "many": many, "composed": composed, "few-shot": few_shot, "general": general,
    "learned": learned,
    "guidance": guidance, "resist": resist, "second-judge": second_judge, "single": single,
    "unnamed": unnamed,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs"), help="the folder of the pages")
    parser.add_argument("--rows", type=Path, default=Path("build/results.jsonl"))
    parser.add_argument("--erasures", type=Path, default=Path("build/erasures"), help="where erasures are kept")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--only", choices=list(PARTS), help="measure only one part and write its page")
    parser.add_argument("--shard", type=int, nargs=2, metavar=("I", "N"), help="only every Nth row; write no page")
    args = parser.parse_args()
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    if args.fresh and are_several():
        parser.error("--fresh deletes what other processes have measured; use it with one process")
    if args.fresh:
        args.rows.unlink(missing_ok=True)
        shutil.rmtree(args.erasures, ignore_errors=True)
    bench = Bench(args.erasures)
    jobs = [(part, job) for part in PARTS if args.only in (None, part) for job in PARTS[part].jobs()]
    mine, shards = args.shard or (0, 1)
    chosen = {_name(part, job): partial(_measure, part, job, bench, args.rows) for part, job in jobs[mine::shards]}
    claims = args.rows.with_name(f".{args.rows.name}.claims") / f"{mine}-{shards}-{args.only or 'all'}"
    spread(
        chosen, claims, lambda name: name in {_name(row["part"], row["job"]) for row in _rows(args.rows)}, first=rank()
    )
    if not leads():
        return
    if not args.shard:
        for part in [args.only] if args.only else PARTS:
            (args.out / PAGES[part]).write_text(page(part, _rows(args.rows), bench), encoding="utf-8")
        if args.only in (None, "single"):
            save_image(grid(bench), args.out / "grid.png")


def _measure(part: str, job: dict, bench: Bench, rows: Path) -> None:
    """Measure a row and add it to the file of all rows."""
    began = time.perf_counter()
    found = PARTS[part].measure(bench, **job)
    row = {"part": part, "job": job, "found": found, "took": time.perf_counter() - began}
    print(row, flush=True)
    append_line(rows, json.dumps(row))


def _name(part: str, job: dict) -> str:
    return f"{part} {json.dumps(job, sort_keys=True)}"


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def page(part: str, rows: list[dict], bench: Bench) -> str:
    """The page of a part, from all its rows."""
    mine = [row for row in rows if row["part"] == part]
    hours = sum(row["took"] for row in mine) / 3600
    if part == "second-judge":
        head = second_judge.HEAD.format(hours=hours, others=_others(part))
    else:
        head = HEAD.format(quality=quality(bench), hours=hours, others=_others(part))
    return f"{head}\n\n{PARTS[part].section([{**row['job'], **row['found']} for row in mine])}\n"


def _others(part: str) -> str:
    return ", ".join(f"[{name}]({PAGES[name]})" for name in PARTS if name != part)


def grid(bench: Bench) -> Image.Image:
    """One concept erased by every method, beside its neighbours."""
    erasures = {name: bench.erasure(attacks.asked(SHOWN, name), name) for name in attacks.SETTINGS}
    return compare(bench.model, erasures, PROMPTS, seeds=(SEED,))


def quality(bench: Bench) -> str:
    """How good the unedited model, the judge and the autoencoder are."""
    found = evaluate_model(bench.model, bench.judge, images=384, seed=SEED)
    renders = evaluate_renders(bench.model, bench.judge)
    return (
        f"Unedited, on {found.images} fresh captions: object {100 * found.object:.1f} %, "
        f"style {100 * found.style:.1f} %, colour {100 * found.colour:.1f} %.\n"
        f"Of {renders.raw.images} real renders the judge names {100 * renders.raw.object:.1f} / "
        f"{100 * renders.raw.style:.1f} / {100 * renders.raw.colour:.1f} % correctly. After the VAE has encoded and "
        f"decoded them (PSNR {renders.psnr:.1f} dB), it names {100 * renders.decoded.object:.1f} / "
        f"{100 * renders.decoded.style:.1f} / {100 * renders.decoded.colour:.1f} % correctly."
    )


PAGES = {name: "results.md" if name == "single" else f"results-{name}.md" for name in PARTS}
HEAD = """# What the methods do to the embedded model

Other pages: {others}.

Every number on this page comes from `make results` (`tools/make_results.py`), judged by the judge that ships with the
model. It took about {hours:.1f} hours on one core of two, beside other work. It can be stopped and resumed. All shares
are in percent.

- **UA** (unlearning accuracy): pictures of the erased concept in which it is no longer recognised.
- **IRA** (in-domain retain accuracy): pictures of the other objects (of the other styles, when a style was erased) in
  which the judge recognises what the prompt asked for.
- **CRA** (cross-domain retain accuracy): the same for the other kind: styles when an object was erased, objects when a
  style was.
- **colour**: background colours that are right.
- **outside**: how much pictures of the erased concept changed where they showed plain background before, as the root
  mean square difference of channels in percent of their range. Low means that the layout stayed.
- **seconds**: time to make the erasure, with one thread beside other work.

The embedded model knows 48 objects and four styles, so there are four styles to erase, not ten.

{quality}"""


if __name__ == "__main__":
    main()
