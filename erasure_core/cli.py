"""The command line. Whatever a user can get wrong ends as one sentence on stderr and exit code 2; see ``ending``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from .arguments import MOST_SEED
from .concepts import Concept, as_concepts, name_of, parse_prompts, quoted, split
from .ending import FAILED, INTERRUPTED, code_for_text, tell
from .erasure import Erasure, __version__
from .files import check_target
from .gathering import held_concepts
from .inputs import read_list
from .lists import load_concepts, place_of
from .methods.few_shot import TOWERS
from .methods.rece import RecePreset, check_kind, rece_with_statistics
from .methods.registry import METHODS
from .options import Parser, as_path, as_typed, filled, number, option, whole
from .outputs import Outputs, same_place
from .pictures import load_pictures, picture_files, pictures_in
from .progress import Progress
from .readers import readers_of
from .request import OPTIONS, TOY, TRAINING, Request, having, load_model, setting_types, side
from .sampling import MOST_GUIDANCE
from .sheet import save_text, save_whole, to_image
from .statistics import Statistics
from .statistics_files import load_statistics, save_statistics
from .table import percent, table
from .training import TrainingError
from .vocabulary import known_concepts, not_among

PRESET_HELP = "settings to start from; learned methods have their own for the toy"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    outputs, args = Outputs({}), argparse.Namespace()
    try:
        args = _parser().parse_args(arguments)
        outputs = args.outputs = Outputs(_inputs(args))
        args.command(args)
    except KeyboardInterrupt as error:
        tell(f"\ninterrupted; {outputs.told()}")
        return getattr(error, "code", INTERRUPTED)
    except ModuleNotFoundError as error:
        tell(f"error: {error.name} is missing; pip install 'comfyui-concept-erasure[diffusers]'")
        return FAILED
    except (ValueError, OSError, TrainingError, MemoryError) as error:
        tell(f"error: {as_typed(_sentence(error), vars(args))}" + (f"; {outputs.told()}" if outputs.written() else ""))
        return FAILED
    return code_for_text(bool(outputs.written()))


def _inputs(args: argparse.Namespace) -> dict[str, list[Path]]:
    """The files and folders that a command reads, by their options."""
    found = {}
    for name in ("model", "erasure", "statistics", "concepts", "prompts", "images", "clip"):
        given = getattr(args, name, None)
        paths = given if isinstance(given, list) else [given]
        found[option(name)] = [Path(path) for path in paths if isinstance(path, str | Path) and path != TOY]
    found["--concepts"] = [place_of(path)[0] for path in found["--concepts"]]
    folders = [folder for folder in found["--images"] if os.path.isdir(folder)]  # or a number
    return {**found, "--images": [path for folder in folders for path in pictures_in(folder)]}


def demo(args: argparse.Namespace) -> None:
    """Erasures on the embedded model, as pictures and numbers."""
    from .demo import FILES, demo

    told = {
        "rece": "Erasing three concepts from the embedded model and drawing before and after; takes a minute or two.",
        "all": "Erasing a concept from the embedded model by each of four methods; takes five minutes or so.",
    }
    args.outputs.add("--out", *(args.out / f"{FILES[args.method]}{ending}" for ending in (".png", ".md")))
    print(told[args.method], flush=True)
    print(f"\n{demo(args.out, args.method, args.seed)}\nPictures: {args.out / FILES[args.method]}.png")


def erase(args: argparse.Namespace) -> None:
    """Compute an erasure and write it as a LoRA file."""
    request = _request(args, _concepts(args))
    request.keywords()
    check_target(args.out, args.overwrite, "--out: an erasure is")
    args.outputs.add("--out", args.out)
    held = _held_statistics(args, request)
    model = _model(args.model)
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
    check_kind(held, request.keywords()["name_only"])
    return held


def _of_statistics(args: argparse.Namespace, request: Request, held: Statistics | None, model, bar) -> Erasure:
    """Gather or update them, keep them if wanted, and erase."""
    settings = request.keywords()
    preset = RecePreset(**{name: settings[name] for name in vars(RecePreset(1, 1.0))})
    erasure, found = rece_with_statistics(
        model, request.concepts, preset, preserve=args.preserve, exactly=args.exactly, common=not args.no_common,
        statistics=held, restore=args.restore, callback=bar,
    )  # fmt: skip
    if args.save_statistics:
        save_statistics(found, args.save_statistics, overwrite=args.overwrite)
    return erasure


def purify(args: argparse.Namespace) -> None:
    """Draw given pictures again without what an erasure erases."""
    from .purify import names_a_concept, purify

    erasure, files = Erasure.load(args.erasure), picture_files(args.images)
    if not names_a_concept(args.prompt, erasure):
        names = quoted([concept.name for concept in erasure.concepts])
        tell(f"note: --prompt does not name what is erased ({names}), so little may change")
    if same_place(args.out, args.images):
        raise ValueError("--out and --images are the same folder; give what is drawn one of its own")
    targets = _targets(args.out, files, args.overwrite)
    args.outputs.add("--out", *targets)
    model = _model(args.model)
    size = side(model)
    pictures = load_pictures(files, size)
    settings = {"prompt": args.prompt, "steps": args.steps, "guidance": args.guidance}
    with Progress("purify") as bar:
        pure = purify(model, erasure, pictures, callback=bar, **settings)
    args.out.mkdir(parents=True, exist_ok=True)
    for picture, target in zip(pure, targets, strict=True):
        print(save_whole(to_image(picture), target, args.overwrite))
    print(f"each is the square around the centre of your picture, in the {size} x {size} pixels that the model draws")


def _targets(folder: Path, files: Sequence[Path], overwrite: bool) -> list[Path]:
    """Where a PNG for each file goes; refused when two go to one place, or something is there already."""
    targets = [folder / f"{file.stem}.png" for file in files]
    for target in targets:
        if targets.count(target) > 1:
            raise ValueError(f"images: two pictures would be written as {target.name}; rename one")
    for target in targets:
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} is already there; choose another folder or ask to --overwrite")
    return targets


def compare(args: argparse.Namespace) -> None:
    """Draw the same prompts and seeds with and without erasures, as one labelled grid."""
    from .compare import compare

    if args.out.suffix != ".png":
        raise ValueError(f"--out: a grid is written as .png, got '{args.out.name}'")
    args.outputs.add("--out", args.out)
    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f"{args.out} is already there; choose another name or ask to --overwrite")
    erasures = {path.stem: Erasure.load(path) for path in args.erasure}
    if len(erasures) < len(args.erasure):
        raise ValueError("--erasure: two files have the same name; rename one")
    prompts = [*args.prompt, *_prompts(args)]
    if not prompts:
        raise ValueError("name at least one --prompt, or a file of --prompts")
    model = _model(args.model)
    seeds = range(args.seed, args.seed + args.pictures)
    settings = {"steps": args.steps, "guidance": args.guidance, "negative": args.negative}
    with Progress("compare") as bar:
        sheet = compare(model, erasures, prompts, seeds=seeds, difference=args.difference, callback=bar, **settings)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(save_whole(sheet, args.out, args.overwrite))


def attack(args: argparse.Namespace) -> None:
    """Try to bring an erased concept back: an audit of your own erasure."""
    from .red_team import attack

    erasure = Erasure.load(args.erasure)
    concept = _audited(args, erasure)
    files = _audit_files(args, "attack")
    prompts = _prompts(args)
    pictures = picture_files(args.images) if args.images else None
    model = _model(args.model)
    settings = {
        "kind": args.kind, "attacks": args.attack, "prompts": prompts, "pictures": args.pictures, "steps": args.steps,
        "seconds": args.seconds, "sampling_steps": args.sampling_steps, "guidance": args.guidance, "seed": args.seed,
    }  # fmt: skip
    if pictures:
        settings["images"] = load_pictures(pictures, side(model))
    with Progress("attack") as bar:
        found = attack(model, erasure.over(model), concept, recogniser=_recogniser(args), callback=bar, **settings)
    print(f"{found.table()}\n\n{found.verdict()}")
    if files:
        picture, numbers = files
        args.out.mkdir(parents=True, exist_ok=True)
        print(save_whole(found.picture(), picture, args.overwrite))
        print(save_text(found.as_json(), numbers, args.overwrite))


def report(args: argparse.Namespace) -> None:
    """Measure what an erasure does to its concept, to near neighbours and to far ones."""
    from .report import report
    from .report_sheet import report_sheet

    erasure = Erasure.load(args.erasure)
    concept = _audited(args, erasure)
    files = _audit_files(args, "report")
    prompts = _prompts(args)
    recogniser, model = _recogniser(args), _model(args.model)
    settings = {"kind": args.kind, "count": args.neighbours, "steps": args.steps, "guidance": args.guidance}
    settings |= {"seeds": range(args.seed, args.seed + args.pictures), "among": known_concepts(args.model == TOY)}
    with Progress("report") as bar:
        found = report(model, erasure, concept, more=prompts, recogniser=recogniser, callback=bar, **settings)
    print(f"{found.table()}\n\n{found.verdict()}")
    if files:
        picture, numbers = files
        args.out.mkdir(parents=True, exist_ok=True)
        print(save_whole(report_sheet(found), picture, args.overwrite))
        print(save_text(found.as_json(), numbers, args.overwrite))


def _prompts(args: argparse.Namespace) -> list[str]:
    """Those of the file of --prompts."""
    return parse_prompts(read_list(args.prompts), str(args.prompts)) if args.prompts else []


def _audited(args: argparse.Namespace, erasure: Erasure) -> str:
    """The concept to look for: the one that was asked for, or the only one of the erasure."""
    if args.concept:
        asked = name_of(args.concept, "--concept")
        problem = not_among(asked, erasure.concepts)
        if problem:
            raise ValueError(f"--concept: {problem}, and list what else asks for it in a file of --prompts")
        return asked
    names = [concept.name for concept in erasure.concepts]
    if len(names) != 1:
        raise ValueError(f"--concept: the erasure has {len(names)} concepts, name one of them: {quoted(names)}")
    return names[0]


def _audit_files(args: argparse.Namespace, name: str) -> list[Path]:
    """The picture and the numbers that go to ``--out``; none unless it is given."""
    if args.out is None:
        return []
    files = [args.out / f"{name}.png", args.out / f"{name}.json"]
    for file in files:
        if file.exists() and not args.overwrite:
            raise FileExistsError(f"{file} is already there; choose another folder or ask to --overwrite")
    args.outputs.add("--out", *files)
    return files


def _recogniser(args: argparse.Namespace):
    """Who judges the pictures: whom the user names, or the toy's judge for the toy, or nobody."""
    if args.clip:
        from .adapters.clip import load_clip

        return load_clip(args.clip)
    if args.nudenet:
        from .adapters.nude import NudeNetRecogniser

        return NudeNetRecogniser()
    if args.model != TOY:
        return None
    from .recognise import ToyRecogniser

    return ToyRecogniser()


