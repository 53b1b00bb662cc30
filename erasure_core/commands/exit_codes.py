"""The end of a command: exit codes, signals, and output streams that cannot be written to.

The exit code is 0 if all requested files are there and whole, 2 if they are not, for the reason on stderr, and 128 plus
the signal's number if a signal ended the command, as 130 for Ctrl-C. If standard output cannot be written to (a full
disk, a closed pipe), stderr says so, and the exit code changes only if the command was to write nothing else.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable

DONE, FAILED, INTERRUPTED = 0, 2, 130
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """A signal has ended the command; ``code`` is the exit code for it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


class Tolerant(io.TextIOWrapper):
    """A text stream that accepts any text, and that remembers an error of writing (``failure``) and continues."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda: io.TextIOWrapper.write(self, text))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda: io.TextIOWrapper.flush(self))

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            self.failure = self.failure or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # the rest of the buffer would fail once more at exit
            os.close(nowhere)


def make_tolerant() -> None:
    """Make standard output and standard error work although they are closed, full, or in a limited encoding."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        closed = _fill_if_closed(number)
        if number:
            setattr(sys, name, _tolerant(getattr(sys, name), number, closed))


def _fill_if_closed(number: int) -> OSError | None:
    """Open the null device in place of a closed standard stream, and return the error that it gave.

    Otherwise the next file that is opened would get the stream's number, and printed text would go into it.
    """
    try:
        os.fstat(number)
    except OSError as error:
        os.open(os.devnull, os.O_RDWR)
        return error
    return None


def _tolerant(stream, number: int, closed: OSError | None) -> Tolerant:
    if stream is None:
        stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    settings = {"encoding": stream.encoding, "line_buffering": stream.line_buffering or number == 2}
    tolerant = Tolerant(stream.detach(), errors="backslashreplace", **settings)
    tolerant.failure = closed
    return tolerant


def on_signals(act: Callable[[int], None]) -> None:
    """Call ``act(number)`` when a signal asks the process to end; signals that are ignored stay ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: act(number))


def raise_interrupted(number: int) -> None:
    """Raise ``Interrupted`` for a signal while a command runs."""
    raise Interrupted(number)


def leave_at_once(number: int) -> None:
    """End the process for a signal before the command has begun; an import could swallow an exception."""
    tell("\ninterrupted; nothing was written")
    os._exit(128 + number)


def tell(sentence: str) -> None:
    """Print a sentence on standard error, if there is one."""
    if sys.stderr is not None:
        print(sentence, file=sys.stderr, flush=True)


def lost_text() -> OSError | None:
    """Return the error for which standard output did not take all text, or ``None``."""
    if sys.stdout is None:
        return None
    sys.stdout.flush()
    return getattr(sys.stdout, "failure", None)


def code_for_text(written: bool) -> int:
    """Return the exit code of a command that succeeded; ``written`` says whether it has written files."""
    lost = lost_text()
    if lost is None:
        return DONE
    tell(f"{'note' if written else 'error'}: standard output took no text ({lost.strerror})")
    return DONE if written else FAILED
