"""Options that several commands share: the model, and prompts from a file."""

from __future__ import annotations

import argparse

import torch

from ..concepts.parse import parse_prompts
from ..devices import usable_device
from ..files.bounded_text import read_list
from ..workers import local_rank
from .options import filled
from .progress import Progress
from .request import load_model

CUDA, MPS = "cuda", "mps"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def prompts_of(args: argparse.Namespace) -> list[str]:
    """Return the prompts in the file of --prompts; none without the option."""
    return parse_prompts(read_list(args.prompts), str(args.prompts)) if args.prompts else []


def open_model(args: argparse.Namespace, device: torch.device | None = None):
    """Load the model of --model, with a progress bar, in the precision of --dtype.

    ``device`` is where it computes, by default that of ``device_of``.
    """
    device = device or device_of(args)
    with Progress("load", patience=0) as bar:
        bar(0, 1, args.model)
        clip_skip = args.clip_skip if "clip_skip" in args else 0  # of commands that draw with the embedded model alone
        return load_model(args.model, device, DTYPES[args.dtype], clip_skip)


def device_of(args: argparse.Namespace) -> torch.device:
    """Return the device of --device; for ``cuda`` the GPU that ``torchrun`` means for this process, if it runs it.

    Raises ``ValueError`` for a device that PyTorch does not find here.
    """
    if args.device == CUDA:
        count, number = torch.cuda.device_count(), local_rank()
        if number >= count:
            needed = f"{number + 1} processes on this machine need as many" if number else "it needs one"
            raise ValueError(f"--device cuda: PyTorch {torch.__version__} finds {count} CUDA GPUs here, and {needed}")
        return torch.device(CUDA, number)
    if args.device == MPS and not torch.backends.mps.is_available():
        raise ValueError(f"--device mps: PyTorch {torch.__version__} finds no Apple GPU here; leave the option out")
    return usable_device(args.device)


def add_model(command, more: str = "", required: bool = True) -> None:
    """Add --model, --clip-skip, --device and --dtype to a command; ``more`` is added to the help text of --model."""
    text = "toy, a diffusers folder, or an SD checkpoint .safetensors" + (more and f"; {more}")
    command.add_argument(
        "--model", earlier=("--pretrained-model-name-or-path",), type=filled, required=required, help=text
    )
    command.add_argument(
        "--clip-skip",
        type=int,
        default=0,
        metavar="N",
        help="how many of the last layers of CLIP your prompts skip, as diffusers counts: 0, or 1 for what A1111 and "
        "kohya-ss call 2; an erasure works for prompts that are read so",
    )
    add_device(command)


def add_device(command) -> None:
    """Add the options --device and --dtype to a command."""
    command.add_argument(
        "--device",
        type=filled,
        default="cpu",
        help="where the model computes: cpu, cuda, cuda:1, mps, as PyTorch names it",
    )
    command.add_argument(
        "--dtype",
        choices=list(DTYPES),
        default="fp32",
        help="the precision of the weights in memory; methods that train take fp32 and bf16",
    )