def evaluate(args: argparse.Namespace) -> None:
    """Measure the embedded model, or what an erasure does to it."""
    if bool(args.erasure) != bool(args.concept):
        raise ValueError("--erasure and --concept belong together: the file, and which of its concepts to judge")
    print(_erasure_report(args) if args.erasure else _model_report(args))


def _model_report(args: argparse.Namespace) -> str:
    from .evaluation import evaluate_model, evaluate_renders
    from .toy import Judge

    model, judge = _model(args.model), Judge.load()
    with Progress("evaluate") as bar:
        found = evaluate_model(model, judge, images=args.images, seed=args.seed, callback=bar)
    renders = evaluate_renders(model, judge)
    kinds = {"generated": found, "real": renders.raw, "real, through the autoencoder": renders.decoded}
    rows = [
        [name, *(f"{100 * share:.1f}" for share in (seen.object, seen.style, seen.colour)), str(seen.images)]
        for name, seen in kinds.items()
    ]
    shown = table(("recognised, %", "object", "style", "colour", "pictures"), rows)
    return f"{shown}\n\nautoencoder: {renders.psnr:.1f} dB PSNR"


def _erasure_report(args: argparse.Namespace) -> str:
    from .evaluation import check_erased, evaluate_erasure, subject_of
    from .toy import Judge

    erasure = Erasure.load(args.erasure)
    subject = subject_of(args.concept)
    check_erased(args.concept, erasure.concepts)
    model, judge = _model(args.model), Judge.load()
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


