"""The node that shows models side by side."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..erasure_core.audit.compare import BEFORE, grid
from ..erasure_core.concepts.parse import parse_prompts
from .comfy_host.images import to_image
from .comfy_host.sampling import Sampling, draw
from .input_checks import checked
from .inputs import CHECK
from .sampler_inputs import sampler_inputs
from .schema import schema

MOST = 5  # models beside the first


class ErasureCompare(io.ComfyNode):
    """Draws prompts through several models with ``draw``, and returns the pictures as one labelled ``grid``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureCompare",
            display_name="Compare Models (Erasure)",
            category=CHECK,
            search_aliases=("before and after", "side by side", "grid", "xy plot", "difference"),
            description="Draws the same prompts from the same seeds through several models, as one labelled grid: a "
            "row for each picture, a column for each model. Works with every model that KSampler takes.",
            inputs=[
                io.Model.Input(
                    "model",
                    display_name="model (before)",
                    tooltip="The first column, called 'before': the model without an erasure.",
                ),
                io.Clip.Input(
                    "clip",
                    display_name="clip (before)",
                    tooltip="Its text encoder, and that of every column that has none of its own.",
                ),
                io.Vae.Input("vae", tooltip="The autoencoder of all of them."),
                io.Latent.Input(
                    "latent", tooltip="An empty latent image: its size is that of the pictures, its batch their number."
                ),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    placeholder="Prompts to draw, one a line. For example: a landscape by van gogh",
                    tooltip="One prompt a line. Lines that start with # are passed over. Brackets are text, as in a "
                    "name to erase; they set no weights.",
                ),
                io.String.Input("negative", default="", tooltip="What guidance leads away from, in every row."),
                io.String.Input(
                    "labels",
                    multiline=True,
                    default="",
                    placeholder="Names of the columns after the first, one a line",
                    tooltip="What the columns after the first are called, one a line; 'model_1' and so on if empty.",
                ),
                *sampler_inputs("The noise that every column begins with, as KSampler draws it."),
                io.Boolean.Input(
                    "difference",
                    default=False,
                    tooltip="Beside each column, where it differs from the first: black for nowhere, then red, yellow "
                    "and white.",
                ),
                *(part for number in range(1, MOST + 1) for part in _column(number)),
            ],
            outputs=[io.Image.Output(display_name="grid", tooltip="All pictures, with captions.")],
        )

    @classmethod
    @checked
    def execute(
        cls, model, clip, vae, latent, prompts, negative, labels, seed, steps, cfg, sampler_name, scheduler,
        difference, **others,
    ):  # fmt: skip
        rows = parse_prompts(prompts, "prompts")
        if not rows:
            raise ValueError("prompts is empty: write one prompt a line")
        sampling = Sampling(seed, steps, cfg, sampler_name, scheduler)
        columns = {}
        for label, one, encoder in _columns(model, clip, labels, others):
            parts = [draw(one, encoder, vae, prompt, negative, latent, sampling) for prompt in rows]
            columns[label] = torch.cat(parts)
        count = len(next(iter(columns.values()))) // len(rows)
        captions = [f"{prompt} ({index + 1})" if count > 1 else prompt for prompt in rows for index in range(count)]
        return io.NodeOutput(to_image(grid(captions, columns, difference=difference)))


def _column(number: int) -> list:
    """Return the inputs of column ``number + 1``."""
    own = f"Column {number + 1}'s text encoder, if it has its own."
    return [
        io.Model.Input(
            f"model_{number}",
            display_name=f"model {number} (after)",
            optional=True,
            tooltip=f"Column {number + 1}: a model with an erasure.",
        ),
        io.Clip.Input(f"clip_{number}", display_name=f"clip {number} (after)", optional=True, tooltip=own),
    ]


def _columns(model, clip, labels: str, others: dict) -> list[tuple]:
    """Return label, MODEL and CLIP of every column; a column with a CLIP alone has the MODEL of the first."""
    columns = [(BEFORE, model, clip)]
    numbers = [n for n in range(1, MOST + 1) if others.get(f"model_{n}") or others.get(f"clip_{n}")]
    names = parse_prompts(labels, "labels") or [f"model_{n}" for n in numbers]
    lines = [line.strip() for line in labels.splitlines() if line.strip()]
    if len(set(lines)) < len(lines):
        raise ValueError("labels names two columns alike; give each a line of its own")
    if len(names) != len(numbers):
        raise ValueError(
            f"labels has {len(names)} lines for {len(numbers)} models beside the first; write one for each"
        )
    if BEFORE in names:
        raise ValueError(f"labels: '{BEFORE}' is what the first column is called")
    for name, number in zip(names, numbers, strict=True):
        columns.append((name, others.get(f"model_{number}") or model, others.get(f"clip_{number}") or clip))
    return columns
