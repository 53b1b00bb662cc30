"""A progress bar of one line on a terminal, without dependencies."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 30


class Progress:
    """A ``Callback`` that draws a bar once the work has taken a second; use it in a ``with`` block.

    Where the stream is not a terminal, or there is none, it writes nothing.
    """

    def __init__(self, title: str, stream: TextIO | None = None, patience: float = 1.0):
        self.title, self.stream, self.patience = title, stream or sys.stderr, patience
        self.began, self.drawn, self.seen = time.monotonic(), 0.0, 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self.seen:
            self.stream.write("\r" + " " * self.seen + "\r")
            self.stream.flush()

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if self.stream is None or not self.stream.isatty():
            return
        if now - self.began < self.patience or now - self.drawn < 0.1:
            return
        self.drawn = now
        share = done / total if total else 1.0
        filled = round(WIDTH * share)
        left = (now - self.began) * (1 - share) / share if share else None
        line = f"{self.title}: {what} [{'#' * filled}{'.' * (WIDTH - filled)}] {100 * share:3.0f} %"
        line += f", {left:.0f} s left" if left is not None else ""
        self.stream.write("\r" + line.ljust(self.seen))
        self.stream.flush()
        self.seen = max(self.seen, len(line))
