"""The command ``purify``: draw pictures from a folder again without a concept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..erasures.erasure import Erasure
from ..files.images import load_pictures, picture_files, save_image, to_image
from ..files.outputs import same_place
from ..quoting import quoted
from ..sampling.size import side
from .exit_codes import tell
from .options import as_path
from .progress import Progress
from .sampling_options import add_guidance, add_steps
from .shared import add_model, open_model


def purify(args: argparse.Namespace) -> None:
    """Draw given pictures again without what an erasure erases."""
    from ..sampling.purify import names_a_concept, purify

    erasure, files = Erasure.load(args.erasure), picture_files(args.images)
    if not names_a_concept(args.prompt, erasure):
        names = quoted([concept.name for concept in erasure.concepts])
        tell(f"note: --prompt does not name what is erased ({names}), so little may change")
    if same_place(args.out, args.images):
        raise ValueError("--out and --images are the same folder; give what is drawn one of its own")
    targets = _targets(args.out, files, args.overwrite)
    args.outputs.add("--out", *targets)
    model = open_model(args)
    size = side(model)
    pictures = load_pictures(files, size)
    settings = {"prompt": args.prompt, "steps": args.steps, "guidance": args.guidance}
    with Progress("purify") as bar:
        pure = purify(model, erasure, pictures, callback=bar, **settings)
    args.out.mkdir(parents=True, exist_ok=True)
    for picture, target in zip(pure, targets, strict=True):
        print(save_image(to_image(picture), target, args.overwrite))
    print(f"each is the square around the centre of your picture, in the {size} x {size} pixels that the model draws")


def _targets(folder: Path, files: Sequence[Path], overwrite: bool) -> list[Path]:
    """Return the path of the PNG for each file; raise an error if two are the same, or if one is there already."""
    targets = [folder / f"{file.stem}.png" for file in files]
    for target in targets:
        if targets.count(target) > 1:
            raise ValueError(f"images: two pictures would be written as {target.name}; rename one")
    for target in targets:
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} is already there; choose another folder or ask to --overwrite")
    return targets


def add_purify(commands) -> None:
    command = commands.add_parser("purify", help=purify.__doc__)
    add_model(command, "not erased yet")
    command.add_argument("--erasure", type=as_path, required=True, metavar="FILE", help="what erase wrote")
    command.add_argument("--images", type=as_path, required=True, metavar="FOLDER", help="the folder with the pictures")
    command.add_argument("--prompt", default="", help="what they show, the concept included; its name by default")
    add_steps(command, 30, "steps of inversion, and as many of drawing")
    add_guidance(command, 1.0, "1 keeps most of a picture, 3 changes more", most=None)
    command.add_argument("--out", type=as_path, required=True, metavar="FOLDER", help="where each is written as a PNG")
    command.add_argument("--overwrite", action="store_true", help="replace pictures in --out")
    command.set_defaults(command=purify)
