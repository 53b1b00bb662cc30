"""Markdown tables with padded columns, which can also be read in a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table; all columns but the first are aligned to the right.

    Raises ``ValueError`` for a row with more or fewer cells than the header.
    """
    lines = [list(header), *(list(row) for row in rows)]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"a row has {len(line)} cells, the header {len(header)}: {line}")
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, rule)
    return "\n".join(_row(line, widths) for line in lines)


def percent(share: float) -> str:
    """Return a share from 0 to 1 as whole percent, 0.953 as ``95``; NaN, a share of nothing, as ``-``."""
    return "-" if share != share else f"{100 * share:.0f}"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *rest])} |"
