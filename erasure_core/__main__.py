"""``python -m erasure_core``; see ``cli``."""

from __future__ import annotations

import os
import sys

from . import ending


def main() -> int:
    """Run a command of the command line from its first moment to its last; returns the exit code."""
    ending.make_tolerant()
    ending.on_signals(ending.leave_at_once)
    from .cli import main as run

    ending.on_signals(ending.raise_interrupted)
    try:
        code = run()
    except SystemExit as end:  # of --help, --version and what argparse does not understand
        code = end.code or ending.code_for_text(written=False)
    ending.on_signals(lambda number: os._exit(code))
    return code


if __name__ == "__main__":
    sys.exit(main())
