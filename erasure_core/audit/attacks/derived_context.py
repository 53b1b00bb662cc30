"""The attack "derived": pictures from RECE's derived context (arXiv 2407.12383, eq. 6).

With this context the edited layers compute what the original ones computed for the concept. RECE solves for it in
order to erase it. The attack needs the weights of both models (white box) and no search.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from ...closed_form.derived_contexts import DerivedSystem
from ...model import CONTEXT, POOLED, TextEntry, UnsupportedModelError
from .attempt import Attempt, Scene, attempt, in_turn

RIDGE = 1e-6  # of the mean diagonal of the edited weights' Gram matrix


def by_derived_context(scene: Scene) -> Attempt:
    """Draw with the context ``D`` that minimises ``sum_l |W'_l D^T - W_l C^T|^2`` (RECE, eq. 6).

    ``C`` is the concept's context in the original model, ``W`` and ``W'`` are the layers before and after the erasure.
    A pooled vector is derived in the same way with the layers that read it. Raises ``UnsupportedModelError`` for a
    model with other text entries.
    """
    began = time.monotonic()
    prompts = in_turn(scene.prompts, scene.pictures)
    before, after = scene.original.text_entries(), scene.edited.text_entries()
    if not set(before) <= {CONTEXT, POOLED}:
        raise UnsupportedModelError(f"the attack 'derived' knows context and pooled, not {', '.join(before)}")
    conditioning = scene.original.encode_prompts(prompts)
    derived = {}
    for name, entry in before.items():
        seen, read = seen_weights(entry, after[name]), vars(conditioning)[name]
        rows = read.reshape(len(prompts), -1, read.shape[-1]).to(seen.edited.device)
        ridge = RIDGE * float(seen.edited.diagonal().mean())
        derived[name] = torch.stack(seen.derived(list(rows), regularization=ridge)).reshape(read.shape).to(read)
    found = replace(conditioning, **derived)
    return attempt(scene, "derived", [f"derived from '{one}'" for one in prompts], found, began=began)


def seen_weights(before: TextEntry, after: TextEntry) -> DerivedSystem:
    """Return ``sum W'^T W'`` and ``sum W'^T W``, float64 ``[d, d]``, over the layers of a text entry."""
    edited = crossed = torch.zeros((), dtype=torch.float64)
    for name in before.weights:
        new, old = after.part(after.weights[name]).double(), before.part(before.weights[name]).double()
        edited, crossed = edited + new.T @ new, crossed + new.T @ old
    return DerivedSystem(edited, crossed)
