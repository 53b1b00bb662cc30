"""The attack "inversion": textual inversion on the edited model (concept inversion, arXiv 2308.01508).

As in textual inversion (arXiv 2208.01618), the embedding of one token, in each text encoder, is trained so that prompts
with this token denoise pictures of the concept. No other weight is trained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from ...concepts.templates import wordings
from ...conditioning import Conditioning
from ...model import DiffusionModel, token_embeddings
from ...training.denoising import denoising_error
from ...training.loop import descend, train
from .attempt import Attempt, Scene, attempt, in_turn

PLACEHOLDER = "*"
LEARNING_RATE, BATCH = 5e-3, 4


def by_inversion(scene: Scene) -> Attempt:
    """Learn the embedding of the word ``*`` from the pictures, within the scene's budget, and draw with it."""
    began = time.monotonic()
    edited, generator = scene.edited, scene.generator()
    prompts = wordings(scene.kind, PLACEHOLDER)
    ids = torch.tensor([edited.tokenize(prompt) for prompt in prompts])
    tables = token_embeddings(edited)
    place = placeholder(edited)
    words = {name: table[[place]].clone().requires_grad_() for name, table in tables.items()}
    learned = list(words.values())
    optimiser = torch.optim.Adam(learned, LEARNING_RATE)

    def conditioning(rows: Tensor) -> Conditioning:
        view = edited.with_weights({name: replaced(table, [place], words[name]) for name, table in tables.items()})
        return view.encode_tokens(ids[rows])

    def update(step: int) -> Tensor:
        clean = scene.latents[torch.randint(len(scene.latents), (BATCH,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        timesteps = torch.randint(len(edited.alphas_cumprod), (BATCH,), generator=generator)
        rows = torch.randint(len(prompts), (BATCH,), generator=generator)
        loss = denoising_error(edited, clean, noise, timesteps, conditioning(rows))
        descend(loss, learned, optimiser)
        return loss

    losses = train(update, scene.budget, what="inversion", callback=scene.callback)
    rows = torch.tensor(in_turn(range(len(prompts)), scene.pictures))
    with torch.no_grad():
        learned_word = conditioning(rows)
    return attempt(scene, "inversion", [prompts[row] for row in rows], learned_word, began=began, losses=losses)


def replaced(table: Tensor, places: Sequence[int], rows: Tensor) -> Tensor:
    """Return a table ``[n, width]`` with ``rows`` in the ``places``, differentiable in them."""
    return table.index_copy(0, torch.tensor(places, device=table.device), rows)


def placeholder(model: DiffusionModel) -> int:
    """Return the token id of the word that is learned. Raises ``ValueError`` if the word is more than one token."""
    plain, with_word = model.tokenize(""), model.tokenize(PLACEHOLDER)
    content = [one for one in with_word if one not in plain]
    if len(content) != 1:
        raise ValueError(f"the text encoder's tokenizer takes '{PLACEHOLDER}' for {len(content)} tokens, one is needed")
    return content[0]
