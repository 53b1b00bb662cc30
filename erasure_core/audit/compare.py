"""The same prompts and seeds through several models, side by side, and where the pictures differ."""

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
SHOWN = 256  # pixels of a picture on the grid: larger ones are shrunk, small ones enlarged twice
STRONGEST = 0.5  # the mean difference of channels that is drawn white


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
    """A grid: a row for each prompt and seed, a column for the model as it is and one for each erasure, by its name.

    With ``difference`` a heat-map follows each erasure's column. The model is only read. Raises ``ValueError`` for
    settings that cannot be used.
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
    """``columns``: by its caption, one picture for each of ``rows``, ``[n, 3, h, w]`` in 0 to 1.

    With ``difference`` each column but the first is followed by where it differs from the first.
    """
    first = next(iter(columns.values()))
    shown: dict[str, Tensor] = {}
    for name, images in columns.items():
        if images.shape != first.shape or len(images) != len(rows):
            wanted = (len(rows), *first.shape[1:])
            raise ValueError(f"'{name}' has pictures of shape {tuple(images.shape)}, not {wanted}")
        with_heat = difference and bool(shown)
        shown[name] = images
        if with_heat:
            shown[f"{name}: difference"] = heat(first, images)
    pictures = torch.stack([images.float().cpu() for images in shown.values()], 1)
    section = Section(TITLE, list(shown), list(zip(rows, pictures, strict=True)))
    side = max(first.shape[-2:])
    return contact_sheet([section], scale=min(2.0, SHOWN / side))


def heat(before: Tensor, after: Tensor) -> Tensor:
    """Where pictures ``[..., 3, h, w]`` differ: black for nowhere, then red, yellow and white."""
    strength = (after - before).abs().mean(-3) / STRONGEST
    return torch.stack([3 * strength, 3 * strength - 1, 3 * strength - 2], -3).clamp(0, 1)
