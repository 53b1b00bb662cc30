"""Options that ``report`` and ``attack`` share: the concept, the recogniser, and where the result goes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..arguments import MOST_SEED
from ..concepts.common import not_among
from ..concepts.parse import name_of
from ..erasures.erasure import Erasure
from ..files.claims import spread
from ..quoting import quoted
from ..workers import rank
from .options import as_path, whole
from .request import TOY
from .sampling_options import add_guidance
from .shared import open_model

Audit = Callable[[argparse.Namespace, Erasure, str, Callable[[], Any]], None]
MOST_OF_A_NAME = 60  # characters of a concept's name in the name of its folder


def audited_concept(args: argparse.Namespace, erasure: Erasure) -> str:
    """Return the name of the concept to audit: that of --concept, or the only one of the erasure."""
    if args.concept:
        name = name_of(args.concept, "--concept")
        problem = not_among(name, erasure.concepts)
        if problem:
            raise ValueError(f"--concept: {problem}, and list what else asks for it in a file of --prompts")
        return name
    names = [concept.name for concept in erasure.concepts]
    if len(names) != 1:
        several = f"--concept: the erasure has {len(names)} concepts, name one of them: {quoted(names)}"
        raise ValueError(f"{several}; report and attack also take --each, for all of them")
    return names[0]


def audit_files(args: argparse.Namespace, name: str) -> list[Path]:
    """Return the files for the picture and the numbers in the folder --out; none without the option."""
    if args.out is None:
        return []
    files = [args.out / f"{name}.png", args.out / f"{name}.json"]
    for file in files:
        if file.exists() and not args.overwrite:
            raise FileExistsError(f"{file} is already there; choose another folder or ask to --overwrite")
    if not args.each:
        args.outputs.add("--out", *files)
    return files


def audit(args: argparse.Namespace, name: str, one: Audit) -> None:
    """Call ``one`` with the concept to audit, or with each concept of the erasure in turn (--each).

    It also gets a function that opens the model, at most once.

    With --each the results of a concept go into a folder of their own below --out. Those that are there are kept, and
    processes that work on the same folder share the concepts; see ``spread``.
    """
    erasure = Erasure.load(args.erasure)
    opened = cache(lambda: open_model(args))
    if not args.each:
        one(args, erasure, audited_concept(args, erasure), opened)
        return
    if args.out is None or args.overwrite or args.concept:
        raise ValueError(
            "--each audits every concept into a folder below --out, which it needs, and keeps the results that are "
            "there; it goes without --concept and --overwrite"
        )
    folders = each_folder(args.out, [concept.name for concept in erasure.concepts])
    files = {concept: [folder / f"{name}.png", folder / f"{name}.json"] for concept, folder in folders.items()}
    args.outputs.add("--out", *(file for both in files.values() for file in both))

    def job(concept: str) -> None:
        one(argparse.Namespace(**{**vars(args), "out": folders[concept]}), erasure, concept, opened)

    jobs = {concept: partial(job, concept) for concept in folders}
    done = spread(
        jobs, args.out / ".claims", lambda concept: all(file.exists() for file in files[concept]), first=rank()
    )
    print(f"{args.out}: {len(folders)} concepts, {len(done)} of them by this process")


def each_folder(out: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return a folder below ``out`` for each of several concepts, with its number and as much of its name as fits."""
    plain = [re.sub(r"[^\w-]+", "_", name).strip("_")[:MOST_OF_A_NAME] for name in names]
    return {
        name: out / f"{number:0{len(str(len(names)))}d}-{one}"
        for number, (name, one) in enumerate(zip(names, plain, strict=True), 1)
    }


def chosen_recogniser(args: argparse.Namespace):
    """Return the recogniser of --clip or --nudenet, by default the embedded model's judge for that model, or none."""
    if args.clip:
        from ..audit.recognisers.clip_folder import load_clip

        return load_clip(args.clip)
    if args.nudenet:
        from ..audit.recognisers.nudenet import NudeNetRecogniser

        return NudeNetRecogniser()
    if args.model != TOY:
        return None
    from ..audit.recognisers.toy import ToyRecogniser

    return ToyRecogniser()


def add_audited(command, name: str) -> None:
    """Add the shared options to the command ``name``."""
    command.add_argument("--concept", help="which of the erasure's concepts; needed when it has several")
    command.add_argument(
        "--each", action="store_true",
        help="every concept of the erasure, each into a folder below --out; several processes share them (torchrun)",
    )  # fmt: skip
    command.add_argument("--kind", choices=["object", "style"], default="object", help="how prompts name it")
    command.add_argument("--prompts", type=as_path, metavar="FILE", help="more prompts that ask for it, one a line")
    who = command.add_mutually_exclusive_group()
    who.add_argument("--clip", type=as_path, metavar="FOLDER", help="a CLIP of transformers, which judges the pictures")
    who.add_argument("--nudenet", action="store_true", help="let NudeNet judge, for explicit content")
    add_guidance(command)
    command.add_argument("--seed", type=whole(0, MOST_SEED), default=0, help="of the first picture of a prompt")
    command.add_argument("--out", type=as_path, metavar="FOLDER", help=f"for {name}.png and {name}.json, if wanted")
    command.add_argument("--overwrite", action="store_true", help="replace what is there")
