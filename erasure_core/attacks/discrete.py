"""A prompt of real words found by gradients: put before a prompt of the concept, it should bring the concept back.

The loss is UnlearnDiffAtk's (arXiv 2310.11868): the edited model's own denoising error on pictures of the concept. P4D
(arXiv 2309.06135) and it search in a relaxed space and project; here each step swaps one token for another by greedy
coordinate gradients (arXiv 2307.15043), and every candidate is a text that a user could type.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from ..model import TOKEN_EMBEDDING, TextToImageModel
from ..training import Budget, denoising_error, gradients, train
from .scene import Attempt, Scene, attempt, dealt

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

    def __init__(self, model: TextToImageModel, prompt: str, generator: torch.Generator):
        self._model, self._prompt = model, prompt
        self._table = model.weights_of("text_encoder")[TOKEN_EMBEDDING]
        self._special = set(model.tokenize(""))
        used = self._special | set(model.tokenize(prompt))
        free = (one for one in reversed(range(min(self._special))) if one not in used)
        self._places = torch.tensor([next(free) for _ in range(SLOTS)], device=self._table.device)
        self._ids = self._first(generator)

    def text(self, ids: list[int] | None = None) -> str:
        return f"{self._model.text_of(self._ids if ids is None else ids)} {self._prompt}"

    def improve(self, error) -> Tensor:
        """Try the swaps that the gradient of ``error`` (of a context) favours; keep the best if it is better."""
        rows = self._table[self._ids].clone().requires_grad_()
        loss = error(self._embedded(rows))
        slope = gradients(loss, [rows])[0]
        with torch.no_grad():
            tried = list(self._likely(slope @ self._table.T - (slope * rows).sum(-1, keepdim=True)))
            if not tried:
                return loss
            losses = torch.stack([error(self._model.encode_prompts([self.text(ids)]).context) for ids in tried])
            best = int(losses.argmin())
            if losses[best] < loss:
                self._ids = tried[best]
                return losses[best]
        return loss.detach()

    def _embedded(self, rows: Tensor) -> Tensor:
        """The context with ``rows`` ``[SLOTS, d]`` for the embeddings of the slots, differentiable in them."""
        tokens = self._row(self._places.tolist())
        view = self._model.with_weights({TOKEN_EMBEDDING: self._table.index_copy(0, self._places, rows)})
        return view.encode_tokens(torch.tensor([tokens]))

    def _row(self, ids: list[int]) -> list[int]:
        """The window with ``ids`` before the prompt."""
        start, *rest = self._model.tokenize(self._prompt)
        return [start, *ids, *rest][: self._model.tokens]

    def _likely(self, change: Tensor) -> Iterator[list[int]]:
        """The swaps of least expected ``change`` ``[SLOTS, vocabulary]`` that are text, at most ``CANDIDATES``."""
        vocabulary, found = change.shape[1], 0
        for place in change.flatten().argsort()[: 20 * CANDIDATES].tolist():
            slot, token = divmod(place, vocabulary)
            ids = [*self._ids[:slot], token, *self._ids[slot + 1 :]]
            if token not in self._special and ids != self._ids and self._is_text(ids):
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
        most = min(self._special)
        for _ in range(1000):
            ids: list[int] = torch.randint(most, (SLOTS,), generator=generator).tolist()
            if self._is_text(ids):
                return ids
        raise ValueError(f"no {SLOTS} tokens fit before '{self._prompt}'; the prompt may be too long")
