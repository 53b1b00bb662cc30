"""A node's progress, and its end when the user cancels."""

from __future__ import annotations

import comfy.model_management
import comfy.utils

from ...erasure_core.model import Callback


def progress() -> Callback:
    """Return a callback that shows a node's progress, and raises ComfyUI's exception when the user cancels."""
    return shown_on(comfy.utils.ProgressBar(1))


def shown_on(bar: comfy.utils.ProgressBar) -> Callback:
    """Return a callback that shows progress on a bar, and raises ComfyUI's exception when the user cancels."""

    def report(done: int, total: int, what: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return report
