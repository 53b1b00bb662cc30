"""Comparison grids: the same prompts and seeds with several erasures, side by side, and where the pictures differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from PIL import Image
from torch import Tensor

from ..arguments import Seed, checked
from ..concepts.parse import as_prompts
from ..drawing.contact_sheet import Section, contact_sheet
from ..erasures.erasure import Erasure
from ..model import Callback, DiffusionModel
from ..progress import part_of
from ..sampling.ddim import generate

BEFORE = "before"
TITLE = "The same seed in each row"
CELL = 256  # pixels of a picture on the grid: larger ones are shrunk to it, small ones enlarged at most twice
STRONGEST = 0.5  # the mean difference of channels that is drawn in white


@checked
def compare(
    model: DiffusionModel,
    erasures: Mapping[str, Erasure],
    prompts: Sequence[str] | str,
    *,
    seeds: Sequence[Seed] = (0,),
    steps: int = 15,
    guidance: float = 3.0,
    negative: str = "",
    difference: bool = False,
    callback: Callback | None = None,
) -> Image.Image:
    """Return a grid with a row for each prompt and seed, a column for the model as it is, and one for each erasure.

    ``erasures`` are by the captions of their columns. Pictures are drawn in ``steps`` DDIM steps with classifier-free
    ``guidance`` away from the ``negative`` prompt. With ``difference`` a heat map follows each erasure's column.
    ``callback`` gets the progress. The model is not changed. Raises ``ValueError`` for settings that cannot be used.
    """
    prompts = as_prompts(prompts)
    if not prompts or not seeds:
        raise ValueError(f"compare needs a prompt and a seed, got {len(prompts)} and {len(seeds)}")
    if BEFORE in erasures:
        raise ValueError(f"an erasure cannot be called '{BEFORE}', as the model without one is")
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    columns = {}
    for index, (name, erasure) in enumerate({BEFORE: None, **erasures}.items()):
        with erasure.applied_to(model) if erasure else nullcontext():
            columns[name] = generate(
                model, [prompt for prompt, _ in pairs], [seed for _, seed in pairs], steps=steps, guidance=guidance,
                negative=negative, callback=part_of(callback, index, 1 + len(erasures)),
            )  # fmt: skip
    return grid([f"{prompt} ({seed})" for prompt, seed in pairs], columns, difference=difference)


def grid(rows: Sequence[str], columns: Mapping[str, Tensor], *, difference: bool = False) -> Image.Image:
    """Return a grid of pictures with captions.

    ``rows`` are the captions of the rows. ``columns`` are by caption and hold a picture for each row, ``[n, 3, h, w]``
    with values from 0 to 1. With ``difference`` a heat map of the difference from the first column follows each other
    column. Raises ``ValueError`` for columns of different shapes.
    """
    first = next(iter(columns.values()))
    drawn: dict[str, Tensor] = {}
    for name, images in columns.items():
        if images.shape != first.shape or len(images) != len(rows):
            expected = (len(rows), *first.shape[1:])
            raise ValueError(f"'{name}' has pictures of shape {tuple(images.shape)}, not {expected}")
        with_heat = difference and bool(drawn)
        drawn[name] = images
        if with_heat:
            drawn[f"{name}: difference"] = heat(first, images)
    pictures = torch.stack([images.float().cpu() for images in drawn.values()], 1)
    section = Section(TITLE, list(drawn), list(zip(rows, pictures, strict=True)))
    side = max(first.shape[-2:])
    return contact_sheet([section], scale=min(2.0, CELL / side))


def heat(before: Tensor, after: Tensor) -> Tensor:
    """Return a heat map of the difference of pictures ``[..., 3, h, w]``: black for none, then red, yellow, white."""
    strength = (after - before).abs().mean(-3) / STRONGEST
    return torch.stack([3 * strength, 3 * strength - 1, 3 * strength - 2], -3).clamp(0, 1)
