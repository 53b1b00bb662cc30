"""The command ``rebase``: form an erasure anew for another checkpoint."""

from __future__ import annotations

import argparse

from ..erasures.erasure import Erasure
from ..erasures.erasure_file import check_target
from ..quoting import excerpt
from .options import as_path
from .progress import Progress


def rebase(args: argparse.Namespace) -> None:
    """Form an erasure anew for another checkpoint that has the same text encoder."""
    from ..baking.bake import ITS_OWN, fitted
    from ..baking.open import open_checkpoint
    from ..erasures.erasure import rebased

    check_target(args.out, args.overwrite, "--out: an erasure is")
    args.outputs.add("--out", args.out)
    erasure, checkpoint = Erasure.load(args.erasure_file), open_checkpoint(args.checkpoint)
    with Progress("rebase") as bar:
        bar(0, 1, args.checkpoint.name)
        fitting, weights = fitted(erasure, checkpoint) if erasure.maps else (rebased(erasure, {}), "")
    if weights == ITS_OWN:
        raise ValueError(
            f"the erasure was made on the weights of {excerpt(args.checkpoint.name)} already; use it as it is"
        )
    path = fitting.save(args.out, overwrite=args.overwrite)
    print(f"{excerpt(path, 300)}: for {excerpt(args.checkpoint.name)}, right where both have the same text encoder")


def add_rebase(commands) -> None:
    command = commands.add_parser("rebase", help=rebase.__doc__)
    command.add_argument("erasure_file", type=as_path, metavar="ERASURE", help="what erase wrote, with rece or uce")
    command.add_argument(
        "checkpoint",
        type=as_path,
        metavar="CHECKPOINT",
        help="what it will be used on: a .safetensors or a diffusers folder",
    )
    command.add_argument("--out", type=as_path, required=True, help="the .safetensors to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    command.set_defaults(command=rebase)
