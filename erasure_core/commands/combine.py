"""The command ``combine``: several erasures as one file."""

from __future__ import annotations

import argparse

from ..erasures.erasure import MOST_STRENGTH, Erasure
from ..erasures.erasure_file import check_target
from ..quoting import excerpt, quoted
from .options import as_path, number


def combine(args: argparse.Namespace) -> None:
    """Add several erasures of one model up to one file."""
    if len(args.erasures) < 2:
        raise ValueError("name at least two erasures to combine")
    strengths = args.strength or [1.0] * len(args.erasures)
    if len(strengths) != len(args.erasures):
        raise ValueError(f"give no --strength or one for each of the {len(args.erasures)} files, got {len(strengths)}")
    check_target(args.out, args.overwrite, "--out: an erasure is")
    args.outputs.add("--out", args.out)
    erasures = [Erasure.load(path) for path in args.erasures]
    if not args.chained:
        _check_one_model(args, erasures)
    total = sum(one.scaled(strength) for one, strength in zip(erasures, strengths, strict=True))
    assert isinstance(total, Erasure)
    path = total.save(args.out, overwrite=args.overwrite)
    print(f"{excerpt(path, 300)}: erases {quoted([str(concept) for concept in total.concepts])}")


def _check_one_model(args: argparse.Namespace, erasures: list[Erasure]) -> None:
    """Raise ``ValueError`` for erasures that were computed on different weights."""
    first = {origin.fingerprint for origin in erasures[0].origins}
    for path, other in zip(args.erasures, erasures, strict=True):
        made_on = {origin.fingerprint for origin in other.origins}
        if not made_on & first:
            raise ValueError(
                f"{excerpt(path.name)} was made on the weights {', '.join(sorted(made_on))}, "
                f"{excerpt(args.erasures[0].name)} on {', '.join(sorted(first))}; form one anew with rebase, or give "
                "--chained if each was made on the model that has those before it"
            )


def add_combine(commands) -> None:
    command = commands.add_parser("combine", help=combine.__doc__)
    command.add_argument("erasures", type=as_path, nargs="+", metavar="ERASURE", help="what erase wrote; two or more")
    command.add_argument(
        "--strength",
        type=number(-MOST_STRENGTH, MOST_STRENGTH),
        action="append",
        help="how much of each is taken, in their order, once for each; by default 1 for all",
    )
    command.add_argument(
        "--chained", action="store_true", help="each was made on the model that has those before it, not on one model"
    )
    command.add_argument("--out", type=as_path, required=True, help="the .safetensors to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    command.set_defaults(command=combine)
