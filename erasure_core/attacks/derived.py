"""RECE's derived context as an attack: what makes the edited keys and values those that the concept had.

RECE (arXiv 2407.12383, eq. 6) finds it to erase it; here it is drawn with. It is closed form, and white box.
"""

from __future__ import annotations

import time

import torch

from ..closed_form import SeenWeights
from ..model import CONTEXT
from .scene import Attempt, Scene, attempt, dealt

RIDGE = 1e-6  # of the mean diagonal of the edited weights' Gram matrix


def by_derived_context(scene: Scene) -> Attempt:
    """``D`` that minimises ``sum_l |W'_l D^T - W_l C^T|^2``, for ``C`` the concept as the unedited model encodes it."""
    began = time.monotonic()
    asked = dealt(scene.prompts, scene.pictures)
    contexts = scene.original.encode_prompts(asked).context
    seen = seen_weights(scene)
    ridge = RIDGE * float(seen.edited.diagonal().mean())
    derived = torch.stack(seen.derived(list(contexts.to(seen.edited.device)), regularization=ridge)).to(contexts)
    return attempt(scene, "derived", [f"derived from '{one}'" for one in asked], derived, began=began)


def seen_weights(scene: Scene) -> SeenWeights:
    """``sum W'^T W'`` and ``sum W'^T W`` over the cross-attention layers, in float64."""
    before, after = (model.text_entries()[CONTEXT].weights for model in (scene.original, scene.edited))
    edited = crossed = 0.0
    for name in before:
        new, old = after[name].double(), before[name].double()
        edited, crossed = edited + new.T @ new, crossed + new.T @ old
    return SeenWeights(edited, crossed)
