"""A prompt of real words found by gradients: put before a prompt of the concept, it should bring the concept back.

The loss is UnlearnDiffAtk's (arXiv 2310.11868): the edited model's own denoising error on pictures of the concept. P4D
(arXiv 2309.06135) and it search in a relaxed space and project; here each step swaps one token for another by greedy
coordinate gradients (arXiv 2307.15043), and every candidate is a text that a user could type.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ...model import DiffusionModel, token_embeddings
from ...training.denoising import denoising_error
from ...training.loop import Budget, gradients, train
from .attempt import Attempt, Scene, attempt, dealt
from .textual_inversion import replaced

SLOTS = 5  # adversarial tokens, as in UnlearnDiffAtk
CANDIDATES = 16  # swaps that are tried a step
BATCH = 4  # pictures, each with its own noise, on which swaps are compared
STEP_COST = 4  # steps of other searches that take as long as one of this


def by_discrete_prompt(scene: Scene) -> Attempt:
    """Search for the scene's budget, a quarter of its steps, and prompt with what was found."""
    began = time.monotonic()
    words = Words(scene.edited, scene.prompts[-1], scene.generator())
    generator = scene.generator()
    clean_latents, timesteps_known = scene.latents, len(scene.edited.alphas_cumprod)

    def update(step: int) -> Tensor:
        clean = clean_latents[torch.randint(len(clean_latents), (BATCH,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        timesteps = torch.randint(timesteps_known, (BATCH,), generator=generator)

        def error(contexts: Tensor) -> Tensor:
            return denoising_error(scene.edited, clean, noise, timesteps, contexts.expand(BATCH, -1, -1))

        return words.improve(error)

    budget = Budget(-(-scene.budget.steps // STEP_COST), scene.budget.seconds)
    losses = train(update, budget, what="discrete", callback=scene.callback)
    asked = dealt([words.text()], scene.pictures)
    context = scene.edited.encode_prompts(asked).context
    return attempt(scene, "discrete", asked, context, began=began, losses=losses)


class Words:
    """``SLOTS`` tokens before a prompt; only such whose text has just these tokens."""

    def __init__(self, model: DiffusionModel, prompt: str, generator: torch.Generator):
        self._model, self._prompt = model, prompt
        self._tables = token_embeddings(model)
        special = set(model.tokenize(""))
        self._ordinary = [one for one in range(len(next(iter(self._tables.values())))) if one not in special]
        used = set(model.tokenize(prompt))
        self._places = [one for one in reversed(self._ordinary) if one not in used][:SLOTS]
        self._ids = self._first(generator)

    def text(self, ids: list[int] | None = None) -> str:
        return f"{self._model.text_of(self._ids if ids is None else ids)} {self._prompt}"

    def improve(self, error) -> Tensor:
        """Try the swaps that the gradient of ``error`` (of a context) favours; keep the best if it is better."""
        rows = {name: table[self._ids].clone().requires_grad_() for name, table in self._tables.items()}
        loss = error(self._embedded(rows))
        slopes = zip(self._tables.values(), rows.values(), gradients(loss, list(rows.values())), strict=True)
        with torch.no_grad():
            change = sum(slope @ table.T - (slope * row).sum(-1, keepdim=True) for table, row, slope in slopes)
            tried = list(self._likely(change))
            if not tried:
                return loss
            losses = torch.stack([error(self._model.encode_prompts([self.text(ids)]).context) for ids in tried])
            best = int(losses.argmin())
            if losses[best] < loss:
                self._ids = tried[best]
                return losses[best]
        return loss.detach()

    def _embedded(self, rows: Mapping[str, Tensor]) -> Tensor:
        """The context with ``rows`` ``[SLOTS, width]`` of each table for the slots, differentiable in them."""
        tables = {name: replaced(table, self._places, rows[name]) for name, table in self._tables.items()}
        return self._model.with_weights(tables).encode_tokens(torch.tensor([self._row(self._places)]))

    def _row(self, ids: list[int]) -> list[int]:
        """The window with ``ids`` before the prompt."""
        start, *rest = self._model.tokenize(self._prompt)
        return [start, *ids, *rest][: self._model.tokens]

    def _likely(self, change: Tensor) -> Iterator[list[int]]:
        """The swaps of least expected ``change`` ``[SLOTS, vocabulary]`` that are text, at most ``CANDIDATES``."""
        change = change[:, self._ordinary]
        vocabulary, found = change.shape[1], 0
        for place in change.flatten().argsort()[: 20 * CANDIDATES].tolist():
            slot, rank = divmod(place, vocabulary)
            ids = [*self._ids[:slot], self._ordinary[rank], *self._ids[slot + 1 :]]
            if ids != self._ids and self._is_text(ids):
                yield ids
                found += 1
            if found == CANDIDATES:
                return

    def _is_text(self, ids: list[int]) -> bool:
        try:
            return self._model.tokenize(self.text(ids)) == self._row(ids)
        except ValueError:
            return False

    def _first(self, generator: torch.Generator) -> list[int]:
        """Tokens drawn at random, again until they are text."""
        for _ in range(1000):
            drawn = torch.randint(len(self._ordinary), (SLOTS,), generator=generator).tolist()
            ids = [self._ordinary[one] for one in drawn]
            if self._is_text(ids):
                return ids
        raise ValueError(f"no {SLOTS} tokens fit before '{self._prompt}'; the prompt may be too long")
