"""A look at a model while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..model import DiffusionModel
from .trainable import StandIns

Preview = Callable[[Callable[[], DiffusionModel], Sequence[float]], None]
"""Called as ``preview(edited, losses)``: ``edited()`` is the model as it is by now, to be sampled without gradients.

``losses`` are all losses so far. Forming the model costs time, so ``edited`` is called only where a preview is due.

Whatever it raises ends the training and reaches the caller.
"""


def after_update(
    preview: Preview | None, model: DiffusionModel, stand_ins: StandIns
) -> Callable[[Sequence[float]], None] | None:
    """Return what calls ``preview`` with what forms ``model`` with its stand-ins, and the losses; or ``None``."""
    if preview is None:
        return None
    return lambda losses: preview(lambda: model.with_weights(stand_ins.weights()), losses)
