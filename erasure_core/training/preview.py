"""A look at a model while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..model import DiffusionModel
from .trainable import StandIns

Preview = Callable[[DiffusionModel, Sequence[float]], None]
"""Called as ``preview(edited, losses)``: the model as it is by now, to be sampled without gradients, and all losses.

Whatever it raises ends the training and reaches the caller.
"""


def after_update(
    preview: Preview | None, model: DiffusionModel, stand_ins: StandIns
) -> Callable[[Sequence[float]], None] | None:
    """Return what calls ``preview`` with the losses and ``model`` with its stand-ins, or ``None`` where none is."""
    if preview is None:
        return None
    return lambda losses: preview(model.with_weights(stand_ins.weights()), losses)
