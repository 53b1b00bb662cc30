"""The command ``attack``: try to bring an erased concept back."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..erasures.erasure import Erasure
from ..files.images import load_pictures, picture_files, save_image, save_text
from ..sampling.size import side
from .audit_options import add_audited, audit, audit_files, chosen_recogniser
from .options import as_path, number, whole
from .progress import Progress
from .sampling_options import add_steps
from .shared import add_model, prompts_of


def attack(args: argparse.Namespace) -> None:
    """Try to bring an erased concept back: an audit of your own erasure."""
    audit(args, "attack", _attack)


def _attack(args: argparse.Namespace, erasure: Erasure, concept: str, opened: Callable[[], Any]) -> None:
    from ..audit.red_team import attack

    files = audit_files(args, "attack")
    prompts = prompts_of(args)
    pictures = picture_files(args.images) if args.images else None
    model = opened()
    settings = {
        "kind": args.kind, "attacks": args.attack, "prompts": prompts, "pictures": args.pictures, "steps": args.steps,
        "seconds": args.seconds, "sampling_steps": args.sampling_steps, "guidance": args.guidance, "seed": args.seed,
    }  # fmt: skip
    if pictures:
        settings["images"] = load_pictures(pictures, side(model))
    with Progress("attack") as bar:
        result = attack(
            model, erasure.over(model), concept, recogniser=chosen_recogniser(args), callback=bar, **settings
        )
    print(f"{result.table()}\n\n{result.verdict()}")
    if files:
        picture, numbers = files
        args.out.mkdir(parents=True, exist_ok=True)
        print(save_image(result.picture(), picture, args.overwrite))
        print(save_text(result.as_json(), numbers, args.overwrite))


def add_attack(commands) -> None:
    from ..audit.attacks import ATTACKS

    command = commands.add_parser("attack", help=attack.__doc__)
    add_model(command, "not erased yet")
    command.add_argument("--erasure", type=as_path, required=True, metavar="FILE", help="what erase wrote")
    add_audited(command, "attack")
    summaries = "; ".join(f"{name}: {one.summary}" for name, one in ATTACKS.items())
    command.add_argument(
        "--attack", action="append", choices=list(ATTACKS), help=f"all but finetune by default. {summaries}"
    )
    command.add_argument(
        "--images",
        type=as_path,
        metavar="FOLDER",
        help="the folder with pictures of the concept; without it the model draws them",
    )
    command.add_argument(
        "--num-images",
        earlier=("--pictures",),
        dest="pictures",
        type=whole(1),
        default=8,
        help="how many pictures each attack draws",
    )
    command.add_argument(
        "--max-train-steps",
        earlier=("--steps",),
        dest="steps",
        type=whole(1),
        default=200,
        help="steps of each attack that searches",
    )
    command.add_argument("--seconds", type=number(above=0), help="stop each search after so many")
    add_steps(command, earlier="--sampling-steps")
    command.set_defaults(command=attack)
