"""The progress of work that has parts or stages, reported as that of the whole."""

from __future__ import annotations

from .model import Callback


def part_of(callback: Callback | None, index: int, parts: int, *, steps: int | None = None) -> Callback | None:
    """Return a callback for part ``index``, from 0, of ``parts`` parts that take equally long.

    Each part counts as ``steps`` steps, by default as the steps that it reports; set it where these differ by part.
    """
    if callback is None:
        return None

    def report(done: int, total: int, what: str) -> None:
        each = steps or total
        callback(index * each + each * done // total, parts * each, what)

    return report


class TwoStages:
    """Two callbacks that report the progress of two stages as one; the second stage has ``steps`` steps."""

    def __init__(self, callback: Callback | None, steps: int):
        self.callback, self.steps, self.passed = callback or (lambda done, total, what: None), steps, 0

    def first(self, done: int, total: int, what: str) -> None:
        self.passed = total
        self.callback(done, total + self.steps, what)

    def second(self, done: int, total: int, what: str) -> None:
        self.callback(self.passed + done, self.passed + total, what)
