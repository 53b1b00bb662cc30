"""Options that several commands share: the model, and prompts from a file."""

from __future__ import annotations

import argparse

import torch

from ..concepts.parse import parse_prompts
from ..files.bounded_text import read_list
from ..workers import local_rank
from .options import filled
from .progress import Progress
from .request import load_model

DEVICES = ("cpu", "cuda", "mps")
CPU = torch.device(DEVICES[0])


def prompts_of(args: argparse.Namespace) -> list[str]:
    """Return the prompts in the file of --prompts; none without the option."""
    return parse_prompts(read_list(args.prompts), str(args.prompts)) if args.prompts else []


def open_model(name: str, device: torch.device = CPU):
    """Load a model, with a progress bar; ``name`` is ``toy`` or a path, ``device`` where it computes."""
    with Progress("load", patience=0) as bar:
        bar(0, 1, name)
        model = load_model(name)
    if device != CPU:
        model.pipe.to(device)
    return model


def add_device(command) -> None:
    """Add the option --device to a command."""
    command.add_argument("--device", choices=DEVICES, default=DEVICES[0], help="where the model computes")


def device_of(args: argparse.Namespace) -> torch.device:
    """Return the device of --device; of several GPUs the one that ``torchrun`` means for this process.

    Raises ``ValueError`` for a device that PyTorch does not find here.
    """
    if args.device == "cuda":
        count, number = torch.cuda.device_count(), local_rank()
        if number >= count:
            needed = f"{number + 1} processes on this machine need as many" if number else "it needs one"
            raise ValueError(f"--device cuda: PyTorch {torch.__version__} finds {count} CUDA GPUs here, and {needed}")
        return torch.device("cuda", number)
    if args.device == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"--device mps: PyTorch {torch.__version__} finds no Apple GPU here; leave the option out")
    return torch.device(args.device)


def add_model(command, more: str = "", required: bool = True) -> None:
    """Add the option --model to a command; ``more`` is added to its help text."""
    text = "toy, a diffusers folder, or an SD checkpoint .safetensors" + (more and f"; {more}")
    command.add_argument("--model", type=filled, required=required, help=text)
