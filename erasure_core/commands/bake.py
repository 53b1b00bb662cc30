"""The command ``bake``: write a checkpoint again with an erasure in its weights, to hand it out."""

from __future__ import annotations

import argparse

from ..erasures.erasure import MOST_STRENGTH, Erasure
from ..quoting import excerpt, quoted
from .exit_codes import tell
from .options import as_path, number
from .progress import Progress


def bake(args: argparse.Namespace) -> None:
    """Write a checkpoint again with an erasure in its weights, to hand it out."""
    from ..baking.bake import LOSES_MUCH, bake

    args.outputs.add("--out", args.out)
    erasure = Erasure.load(args.erasure_file)
    with Progress("bake") as bar:
        result = bake(
            erasure, args.checkpoint, args.out, strength=args.strength, overwrite=args.overwrite, callback=bar
        )
    if result.note:
        tell(f"note: {result.note}")
    if result.rounding > LOSES_MUCH:
        tell(f"note: rounding loses {result.rounding:.1%} of the change; bake into a checkpoint in a finer precision")
    names = [str(concept) for concept in erasure.concepts]
    print(
        f"{excerpt(result.path, 300)}: without {quoted(names)}; {result.changed} tensors have changed, rounding loses "
        f"{result.rounding:.2%} of the change"
    )
    if result.left_out:
        print(f"left out, since it may hold the model as it was: {quoted(result.left_out)}")


def add_bake(commands) -> None:
    command = commands.add_parser("bake", help=bake.__doc__)
    command.add_argument("erasure_file", type=as_path, metavar="ERASURE", help="what erase wrote")
    command.add_argument(
        "checkpoint",
        type=as_path,
        metavar="CHECKPOINT",
        help="a .safetensors in fp32, fp16, bf16 or fp8, or a diffusers folder; it is only read",
    )
    command.add_argument("--out", type=as_path, required=True, help="the .safetensors to write, or the new folder")
    command.add_argument(
        "--strength",
        type=number(-MOST_STRENGTH, MOST_STRENGTH),
        default=1.0,
        help="how much of the erasure is added: 1, the default, is all of it",
    )
    command.add_argument("--overwrite", action="store_true", help="replace --out if it is a file; folders never are")
    command.set_defaults(command=bake)
