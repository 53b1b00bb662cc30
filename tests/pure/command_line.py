"""Runs a command of the command line, and one that has to fail."""

from __future__ import annotations

from erasure_core.commands.main import main


def exit_code(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:  # of argparse
        return end.code


def fails(capsys, *arguments: object, code: int = 2) -> str:
    """Run a command that has to fail; returns its one line on stderr."""
    assert exit_code(*arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    (line,) = err.strip().splitlines()
    return line
