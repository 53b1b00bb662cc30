"""The command ``demo``: erasures on the embedded model, as pictures and numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..arguments import MOST_SEED
from .options import as_path, whole
from .request import TOY
from .shared import add_device, open_model


def demo(args: argparse.Namespace) -> None:
    """Erasures on the embedded model, as pictures and numbers."""
    from .demo_sheet import FILES, demo

    announcements = {
        "rece": "Erasing three concepts from the embedded model and drawing before and after; takes a minute or two.",
        "all": "Erasing a concept from the embedded model by each of four methods; takes five minutes or so.",
    }
    args.outputs.add("--out", *(args.out / f"{FILES[args.method]}{ending}" for ending in (".png", ".md")))
    print(announcements[args.method], flush=True)
    print(
        f"\n{demo(args.out, args.method, args.seed, open_model(args))}\nPictures: {args.out / FILES[args.method]}.png"
    )


def add_demo(commands) -> None:
    command = commands.add_parser("demo", help=demo.__doc__)
    command.add_argument("--out", type=as_path, default=Path("out"), help="folder for the picture and the table")
    what = "rece: three kinds of concept; all: the four methods side by side"
    command.add_argument("--method", choices=["rece", "all"], default="rece", help=what)
    command.add_argument(
        "--seed", type=whole(0, MOST_SEED), default=0, help="of the pictures: the same, the same pictures"
    )
    add_device(command)
    command.set_defaults(command=demo, model=TOY)
