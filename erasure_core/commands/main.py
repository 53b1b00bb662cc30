"""Running a command: every mistake of a user ends as one sentence on stderr and exit code 2; see ``exit_codes``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ..concepts.lists import place_of
from ..erasures.erasure_record import __version__
from ..files.images import pictures_in
from ..files.outputs import Outputs
from ..training.loop import TrainingError
from .attack import add_attack
from .bake import add_bake
from .combine import add_combine
from .compare import add_compare
from .demo import add_demo
from .erase import add_erase
from .evaluate import add_evaluate
from .exit_codes import FAILED, INTERRUPTED, code_for_text, tell
from .inspect_file import add_inspect
from .options import Parser, as_typed, option
from .purify import add_purify
from .rebase import add_rebase
from .report import add_report
from .request import TOY
from .suggest import add_suggest

POSITIONAL = {"erasure_file": "ERASURE", "erasures": "ERASURE ...", "checkpoint": "CHECKPOINT"}
"""The arguments without an option that name files to read, as the help spells them."""


NO_NODES = "pip installs this command and the library. The ComfyUI nodes are a folder in ComfyUI's custom_nodes."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command with ``arguments``, by default those of the process, and return the exit code."""
    outputs, args = Outputs({}), argparse.Namespace()
    try:
        args = _parser().parse_args(arguments)
        outputs = args.outputs = Outputs(_inputs(args))
        args.command(args)
    except KeyboardInterrupt as error:
        tell(f"\ninterrupted; {outputs.summary()}")
        return getattr(error, "code", INTERRUPTED)
    except ModuleNotFoundError as error:
        tell(f"error: {error.name} is missing; pip install 'comfyui-concept-erasure[diffusers]'")
        return FAILED
    except (ValueError, OSError, TrainingError, MemoryError) as error:
        tell(
            f"error: {as_typed(_sentence(error), getattr(args, 'spelling', {}))}"
            + (f"; {outputs.summary()}" if outputs.written() else "")
        )
        return FAILED
    return code_for_text(bool(outputs.written()))


def _inputs(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Return the files and folders that a command reads, by the options that name them."""
    inputs = {}
    for name in ("model", "erasure", "statistics", "concepts", "prompts", "images", "clip", *POSITIONAL):
        value = getattr(args, name, None)
        paths = value if isinstance(value, list) else [value]
        inputs[POSITIONAL.get(name) or option(name)] = [
            Path(path) for path in paths if isinstance(path, str | Path) and path != TOY
        ]
    inputs["--concepts"] = [place_of(path)[0] for path in inputs["--concepts"]]
    folders = [folder for folder in inputs["--images"] if os.path.isdir(folder)]  # or a number
    return {**inputs, "--images": [path for folder in folders for path in pictures_in(folder)]}


def _sentence(error: Exception) -> str:
    """Return the message of an error; errors of the system come without their number."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m erasure_core", description="Erase concepts from text-to-image models.", epilog=NO_NODES
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (
        add_demo, add_suggest, add_erase, add_bake, add_combine, add_rebase, add_inspect, add_purify, add_compare,
        add_report, add_attack, add_evaluate,
    ):  # fmt: skip
        add(commands)
    return parser
