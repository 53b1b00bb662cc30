"""RECE's derived context as an attack: what makes edited layers read what they read of the concept before.

RECE (arXiv 2407.12383, eq. 6) finds it to erase it; here it is drawn with. It is closed form, and white box.
"""

from __future__ import annotations

import time

import torch

from ...closed_form.derived_contexts import SeenWeights
from ...model import CONTEXT, POOLED, TextEntry, UnsupportedModelError
from .attempt import Attempt, Scene, attempt, dealt

RIDGE = 1e-6  # of the mean diagonal of the edited weights' Gram matrix


def by_derived_context(scene: Scene) -> Attempt:
    """``D`` that minimises ``sum_l |W'_l D^T - W_l C^T|^2``, for ``C`` the concept as the unedited model encodes it.

    The pooled vector, where there is one, is derived through the layers that read it. Raises ``UnsupportedModelError``
    for a model that text enters by other ways.
    """
    began = time.monotonic()
    asked = dealt(scene.prompts, scene.pictures)
    before, after = scene.original.text_entries(), scene.edited.text_entries()
    if not set(before) <= {CONTEXT, POOLED}:
        raise UnsupportedModelError(f"the attack 'derived' knows context and pooled, not {', '.join(before)}")
    derived = scene.original.encode_prompts(asked).context.clone()
    for name, entry in before.items():
        seen = seen_weights(entry, after[name])
        read = derived[:, -1:] if name == POOLED else derived[:, : scene.original.tokens]
        read = read[..., : len(seen.edited)]
        ridge = RIDGE * float(seen.edited.diagonal().mean())
        read.copy_(torch.stack(seen.derived(list(read.to(seen.edited.device)), regularization=ridge)))
    return attempt(scene, "derived", [f"derived from '{one}'" for one in asked], derived, began=began)


def seen_weights(before: TextEntry, after: TextEntry) -> SeenWeights:
    """``sum W'^T W'`` and ``sum W'^T W`` over the layers of a text entry, in float64."""
    edited = crossed = 0.0
    for name in before.weights:
        new, old = after.part(after.weights[name]).double(), before.part(before.weights[name]).double()
        edited, crossed = edited + new.T @ new, crossed + new.T @ old
    return SeenWeights(edited, crossed)
