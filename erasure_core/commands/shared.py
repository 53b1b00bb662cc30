"""Options that several commands share: the model, and prompts from a file."""

from __future__ import annotations

import argparse

from ..concepts.parse import parse_prompts
from ..files.bounded_text import read_list
from .options import filled
from .progress import Progress
from .request import load_model


def prompts_of(args: argparse.Namespace) -> list[str]:
    """Return the prompts in the file of --prompts; none without the option."""
    return parse_prompts(read_list(args.prompts), str(args.prompts)) if args.prompts else []


def open_model(name: str):
    """Load a model, with a progress bar; ``name`` is ``toy`` or a path."""
    with Progress("load", patience=0) as bar:
        bar(0, 1, name)
        return load_model(name)


def add_model(command, more: str = "", required: bool = True) -> None:
    """Add the option --model to a command; ``more`` is added to its help text."""
    text = "toy, a diffusers folder, or an SD checkpoint .safetensors" + (more and f"; {more}")
    command.add_argument("--model", type=filled, required=required, help=text)
