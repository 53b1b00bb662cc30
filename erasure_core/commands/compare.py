"""The command ``compare``: the same prompts and seeds with and without erasures."""

from __future__ import annotations

import argparse

from ..arguments import MOST_SEED
from ..erasures.erasure import Erasure
from ..files.images import save_image
from .options import as_path, whole
from .progress import Progress
from .sampling_options import add_guidance, add_pictures_per_prompt, add_steps
from .shared import add_model, open_model, prompts_of


def compare(args: argparse.Namespace) -> None:
    """Draw the same prompts and seeds with and without erasures, as one labelled grid."""
    from ..audit.compare import compare

    if args.out.suffix != ".png":
        raise ValueError(f"--out: a grid is written as .png, got '{args.out.name}'")
    args.outputs.add("--out", args.out)
    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f"{args.out} is already there; choose another name or ask to --overwrite")
    erasures = {path.stem: Erasure.load(path) for path in args.erasure}
    if len(erasures) < len(args.erasure):
        raise ValueError("--erasure: two files have the same name; rename one")
    prompts = [*args.prompt, *prompts_of(args)]
    if not prompts:
        raise ValueError("name at least one --prompt, or a file of --prompts")
    model = open_model(args)
    seeds = range(args.seed, args.seed + args.pictures)
    settings = {"steps": args.steps, "guidance": args.guidance, "negative": args.negative}
    with Progress("compare") as bar:
        sheet = compare(model, erasures, prompts, seeds=seeds, difference=args.difference, callback=bar, **settings)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(save_image(sheet, args.out, args.overwrite))


def add_compare(commands) -> None:
    command = commands.add_parser("compare", help=compare.__doc__)
    add_model(command, "not erased yet")
    command.add_argument(
        "--erasure", type=as_path, action="append", required=True, metavar="FILE", help="what erase wrote, a column"
    )
    command.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a row; can be given repeatedly")
    command.add_argument("--prompts", type=as_path, metavar="FILE", help="one prompt a line, # for comments")
    command.add_argument(
        "--negative-prompt",
        earlier=("--negative",),
        dest="negative",
        default="",
        metavar="TEXT",
        help="what guidance leads away from",
    )
    command.add_argument("--seed", type=whole(0, MOST_SEED), default=0, help="of the first picture of a prompt")
    add_pictures_per_prompt(command, 1, "of each prompt, from one seed after another")
    add_steps(command)
    add_guidance(command)
    command.add_argument("--difference", action="store_true", help="also draw where pictures differ from the first")
    command.add_argument("--out", type=as_path, required=True, help="the .png to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    command.set_defaults(command=compare)
