"""The command ``erase``: compute an erasure and write it as a LoRA file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..arguments import MOST_SEED
from ..closed_form.statistics import Statistics
from ..closed_form.statistics_file import load_statistics, save_statistics
from ..closed_form.update import held_concepts
from ..concepts.lists import load_concepts
from ..concepts.parse import Concept, as_concepts, split
from ..erasures.erasure import Erasure
from ..erasures.erasure_file import check_target
from ..erasures.lora_programs import readers_of
from ..methods import METHODS
from ..methods.few_shot import TOWERS
from ..methods.rece import check_kind, rece_with_statistics
from ..quoting import quoted
from .options import as_path, filled, number, option, whole
from .progress import Progress
from .request import OPTIONS, TOY, TRAINING, Request, having, setting_types
from .shared import add_model, open_model

READS: dict[type, dict[str, Any]] = {
    bool: {"action": argparse.BooleanOptionalAction}, int: {"type": whole()}, float: {"type": number()},
}  # fmt: skip
"""How argparse reads a setting of each type."""
PRESET_HELP = "settings to start from; learned methods have their own for the toy"


def erase(args: argparse.Namespace) -> None:
    """Compute an erasure and write it as a LoRA file."""
    request = _request(args, _concepts(args))
    request.keywords()
    check_target(args.out, args.overwrite, "--out: an erasure is")
    args.outputs.add("--out", args.out)
    held = _held_statistics(args, request)
    model = open_model(args.model)
    with Progress(args.method) as bar:
        if args.statistics or args.save_statistics:
            erasure = _of_statistics(args, request, held, model, bar)
        else:
            erasure = request.erasure(model, bar)
    path = erasure.save(args.out, overwrite=args.overwrite)
    size = path.stat().st_size / 1e6
    losses = erasure.origins[0].losses
    learned = f"; {len(losses)} steps, loss {losses[0]:.3g} to {losses[-1]:.3g}" if losses else ""
    names = [str(concept) for concept in erasure.concepts]
    form = f"rank {erasure.rank}" if erasure.rank else "whole weights"
    print(f"{path}: erases {quoted(names)}; {form}, {size:.1f} MB{learned}")
    print(f"as a LoRA {readers_of(erasure)}")
    for entry, error in erasure.origins[0].settings.get("exact_error", {}).items():
        print(f"left exactly alone: what the layers make of it ({entry}) changes by {100 * error:.2g} %")


def _held_statistics(args: argparse.Namespace, request: Request) -> Statistics | None:
    """Those to start from; whatever can be wrong about statistics is told before a model is loaded."""
    if args.restore and not args.statistics:
        raise ValueError("--restore takes a concept back from --statistics FILE; name that file")
    if (args.statistics or args.save_statistics) and args.method != "rece":
        raise ValueError(f"statistics are of rece (with --loops 0 it is plain UCE), not of {args.method}")
    if args.save_statistics:
        args.outputs.add("--save-statistics", args.save_statistics, besides="--statistics")
        check_target(args.save_statistics, args.overwrite, "--save-statistics: statistics are")
    if not args.statistics:
        return None
    held = load_statistics(args.statistics)
    held_concepts(held, args.restore)
    check_kind(held, request.keywords()["settings"].name_only)
    return held


def _of_statistics(args: argparse.Namespace, request: Request, held: Statistics | None, model, bar) -> Erasure:
    """Gather or update them, keep them if wanted, and erase."""
    settings = request.keywords()["settings"]
    erasure, found = rece_with_statistics(
        model, request.concepts, settings, preserve=args.preserve, exactly=args.exactly, common=not args.no_common,
        statistics=held, restore=args.restore, callback=bar,
    )  # fmt: skip
    if args.save_statistics:
        save_statistics(found, args.save_statistics, overwrite=args.overwrite)
    return erasure


def _method(name: str) -> str:
    """With a hyphen too, as its name is written in sentences."""
    return name.replace("-", "_")


def _concepts(args: argparse.Namespace) -> list[Concept]:
    if args.concept is None and args.concepts is None:
        if args.statistics:
            return []
        raise ValueError("name a --concept, a file of --concepts, or --statistics to start from")
    separator = {"\\t": "\t", "tab": "\t"}.get(args.separator, args.separator)
    if args.concepts is not None:
        return load_concepts(args.concepts, separator=separator)
    return as_concepts([part for text in args.concept for part in split(text, separator)])


def _request(args: argparse.Namespace, concepts: Sequence[Concept]) -> Request:
    given = {name: getattr(args, name) for name in setting_types()}
    return Request(
        concepts,
        args.method,
        args.preset,
        {name: value for name, value in given.items() if value is not None},
        toy=args.model == TOY,
        option=option,
        **{name: getattr(args, name) for name in ("preserve", "exactly", "no_common", "images", "seed")},
        **{name: getattr(args, name) for name in (*TRAINING, *OPTIONS)},
    )


def add_erase(commands) -> None:
    command = commands.add_parser("erase", help=erase.__doc__)
    add_model(command)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--concept", action="append", help="'cat', or 'cat -> dog'; can be given more than once")
    what.add_argument(
        "--concepts", type=filled, metavar="FILE",
        help="one concept a line, # for comments; of a table a column: list.csv:name",
    )  # fmt: skip
    command.add_argument("--separator", metavar="SIGN", help="split --concept and lines of --concepts at it, as at ','")
    summaries = "; ".join(f"{name}: {method.summary}" for name, method in METHODS.items())
    command.add_argument("--method", type=_method, choices=list(METHODS), default="rece", help=summaries)
    presets = sorted({name for method in METHODS.values() for name in method.presets})
    command.add_argument("--preset", choices=presets, default="object", help=PRESET_HELP)
    for name, kind in setting_types().items():
        command.add_argument(
            option(name), **READS.get(kind, {}), help=f"in place of the preset's, for {', '.join(having(name))}"
        )
    command.add_argument("--preserve", action="append", default=[], metavar="TEXT", help="a prompt to leave alone")
    command.add_argument("--no-common", action="store_true", help="do not preserve everyday concepts as well")
    command.add_argument(
        "--exactly", action="append", default=[], metavar="TEXT", help="rece: a prompt whose pictures must not change"
    )
    command.add_argument(
        "--statistics", type=as_path, metavar="FILE", help="rece: go on from what --save-statistics wrote"
    )
    command.add_argument(
        "--restore", action="append", default=[], metavar="NAME", help="take a concept of --statistics back"
    )
    command.add_argument(
        "--save-statistics", type=as_path, metavar="FILE", help="rece: keep what is known of concepts, to go on from"
    )
    images = "few_shot: a folder of the concept, a number for the model to draw, or none"
    command.add_argument("--images", type=filled, help=images)
    command.add_argument("--seed", type=whole(0, MOST_SEED), help="learned methods: the same, the same erasure")
    command.add_argument("--seconds", type=number(above=0), help="learned methods: stop training after so many")
    command.add_argument("--rank", type=whole(1), help="learned methods: train low-rank changes")
    command.add_argument("--gradient-checkpointing", action="store_true", help="doco and abo: less memory, more time")
    command.add_argument("--towers", choices=TOWERS, help="few_shot: which text encoder of two (SDXL)")
    command.add_argument("--out", type=as_path, required=True, help="the .safetensors to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    command.set_defaults(command=erase)
