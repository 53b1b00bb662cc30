"""What the pack warns of while a node runs, shown at that node: few people read the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident

from comfy_api.latest import io

PACK = logging.getLogger(__name__.partition(".nodes.")[0])


class _Collector(logging.Handler):
    """Keeps the warnings of the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Give a list of what the pack warns of inside a ``with`` block, in this thread; the log gets it too."""
    collector = _Collector()
    PACK.addHandler(collector)
    try:
        yield collector.texts
    finally:
        PACK.removeHandler(collector)


def with_warnings(output: io.NodeOutput, warnings: list[str]) -> io.NodeOutput:
    """Return a node's output that also shows warnings, each once, below what the node shows already."""
    if warnings:
        shown: Mapping = output.ui or {}
        texts = [f"Warning: {text}" for text in dict.fromkeys(warnings)]
        output.ui = {**shown, "text": (*shown.get("text", ()), *texts)}
    return output
