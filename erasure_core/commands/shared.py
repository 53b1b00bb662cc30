"""What several commands ask for: a model, prompts."""

from __future__ import annotations

import argparse

from ..concepts.parse import parse_prompts
from ..files.text_lists import read_list
from .options import filled
from .progress import Progress
from .request import load_model


def prompts_of(args: argparse.Namespace) -> list[str]:
    """Those of the file of --prompts."""
    return parse_prompts(read_list(args.prompts), str(args.prompts)) if args.prompts else []


def open_model(name: str):
    """``toy``, or a path."""
    with Progress("load", patience=0) as bar:
        bar(0, 1, name)
        return load_model(name)


def add_model(command, more: str = "") -> None:
    told = "toy, a diffusers folder, or an SD checkpoint .safetensors" + (more and f"; {more}")
    command.add_argument("--model", type=filled, required=True, help=told)
