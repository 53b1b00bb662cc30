"""The attack "discrete": words that gradients find and that, put before the concept's prompt, bring the concept back.

The loss is that of UnlearnDiffAtk (arXiv 2310.11868): the denoising error of the edited model on pictures of the
concept. UnlearnDiffAtk and P4D (arXiv 2309.06135) search among embeddings and project them to tokens. Here each step
exchanges one token, chosen by greedy coordinate gradients (arXiv 2307.15043), so that every candidate is a text that a
user could type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ...conditioning import Conditioning
from ...model import DiffusionModel, token_embeddings
from ...training.denoising import denoising_error
from ...training.loop import Budget, gradients, train
from .attempt import Attempt, Scene, attempt, in_turn
from .textual_inversion import replaced

SLOTS = 5  # adversarial tokens, as in UnlearnDiffAtk
CANDIDATES = 16  # exchanges of one token that are tried in a step
BATCH = 4  # pictures, each with its own noise, on which these are compared
STEP_COST = 4  # steps of another search that take as long as one of this


def by_discrete_prompt(scene: Scene) -> Attempt:
    """Search with a quarter of the steps of the scene's budget, and draw with the prompt that has the lowest loss."""
    began = time.monotonic()
    words = Words(scene.edited, scene.prompts[-1], scene.generator())
    generator = scene.generator()
    clean_latents, timesteps_known = scene.latents, len(scene.edited.alphas_cumprod)

    def update(step: int) -> Tensor:
        clean = clean_latents[torch.randint(len(clean_latents), (BATCH,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        timesteps = torch.randint(timesteps_known, (BATCH,), generator=generator)

        def error(conditioning: Conditioning) -> Tensor:
            return denoising_error(scene.edited, clean, noise, timesteps, conditioning.expand(BATCH))

        return words.improve(error)

    budget = Budget(-(-scene.budget.steps // STEP_COST), scene.budget.seconds)
    losses = train(update, budget, what="discrete", callback=scene.callback)
    prompts = in_turn([words.text()], scene.pictures)
    conditioning = scene.edited.encode_prompts(prompts)
    return attempt(scene, "discrete", prompts, conditioning, began=began, losses=losses)


class Words:
    """``SLOTS`` tokens before a prompt; the tokenizer turns their text back into just these tokens."""

    def __init__(self, model: DiffusionModel, prompt: str, generator: torch.Generator):
        self._model, self._prompt = model, prompt
        self._tables = token_embeddings(model)
        special = set(model.tokenize(""))
        self._ordinary = [one for one in range(len(next(iter(self._tables.values())))) if one not in special]
        used = set(model.tokenize(prompt))
        self._places = [one for one in reversed(self._ordinary) if one not in used][:SLOTS]
        self._ids = self._first(generator)

    def text(self, ids: list[int] | None = None) -> str:
        """Return the whole prompt, with the current tokens or with ``ids``."""
        return f"{self._model.text_of(self._ids if ids is None else ids)} {self._prompt}"

    def improve(self, error: Callable[[Conditioning], Tensor]) -> Tensor:
        """Try the exchanges that the gradient favours, keep the best one if it lowers the loss, and return the loss.

        ``error`` maps the conditioning of one prompt to the loss.
        """
        rows = {name: table[self._ids].clone().requires_grad_() for name, table in self._tables.items()}
        loss = error(self._embedded(rows))
        slopes = zip(self._tables.values(), rows.values(), gradients(loss, list(rows.values())), strict=True)
        with torch.no_grad():
            changes = [slope @ table.T - (slope * row).sum(-1, keepdim=True) for table, row, slope in slopes]
            change = torch.stack(changes).sum(0)
            candidates = list(self._candidates(change))
            if not candidates:
                return loss
            losses = torch.stack([error(self._model.encode_prompts([self.text(ids)])) for ids in candidates])
            best = int(losses.argmin())
            if losses[best] < loss:
                self._ids = candidates[best]
                return losses[best]
        return loss.detach()

    def _embedded(self, rows: Mapping[str, Tensor]) -> Conditioning:
        """Return the prompt with ``rows`` ``[SLOTS, width]`` of each table in the slots, differentiable in them."""
        tables = {name: replaced(table, self._places, rows[name]) for name, table in self._tables.items()}
        return self._model.with_weights(tables).encode_tokens(torch.tensor([self._row(self._places)]))

    def _row(self, ids: list[int]) -> list[int]:
        """Return the token ids of the window with ``ids`` before the prompt."""
        start, *rest = self._model.tokenize(self._prompt)
        return [start, *ids, *rest][: self._model.tokens]

    def _candidates(self, change: Tensor) -> Iterator[list[int]]:
        """Yield at most ``CANDIDATES`` exchanges that are text, those of the least expected change of the loss first.

        ``change`` is that expectation, ``[SLOTS, vocabulary]``.
        """
        change = change[:, self._ordinary]
        vocabulary, count = change.shape[1], 0
        for place in change.flatten().argsort()[: 20 * CANDIDATES].tolist():
            slot, rank = divmod(place, vocabulary)
            ids = [*self._ids[:slot], self._ordinary[rank], *self._ids[slot + 1 :]]
            if ids != self._ids and self._is_text(ids):
                yield ids
                count += 1
            if count == CANDIDATES:
                return

    def _is_text(self, ids: list[int]) -> bool:
        try:
            return self._model.tokenize(self.text(ids)) == self._row(ids)
        except ValueError:
            return False

    def _first(self, generator: torch.Generator) -> list[int]:
        """Draw tokens at random, again and again until they are text."""
        for _ in range(1000):
            drawn = torch.randint(len(self._ordinary), (SLOTS,), generator=generator).tolist()
            ids = [self._ordinary[one] for one in drawn]
            if self._is_text(ids):
                return ids
        raise ValueError(f"no {SLOTS} tokens fit before '{self._prompt}'; the prompt may be too long")
