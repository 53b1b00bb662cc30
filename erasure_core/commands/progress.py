"""A progress bar in one line of a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 30


class Progress:
    """A ``Callback`` that draws a progress bar; use it in a ``with`` block.

    The bar appears once the work has taken ``patience`` seconds (by default one, so that quick work shows none).
    Nothing is written if ``stream``, by default standard error, is not a terminal.
    """

    def __init__(self, title: str, stream: TextIO | None = None, patience: float = 1.0):
        self.title, self.stream, self.patience = title, stream or sys.stderr, patience
        self.began, self.last_drawn, self.line_length = time.monotonic(), 0.0, 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self.line_length:
            self.stream.write("\r" + " " * self.line_length + "\r")
            self.stream.flush()

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if self.stream is None or not self.stream.isatty():
            return
        if now - self.began < self.patience or now - self.last_drawn < 0.1:
            return
        self.last_drawn = now
        share = done / total if total else 1.0
        filled = round(WIDTH * share)
        left = (now - self.began) * (1 - share) / share if share else None
        line = f"{self.title}: {what} [{'#' * filled}{'.' * (WIDTH - filled)}] {100 * share:3.0f} %"
        line += f", {left:.0f} s left" if left is not None else ""
        self.stream.write("\r" + line.ljust(self.line_length))
        self.stream.flush()
        self.line_length = max(self.line_length, len(line))
