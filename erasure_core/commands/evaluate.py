"""The command ``evaluate``: measure the embedded model, or the effect of an erasure on it."""

from __future__ import annotations

import argparse

from ..arguments import MOST_SEED
from ..drawing.table import percent, table
from ..erasures.erasure import Erasure
from .options import as_path, whole
from .progress import Progress
from .shared import add_device, open_model


def evaluate(args: argparse.Namespace) -> None:
    """Measure the embedded model, or what an erasure does to it."""
    if bool(args.erasure) != bool(args.concept):
        raise ValueError("--erasure and --concept belong together: the file, and which of its concepts to judge")
    print(_erasure_report(args) if args.erasure else _model_report(args))


def _model_report(args: argparse.Namespace) -> str:
    from ..toy import Judge
    from ..toy.evaluation import evaluate_model, evaluate_renders

    model, judge = open_model(args), Judge.load()
    with Progress("evaluate") as bar:
        generated = evaluate_model(model, judge, images=args.images, seed=args.seed, callback=bar)
    renders = evaluate_renders(model, judge)
    kinds = {"generated": generated, "real": renders.raw, "real, through the autoencoder": renders.decoded}
    rows = [
        [name, *(f"{100 * share:.1f}" for share in (one.object, one.style, one.colour)), str(one.images)]
        for name, one in kinds.items()
    ]
    text = table(("recognised, %", "object", "style", "colour", "pictures"), rows)
    return f"{text}\n\nautoencoder: {renders.psnr:.1f} dB PSNR"


def _erasure_report(args: argparse.Namespace) -> str:
    from ..toy import Judge
    from ..toy.evaluation import check_erased, evaluate_erasure, subject_of

    erasure = Erasure.load(args.erasure)
    subject = subject_of(args.concept)
    check_erased(args.concept, erasure.concepts)
    model, judge = open_model(args), Judge.load()
    erased = max(1, args.images // 4)
    rows = []
    for state, change in (("before", None), ("after", erasure)):
        with Progress(state) as bar:
            scores, _ = evaluate_erasure(
                model, judge, subject.name, change, erased=erased, others=max(1, args.images - erased),
                apart=erasure.concepts, seed=args.seed, callback=bar,
            )  # fmt: skip
        shares = (scores.ua, scores.ira, scores.cra, scores.colour)
        rows.append([f"{subject.name}, {state}", *map(percent, shares), f"{scores.erased} + {scores.others}"])
    return table(("concept, %", "UA", "IRA", "CRA", "colour", "pictures"), rows)


def add_evaluate(commands) -> None:
    command = commands.add_parser("evaluate", help=evaluate.__doc__)
    command.add_argument(
        "--model", choices=["toy"], default="toy", help="the model; only the embedded model has a judge"
    )
    command.add_argument("--erasure", type=as_path, metavar="FILE", help="what erase wrote")
    command.add_argument("--concept", help="which concept to judge: an object, a style or a colour")
    add_device(command)
    command.add_argument(
        "--num-images",
        earlier=("--images",),
        dest="images",
        type=whole(1),
        default=192,
        help="pictures to draw, in each state",
    )
    command.add_argument(
        "--seed", type=whole(0, MOST_SEED), default=0, help="of the pictures: the same, the same pictures"
    )
    command.set_defaults(command=evaluate)
