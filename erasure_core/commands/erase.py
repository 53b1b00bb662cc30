"""The command ``erase``: compute an erasure and write it as a LoRA file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from ..closed_form.statistics import Statistics
from ..closed_form.statistics_file import load_statistics, save_statistics
from ..closed_form.update import held_concepts, without_unlisted
from ..concepts.aliases import with_aliases
from ..concepts.cached import MOST_BYTES, CachedRows
from ..concepts.lists import load_concepts
from ..concepts.name_lists import listed_beside, name_list
from ..concepts.names import folded
from ..concepts.parse import Concept, as_concepts, split
from ..concepts.remembered import RememberedRows
from ..concepts.suggest import suggest
from ..erasures.erasure import Erasure
from ..erasures.erasure_file import check_target
from ..erasures.programs import readers_of
from ..files.cache_folder import prepare
from ..methods import METHODS
from ..methods.inputs import Exactly
from ..methods.method import ClosedForm
from ..model import TextReader
from ..quoting import quoted
from ..workers import Workers, are_several, joined, leads
from .method_options import DEFAULT, OPTION, add_method_options, as_name, inputs_of, settings_of
from .options import as_path, filled, option
from .progress import Progress
from .request import TOY, Request
from .shared import add_model, device_of, open_model

PRESET_HELP = "settings to start from, by default the method's first; learned methods have their own for the toy"


def erase(args: argparse.Namespace) -> None:
    """Compute an erasure and write it as a LoRA file."""
    request = _request(args, _concepts(args))
    request.check()
    device = device_of(args)
    if leads():
        check_target(args.out, args.overwrite, "--out: an erasure is")
        args.outputs.add("--out", args.out)
    held = _held_statistics(args, request)
    _check_cache(args)
    with joined(device) as workers:
        model = open_model(args, device)
        if args.context_cache:
            model = CachedRows(model, args.context_cache)
        if args.aliases:
            model = RememberedRows(model)
            request = replace(request, concepts=_with_aliases(args, request.concepts, held, model))
        with Progress(args.method) as bar:
            closed_form = METHODS[args.method].closed_form
            if closed_form and (args.statistics or args.save_statistics or workers.count > 1):
                erasure = _of_statistics(args, request, closed_form, held, model, bar, workers)
            else:
                erasure = request.erasure(model, bar)
    if erasure is not None:
        _save(args, erasure)


def _save(args: argparse.Namespace, erasure: Erasure) -> None:
    """Write an erasure, and print what it is."""
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


def _with_aliases(
    args: argparse.Namespace, concepts: Sequence[Concept], held: Statistics | None, model: TextReader
) -> list[Concept]:
    """Return the concepts and the other names that the model reads alike, less what the statistics hold."""
    known = held.concepts if held else ()
    spared = [*args.preserve, *args.exactly, *(concept.instead for concept in known if concept.instead)]
    found = with_aliases(concepts, lambda name: suggest(model, name), spared)
    names = {folded(concept.name) for concept in known}
    return [concept for concept in found if concept in concepts or folded(concept.name) not in names]


def _held_statistics(args: argparse.Namespace, request: Request) -> Statistics | None:
    """Those to start from; whatever can be wrong about statistics is told before a model is loaded."""
    if args.aliases and METHODS[args.method].closed_form is None:
        raise ValueError(f"--aliases adds concepts, and {args.method} erases one at a time; run it once for each")
    if args.restore and not args.statistics:
        raise ValueError("--restore takes a concept back from --statistics FILE; name that file")
    closed_form = METHODS[args.method].closed_form
    if are_several() and closed_form is None:
        raise ValueError(f"{args.method} trains in one process; start it without torchrun")
    if (args.statistics or args.save_statistics) and closed_form is None:
        forms = ", ".join(name for name, method in METHODS.items() if method.closed_form)
        raise ValueError(f"statistics are of {forms}, not of {args.method}")
    if args.save_statistics and leads():
        args.outputs.add("--save-statistics", args.save_statistics, besides="--statistics")
        check_target(args.save_statistics, args.overwrite, "--save-statistics: statistics are")
    if closed_form is None or not args.statistics:
        return None
    held = load_statistics(args.statistics)
    held_concepts(held, args.restore)
    closed_form.check(held, request.chosen_settings())
    return held


def _check_cache(args: argparse.Namespace) -> None:
    """Make the folder of --context-cache, before a model is loaded. Raises an error where it is of no use."""
    if args.context_cache is None:
        return
    if METHODS[args.method].closed_form is None:
        raise ValueError(f"--context-cache keeps what closed forms read, and {args.method} trains; leave it out")
    prepare(args.context_cache)


def _of_statistics(
    args: argparse.Namespace,
    request: Request,
    closed_form: ClosedForm,
    held: Statistics | None,
    model,
    bar,
    workers: Workers,
) -> Erasure | None:
    """Gather or update them, keep them if wanted, and erase. Of several processes only the leading one erases."""
    back = held_concepts(held, args.restore) if held else []
    erased = [*request.concepts, *(concept for concept in (held.concepts if held else ()) if concept not in back)]
    preserve = [*args.preserve, *listed_beside(erased, args.preserve_list)]
    exactly = {"exactly": args.exactly} if Exactly in METHODS[args.method].takes else {}
    settings, callback = request.chosen_settings(), bar if workers.leads else None
    if held and args.preserve_list:
        names = name_list(args.preserve_list)
        held = without_unlisted(held, model, names, preserve, callback=callback, workers=workers)
    inputs = {
        "preserve": preserve, "common": request.preserves_common(), "statistics": held, "restore": args.restore,
        "callback": callback, **exactly,
    }  # fmt: skip
    if workers.count == 1:
        erasure, statistics = closed_form.run(model, request.concepts, settings, **inputs)
    else:
        statistics = closed_form.gather(model, request.concepts, settings, **inputs, workers=workers)
        if not workers.leads:
            return None
        erasure = closed_form.erase(model, statistics, settings, callback=callback)
    if args.save_statistics:
        save_statistics(statistics, args.save_statistics, overwrite=args.overwrite)
    return erasure


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
    return Request(
        concepts,
        args.method,
        args.preset,
        settings_of(args),
        inputs_of(args),
        toy=args.model == TOY,
        option=lambda name: args.spelling.get(name) or option(name),
    )


def add_erase(commands) -> None:
    command = commands.add_parser("erase", help=erase.__doc__, extend=add_method_options)
    add_model(command)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--concept", action="append", help="'cat', or 'cat -> dog'; can be given more than once")
    what.add_argument(
        "--concepts", type=filled, metavar="FILE",
        help="one concept a line, # for comments; of a table a column: list.csv:name",
    )  # fmt: skip
    command.add_argument(
        "--aliases", action="store_true",
        help="erase other names that the model reads like these too; the command suggest lists them",
    )  # fmt: skip
    command.add_argument("--separator", metavar="SIGN", help="split --concept and lines of --concepts at it, as at ','")
    summaries = "; ".join(f"{name}: {method.summary}" for name, method in METHODS.items())
    command.add_argument(OPTION, type=as_name, choices=list(METHODS), default=DEFAULT, help=summaries)
    presets = sorted({name for method in METHODS.values() for name in method.presets})
    command.add_argument("--preset", choices=presets, default="", help=PRESET_HELP)
    forms = ", ".join(name for name, method in METHODS.items() if method.closed_form)
    command.add_argument(
        "--statistics", type=as_path, metavar="FILE", help=f"{forms}: go on from what --save-statistics wrote"
    )
    command.add_argument(
        "--restore", action="append", default=[], metavar="NAME", help="take a concept of --statistics back"
    )
    command.add_argument(
        "--save-statistics",
        type=as_path,
        metavar="FILE",
        help=f"{forms}: keep what is known of concepts, to go on from",
    )
    command.add_argument(
        "--context-cache", type=as_path, metavar="FOLDER",
        help=f"{forms}: keep what text encoders make of prompts, at most {MOST_BYTES / 1e9:g} GB of it, for later runs",
    )  # fmt: skip
    command.add_argument("--out", type=as_path, required=True, help="the .safetensors to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    command.set_defaults(command=erase)
