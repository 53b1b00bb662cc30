"""The tables of docs/peers.md, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median

from peer_clones import PEERS
from peer_costs import COUNTS
from peer_effects import COLUMNS, HALF, NOTHING, OURS, PICTURES, TAKE_NO_LIST, TWENTY, UNEDITED, group_of, variants

from erasure_core.drawing.table import table

BEGIN, END = "<!-- by benchmarks/peers.py -->", "<!-- end -->"
ORDER = [*OURS.values(), *(way for peer in PEERS.values() for way in peer.ways)]
REFERENCE = OURS["general"]


def between_markers(page: str, text: str) -> str:
    """The page with ``text`` in place of what is between its markers; ``ValueError`` if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no line '{BEGIN}' with a line '{END}' after it, between which tables can go")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def section(rows: Sequence[dict], commits: Mapping[str, str], machine: str, missing: int) -> str:
    """All tables, and how many measurements are ``missing``.

    Concepts that not all ways have erased yet are left out.
    """
    effects = _complete([row for row in rows if row["part"] == "effect"], commits)
    costs = [row for row in rows if row["part"] == "cost"]
    parts = [_repositories(commits)]
    for heading, group, listed in (
        ("One object at a time, nothing listed", "object", NOTHING),
        ("One style at a time, nothing listed", "style", NOTHING),
        (f"{TWENTY} objects at once, nothing listed", "many", NOTHING),
        (f"{TWENTY} objects at once, every second of the others listed", "many", HALF),
    ):
        of = {case: found for case, found in effects.items() if (group_of(case[0]), case[1]) == (group, listed)}
        if of:
            parts.append(f"### {heading}\n\n{_effects(of)}")
    if costs:
        parts.append(f"### Time and memory at the shapes of Stable Diffusion 1.5\n\n{_costs(costs, machine)}")
    if missing:
        parts.append(
            f"{missing} of {missing + len(rows)} measurements are still to be made; the same command makes them."
        )
    return "\n\n".join(parts)


Case = tuple[tuple[str, ...], str]


def _complete(rows: Sequence[dict], clones: Iterable[str]) -> dict[Case, dict[str, dict]]:
    """What every way did, by way, in each case that all ways but variants have been measured in."""
    cases: dict[Case, dict[str, dict]] = {}
    for row in rows:
        case = tuple(row["job"]["erased"]), row["job"]["listed"]
        cases.setdefault(case, {})[row["job"]["way"]] = row["found"]
    ways = {UNEDITED, *OURS.values(), *(way for name in clones for way in PEERS[name].ways)}
    needed = {case: ways - set(variants(case[0])) - set(TAKE_NO_LIST if case[1] == HALF else ()) for case in cases}
    return {case: found for case, found in cases.items() if needed[case] <= set(found)}


def _repositories(commits: Mapping[str, str]) -> str:
    lines = [[f"[{name}]({peer.repository})", commits.get(name, "not to be had")] for name, peer in PEERS.items()]
    return table(("clone", "commit"), lines)


def _effects(cases: Mapping[Case, Mapping[str, dict]]) -> str:
    names = ", ".join(dict.fromkeys(name for names, _ in cases for name in names))
    lines = []
    everywhere = set.intersection(*(set(found) for found in cases.values())) - {UNEDITED}
    for way in sorted(everywhere, key=ORDER.index):
        shares = [100 * found[way]["UA"] for found in cases.values()]
        cells = [_with_worst(shares, "{:.0f}")]
        for column in COLUMNS[1:]:
            changes = [100 * (found[way][column] - found[UNEDITED][column]) for found in cases.values()]
            cells.append(_with_worst(changes, "{:+.0f}"))
        lines.append([way, *cells])
    erased, others = PICTURES
    told = f"Erased: {names}. Pictures: {erased} of what was erased and {others} of others"
    return f"{told}{', for each' if len(cases) > 1 else ''}.\n\n{table(('', *COLUMNS), lines)}"


def _with_worst(values: Sequence[float], form: str) -> str:
    return form.format(mean(values)) + (f" ({form.format(min(values))})" if len(values) > 1 else "")


def _costs(rows: Sequence[dict], machine: str) -> str:
    by = {(row["job"]["way"], row["job"]["concepts"], row["job"]["round"]): row["found"] for row in rows}
    ways = list(dict.fromkeys(way for way, _, _ in by))
    counts = [count for count in COUNTS if any(count == one for _, one, _ in by)]
    lines = []
    for way in ways:
        cells = []
        for count in counts:
            rounds = {number: found for (name, n, number), found in by.items() if (name, n) == (way, count)}
            ratios = [
                found["seconds"] / by[REFERENCE, count, number]["seconds"]
                for number, found in rounds.items()
                if (REFERENCE, count, number) in by
            ]
            seconds, memory = ([found[key] for found in rounds.values()] for key in ("seconds", "megabytes"))
            cells += [f"{median(ratios):.1f}", f"{median(seconds):.1f}", f"{max(memory):,.0f}"] if ratios else [""] * 3
        lines.append([way, *cells])
    head = [f"{what}, {count}" for count in counts for what in ("times", "seconds", "MB")]
    return f"Measured on {machine}.\n\n{table(('', *head), lines)}"
