"""The entry point of the command line, ``python -m erasure_core``; the commands are in ``commands``."""

from __future__ import annotations

import os
import sys

from .commands.exit_codes import code_for_text, leave_at_once, make_tolerant, on_signals, raise_interrupted


def main() -> int:
    """Run the command line from its first moment to its last, and return the exit code."""
    make_tolerant()
    on_signals(leave_at_once)
    from .commands.main import main as run

    on_signals(raise_interrupted)
    try:
        code = run()
    except SystemExit as end:  # raised by argparse for --help, --version and arguments that it does not understand
        code = end.code if isinstance(end.code, int) and end.code else code_for_text(written=False)
    on_signals(lambda number: os._exit(code))
    return code


if __name__ == "__main__":
    sys.exit(main())
