"""How a command ends: exit codes, signals, and what becomes of text that a stream does not take.

The exit code tells of files: 0, all that was asked for is there and whole; 2, it is not, for the reason on stderr; 128
and the signal's number when one ended the command, as 130 for Ctrl-C. Text that standard output does not take (a full
disk, a closed pipe) is told of on stderr and changes the code only where the text was all that was asked for.
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
    """A signal asked the command to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


class Tolerant(io.TextIOWrapper):
    """A stream that goes on after it could not be written to, remembers why, and can write any text."""

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
            os.dup2(nowhere, self.fileno())  # so that what is left in the buffer does not fail again at exit
            os.close(nowhere)


def make_tolerant() -> None:
    """Let standard output and standard error be closed, full, or of an encoding that lacks letters."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        closed = _fill_if_closed(number)
        if number:
            setattr(sys, name, _tolerant(getattr(sys, name), number, closed))


def _fill_if_closed(number: int) -> OSError | None:
    """Else the next file that is opened would take the number, and be written into by whoever prints."""
    try:
        os.fstat(number)
    except OSError as error:
        os.open(os.devnull, os.O_RDWR)
        return error
    return None


def _tolerant(stream, number: int, closed: OSError | None) -> Tolerant:
    if stream is None:
        stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    kept = {"encoding": stream.encoding, "line_buffering": stream.line_buffering or number == 2}
    found = Tolerant(stream.detach(), errors="backslashreplace", **kept)
    found.failure = closed
    return found


def on_signals(act: Callable[[int], None]) -> None:
    """Call ``act`` with the number of a signal that asks the process to end, but for signals that are ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: act(number))


def raise_interrupted(number: int) -> None:
    raise Interrupted(number)


def leave_at_once(number: int) -> None:
    """For while nothing has begun: modules that are being imported may swallow an exception."""
    tell("\ninterrupted; nothing was written")
    os._exit(128 + number)


def tell(sentence: str) -> None:
    """On standard error, as far as it is there."""
    if sys.stderr is not None:
        print(sentence, file=sys.stderr, flush=True)


def lost_text() -> OSError | None:
    """Why standard output has not taken all that was printed."""
    if sys.stdout is None:
        return None
    sys.stdout.flush()
    return getattr(sys.stdout, "failure", None)


def code_for_text(written: bool) -> int:
    """The exit code of a command that did what was asked, given whether that was to write files."""
    lost = lost_text()
    if lost is None:
        return DONE
    tell(f"{'note' if written else 'error'}: standard output took no text ({lost.strerror})")
    return DONE if written else FAILED
