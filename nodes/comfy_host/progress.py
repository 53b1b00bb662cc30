"""A node's progress, and its end when the user cancels."""

from __future__ import annotations

import logging

import comfy.model_management
import comfy.utils

from ...erasure_core.model import Callback

log = logging.getLogger(__name__)


def progress() -> Callback:
    """Return a callback that shows a node's progress, and raises ComfyUI's exception when the user cancels."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int, what: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return report


def training_progress() -> Callback:
    """Return a callback like that of ``progress`` which also logs the loss after every tenth of the steps."""
    report, last_tenth = progress(), -1

    def callback(done: int, total: int, what: str) -> None:
        nonlocal last_tenth
        report(done, total, what)
        tenth = 10 * done // total if done else -1
        if not done:
            log.info(what)
        elif tenth != last_tenth:
            log.info("%s, step %d of %d", what, done, total)
        last_tenth = tenth

    return callback
