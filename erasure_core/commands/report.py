"""The command ``report``: measure the effect of an erasure on its concept and on others."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..erasures.erasure import Erasure
from ..files.images import save_image, save_text
from ..toy.known_concepts import known_concepts
from .audit_options import add_audited, audit, audit_files, chosen_recogniser
from .options import as_path, whole
from .progress import Progress
from .request import TOY
from .sampling_options import add_pictures_per_prompt, add_steps
from .shared import add_model, prompts_of


def report(args: argparse.Namespace) -> None:
    """Measure what an erasure does to its concept, to near neighbours and to far ones."""
    audit(args, "report", _report)


def _report(args: argparse.Namespace, erasure: Erasure, concept: str, opened: Callable[[], Any]) -> None:
    from ..audit.report import report
    from ..audit.report_sheet import report_sheet

    files = audit_files(args, "report")
    prompts = prompts_of(args)
    recogniser, model = chosen_recogniser(args), opened()
    settings = {"kind": args.kind, "count": args.neighbours, "steps": args.steps, "guidance": args.guidance}
    settings |= {"seeds": range(args.seed, args.seed + args.pictures), "among": known_concepts(args.model == TOY)}
    with Progress("report") as bar:
        result = report(model, erasure, concept, more=prompts, recogniser=recogniser, callback=bar, **settings)
    print(f"{result.table()}\n\n{result.verdict()}")
    if files:
        picture, numbers = files
        args.out.mkdir(parents=True, exist_ok=True)
        print(save_image(report_sheet(result), picture, args.overwrite))
        print(save_text(result.as_json(), numbers, args.overwrite))


def add_report(commands) -> None:
    command = commands.add_parser("report", help=report.__doc__)
    add_model(command, "not erased yet")
    command.add_argument("--erasure", type=as_path, required=True, metavar="FILE", help="what erase wrote")
    add_audited(command, "report")
    add_pictures_per_prompt(command, 4, "how many pictures of each prompt")
    command.add_argument("--neighbours", type=whole(1), default=6, help="how many near concepts, and how many far ones")
    add_steps(command)
    command.set_defaults(command=report)
