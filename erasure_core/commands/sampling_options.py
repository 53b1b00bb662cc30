"""Options of sampling that several commands share: steps, guidance, and the number of pictures of a prompt."""

from __future__ import annotations

from ..sampling.ddim import MOST_GUIDANCE
from .options import number, whole


def add_steps(command, default: int = 15, help: str = "steps of sampling (DDIM)", earlier: str = "--steps") -> None:
    """Add ``--num-inference-steps`` to a command; ``earlier`` is its earlier name, by which Python has it too."""
    dest = earlier.removeprefix("--").replace("-", "_")
    command.add_argument(
        "--num-inference-steps", earlier=(earlier,), dest=dest, type=whole(1), default=default, help=help
    )


def add_guidance(
    command,
    default: float = 3.0,
    help: str = "of classifier-free guidance; 1 is without",
    most: float | None = MOST_GUIDANCE,
) -> None:
    """Add ``--guidance-scale`` to a command, from 0 to ``most``; ``None`` is no limit."""
    command.add_argument(
        "--guidance-scale", earlier=("--guidance",), dest="guidance", type=number(0, most), default=default, help=help
    )


def add_pictures_per_prompt(command, default: int, help: str) -> None:
    """Add ``--num-images-per-prompt`` to a command."""
    command.add_argument(
        "--num-images-per-prompt", earlier=("--pictures",), dest="pictures", type=whole(1), default=default, help=help
    )
