"""Options that ``report`` and ``attack`` share: the concept, the recogniser, and where the result goes."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..arguments import MOST_SEED
from ..concepts.common import not_among
from ..concepts.parse import name_of
from ..erasures.erasure import Erasure
from ..quoting import quoted
from ..sampling.ddim import MOST_GUIDANCE
from .options import as_path, number, whole
from .request import TOY


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
        raise ValueError(f"--concept: the erasure has {len(names)} concepts, name one of them: {quoted(names)}")
    return names[0]


def audit_files(args: argparse.Namespace, name: str) -> list[Path]:
    """Return the files for the picture and the numbers in the folder --out; none without the option."""
    if args.out is None:
        return []
    files = [args.out / f"{name}.png", args.out / f"{name}.json"]
    for file in files:
        if file.exists() and not args.overwrite:
            raise FileExistsError(f"{file} is already there; choose another folder or ask to --overwrite")
    args.outputs.add("--out", *files)
    return files


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
    command.add_argument("--kind", choices=["object", "style"], default="object", help="how prompts name it")
    command.add_argument("--prompts", type=as_path, metavar="FILE", help="more prompts that ask for it, one a line")
    who = command.add_mutually_exclusive_group()
    who.add_argument("--clip", type=as_path, metavar="FOLDER", help="a CLIP of transformers, which judges the pictures")
    who.add_argument("--nudenet", action="store_true", help="let NudeNet judge, for explicit content")
    command.add_argument(
        "--guidance-scale",
        earlier=("--guidance",),
        dest="guidance",
        type=number(0, MOST_GUIDANCE),
        default=3.0,
        help="of classifier-free guidance; 1 is without",
    )
    command.add_argument("--seed", type=whole(0, MOST_SEED), default=0, help="of the first picture of a prompt")
    command.add_argument("--out", type=as_path, metavar="FOLDER", help=f"for {name}.png and {name}.json, if wanted")
    command.add_argument("--overwrite", action="store_true", help="replace what is there")