def _sentence(error: Exception) -> str:
    """The system's own errors without their number."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _method(name: str) -> str:
    """With a hyphen too, as its name is written in sentences."""
    return name.replace("-", "_")


def _model(name: str):
    """``toy``, or a path."""
    with Progress("load", patience=0) as bar:
        bar(0, 1, name)
        return load_model(name)


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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m erasure_core", description="Erase concepts from text-to-image models.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (_add_demo, _add_erase, _add_purify, _add_compare, _add_report, _add_attack, _add_evaluate):
        add(commands)
    return parser


def _add_demo(commands) -> None:
    command = commands.add_parser("demo", help=demo.__doc__)
    command.add_argument("--out", type=as_path, default=Path("out"), help="folder for the picture and the table")
    what = "rece: three kinds of concept; all: the four methods side by side"
    command.add_argument("--method", choices=["rece", "all"], default="rece", help=what)
    command.add_argument("--seed", type=whole(0, MOST_SEED), default=0)
    command.set_defaults(command=demo)


def _add_erase(commands) -> None:
    command = commands.add_parser("erase", help=erase.__doc__)
    _add_model(command)
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
        reads = {bool: {"action": argparse.BooleanOptionalAction}, int: {"type": whole()}, float: {"type": number()}}
        command.add_argument(
            option(name), **reads.get(kind, {}), help=f"in place of the preset's, for {', '.join(having(name))}"
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


def _add_model(command, more: str = "") -> None:
    told = "toy, a diffusers folder, or an SD checkpoint .safetensors" + (more and f"; {more}")
    command.add_argument("--model", type=filled, required=True, help=told)


def _add_purify(commands) -> None:
    command = commands.add_parser("purify", help=purify.__doc__)
    _add_model(command, "not erased yet")
    command.add_argument("--erasure", type=as_path, required=True, metavar="FILE", help="what erase wrote")
    command.add_argument("--images", type=as_path, required=True, metavar="FOLDER", help="the pictures")
    command.add_argument("--prompt", default="", help="what they show, the concept included; its name by default")
    command.add_argument("--steps", type=whole(1), default=30, help="of each way")
    command.add_argument("--guidance", type=number(0), default=1.0, help="1 keeps most of a picture, 3 changes more")
    command.add_argument("--out", type=as_path, required=True, metavar="FOLDER", help="where each is written as a PNG")
    command.add_argument("--overwrite", action="store_true", help="replace pictures in --out")
    command.set_defaults(command=purify)


def _add_compare(commands) -> None:
    command = commands.add_parser("compare", help=compare.__doc__)
    _add_model(command, "not erased yet")
    command.add_argument(
        "--erasure", type=as_path, action="append", required=True, metavar="FILE", help="what erase wrote, a column"
    )
    command.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a row; can be given repeatedly")
    command.add_argument("--prompts", type=as_path, metavar="FILE", help="one prompt a line, # for comments")
    command.add_argument("--negative", default="", metavar="TEXT", help="what guidance leads away from")
    command.add_argument("--seed", type=whole(0, MOST_SEED), default=0, help="of the first picture of a prompt")
    command.add_argument("--pictures", type=whole(1), default=1, help="of each prompt, from one seed after another")
    command.add_argument("--steps", type=whole(1), default=15)
    command.add_argument("--guidance", type=number(0, MOST_GUIDANCE), default=3.0)
    command.add_argument("--difference", action="store_true", help="also draw where pictures differ from the first")
    command.add_argument("--out", type=as_path, required=True, help="the .png to write")
    command.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    command.set_defaults(command=compare)


def _add_attack(commands) -> None:
    from .red_team import ATTACKS

    command = commands.add_parser("attack", help=attack.__doc__)
    _add_model(command, "not erased yet")
    command.add_argument("--erasure", type=as_path, required=True, metavar="FILE", help="what erase wrote")
    _add_audited(command, "attack")
    told = "; ".join(f"{name}: {one.summary}" for name, one in ATTACKS.items())
    command.add_argument("--attack", action="append", choices=list(ATTACKS), help=f"all by default. {told}")
    command.add_argument("--images", type=as_path, metavar="FOLDER", help="of the concept; else the model draws it")
    command.add_argument("--pictures", type=whole(1), default=8, help="that each attack draws")
    command.add_argument("--steps", type=whole(1), default=200, help="of each attack that searches")
    command.add_argument("--seconds", type=number(above=0), help="stop each search after so many")
    command.add_argument("--sampling-steps", type=whole(1), default=15)
    command.set_defaults(command=attack)


def _add_report(commands) -> None:
    command = commands.add_parser("report", help=report.__doc__)
    _add_model(command, "not erased yet")
    command.add_argument("--erasure", type=as_path, required=True, metavar="FILE", help="what erase wrote")
    _add_audited(command, "report")
    command.add_argument("--pictures", type=whole(1), default=4, help="of each prompt")
    command.add_argument("--neighbours", type=whole(1), default=6, help="how many near concepts, and how many far ones")
    command.add_argument("--steps", type=whole(1), default=15, help="of sampling")
    command.set_defaults(command=report)


def _add_audited(command, name: str) -> None:
    """What both audits ask: which concept, who judges, and where the result goes."""
    command.add_argument("--concept", help="which of the erasure's concepts; needed when it has several")
    command.add_argument("--kind", choices=["object", "style"], default="object", help="how prompts name it")
    command.add_argument("--prompts", type=as_path, metavar="FILE", help="more prompts that ask for it, one a line")
    who = command.add_mutually_exclusive_group()
    who.add_argument("--clip", type=as_path, metavar="FOLDER", help="a CLIP of transformers, which judges the pictures")
    who.add_argument("--nudenet", action="store_true", help="let NudeNet judge, for explicit content")
    command.add_argument("--guidance", type=number(0, MOST_GUIDANCE), default=3.0)
    command.add_argument("--seed", type=whole(0, MOST_SEED), default=0)
    command.add_argument("--out", type=as_path, metavar="FOLDER", help=f"for {name}.png and {name}.json, if wanted")
    command.add_argument("--overwrite", action="store_true", help="replace what is there")


def _add_evaluate(commands) -> None:
    command = commands.add_parser("evaluate", help=evaluate.__doc__)
    command.add_argument("--model", choices=["toy"], default="toy", help="only the embedded model has a judge")
    command.add_argument("--erasure", type=as_path, metavar="FILE", help="what erase wrote")
    command.add_argument("--concept", help="which concept to judge: an object, a style or a colour")
    command.add_argument("--images", type=whole(1), default=192, help="pictures to draw, in each state")
    command.add_argument("--seed", type=whole(0, MOST_SEED), default=0)
    command.set_defaults(command=evaluate)
