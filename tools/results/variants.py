"""The tables of a page that measures variants of trained methods, each on styles and objects and from seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from erasure_core.drawing.table import table

from .settings import Setting
from .single import COLUMNS

Extra = Callable[[list[dict]], str]


def tables(
    rows: Sequence[dict], variants: Mapping[str, Setting], tuned_on: Sequence[str], more: Mapping[str, Extra]
) -> list[str]:
    """Return a table with its title for each variant that has rows.

    A table has a line for each row, and one for the mean of each kind over the concepts that are not in ``tuned_on``.
    ``more`` are columns beside those from UA to colour: what to show of the rows that a line is of.
    """
    mine = {variant: [row for row in rows if row["variant"] == variant] for variant in variants}
    return [f"### {variants[name].meaning}\n\n{_table(own, tuned_on, more)}" for name, own in mine.items() if own]


def _table(rows: list[dict], tuned_on: Sequence[str], more: Mapping[str, Extra]) -> str:
    groups = [(f"{row['concept']}, seed {row['seed']}", [row]) for row in rows]
    unseen = [row for row in rows if row["concept"].split()[0] not in tuned_on]
    for kind in ("style", "object"):
        groups.append((f"**mean of {kind}s never tuned on**", [row for row in unseen if row["kind"] == kind]))
    lines = [[name, *_shares(group), *(shown(group) for shown in more.values())] for name, group in groups if group]
    return table(("erased", *COLUMNS, *more), lines)


def _shares(rows: list[dict]) -> list[str]:
    after, before = ({column: mean(row[column][place] for row in rows) for column in COLUMNS} for place in (0, 1))
    others = [f"{100 * after[key]:.0f} ({100 * (after[key] - before[key]):+.0f})" for key in COLUMNS[1:]]
    return [f"{100 * after['UA']:.0f} ({100 * before['UA']:.0f} before)", *others]
