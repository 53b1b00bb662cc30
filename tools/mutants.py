"""Mutants of the core: run them against the pure tier, list those that live, and write docs/testing.md's table.

``run`` goes on where it was stopped, tries those that live again, and takes up what was edited since; mutmut keeps all
that it knows in ``mutants/``. For what reason a mutant may live is in tests/mutants.json.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import math
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOUND, PAGE, REASONS = ROOT / "mutants", ROOT / "docs" / "testing.md", ROOT / "tests" / "mutants.json"
BEGIN, END = "<!-- mutants: written by tools/mutants.py -->", "<!-- end of mutants -->"
LIVES = 0  # pytest's exit status, which mutmut keeps
PLAIN = "checked", "torch.no_grad()"  # decorators that may stand on a function twice
UNTESTED = 33, 5  # mutmut's own, of code that no test calls, and pytest's when no test is left


@dataclass(frozen=True)
class Mutant:
    """``status`` is ``killed``, ``lives`` or ``untried``; ``change`` its lines, '- ' and '+ ' before them."""

    module: str
    function: str
    status: str
    change: str


def mutants(root: Path = FOUND) -> Iterator[Mutant]:
    """All that mutmut knows of, module by module."""
    for path in sorted(root.rglob("*.py.meta")):
        known = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        living = {name.rpartition(".")[2] for name, code in known.items() if code in (LIVES, *UNTESTED)}
        changes = _changes(path.with_suffix(""), living)
        module = path.relative_to(root).with_suffix("").as_posix()
        for name, code in known.items():
            short = name.rpartition(".")[2]
            status = "untried" if code is None else "lives" if short in living else "killed"
            yield Mutant(module, _function(short), status, changes.get(short, ""))


def _function(name: str) -> str:
    """``Erasure.scaled`` of ``xǁErasureǁscaled__mutmut_3``, ``guided`` of ``x_guided__mutmut_3``."""
    bare = name.rpartition("__mutmut_")[0]
    return bare[2:].replace("ǁ", ".") if bare.startswith("xǁ") else bare.removeprefix("x_")


def _changes(path: Path, names: set[str]) -> dict[str, str]:
    """What these mutants changed, by their names in a file that holds all of a module's."""
    if not names:
        return {}
    text = path.read_text(encoding="utf-8")
    found = {node.name: node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    lines = text.splitlines()

    def body(name: str) -> list[str]:
        node = found[name]
        return [line.replace(name, "") for line in lines[node.lineno - 1 : node.end_lineno]]

    changes = {}
    for name in names:
        original = body(f"{name.rpartition('__mutmut_')[0]}__mutmut_orig")
        told = difflib.ndiff(original, body(name))
        changes[name] = "\n".join(f"{line[0]} {line[2:].strip()}" for line in told if line[0] in "+-")
    return changes


def run(processes: int, names: Sequence[str] = (), draw: int | None = None) -> None:
    """Try all mutants that are not known to die, or those of the given ``names`` (``*`` in them is anything).

    With ``draw``, try at most so many mutants of each room, the same ones each time.
    """
    for path in FOUND.rglob("*.py.meta"):
        known, when = json.loads(path.read_text(encoding="utf-8")), path.stat()
        for name, code in known["exit_code_by_key"].items():
            known["exit_code_by_key"][name] = None if code == LIVES else code
        path.write_text(json.dumps(known, indent=4), encoding="utf-8")
        os.utime(path, (when.st_atime, when.st_mtime))
    os.nice(15)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.path[0] = str(ROOT)
    _mutate_decorated()
    if draw is not None:
        _try_only(draw)
    from mutmut.__main__ import cli

    cli(["run", "--max-children", str(processes), *names])


def _mutate_decorated() -> None:
    """Have mutmut mutate functions with the decorators ``PLAIN`` too; it leaves what has any as it is."""
    import libcst
    from mutmut.mutation.file_mutation import MutationVisitor

    skips = MutationVisitor._skip_node_and_children

    def skips_still(self: MutationVisitor, node: libcst.CSTNode) -> bool:
        decorators = node.decorators if isinstance(node, libcst.FunctionDef) else ()
        plain = all(libcst.Module([]).code_for_node(one.decorator) in PLAIN for one in decorators)
        return skips(self, node.with_changes(decorators=()) if decorators and plain else node)

    MutationVisitor._skip_node_and_children = skips_still


def _try_only(count: int) -> None:
    """Have mutmut try a sample of ``count`` mutants of each room."""
    from mutmut import __main__ as mutmut

    collect = mutmut.collect_source_file_mutation_data

    def collect_sample(**filters: object) -> tuple[list[Any], object]:
        found, by_path = collect(**filters)
        rooms: dict[str, list[Any]] = {}
        for one in sorted(found, key=lambda mutant: mutant[1]):
            rooms.setdefault(one[1].split(".")[1], []).append(one)
        chance = random.Random(17)
        drawn = [chance.sample(mutants, min(count, len(mutants))) for mutants in rooms.values()]
        return [one for sample in drawn for one in sample], by_path

    mutmut.collect_source_file_mutation_data = collect_sample


def told(reasons: Mapping[str, list[dict[str, str]]], one: Mutant) -> str | None:
    """The reason for which a mutant may live, if there is one.

    A pattern may name the ``module``, the ``function`` and a regular expression that the ``change`` matches; ``worded``
    is one for the old lines of changes that are of capitals and of what mutmut puts around a text.
    """
    for reason, patterns in reasons.items():
        for pattern in patterns:
            place = all(pattern.get(part, getattr(one, part)) == getattr(one, part) for part in ("module", "function"))
            change = re.search(pattern.get("change", ""), one.change)
            if place and change and _worded(pattern.get("worded"), one.change):
                return reason
    return None


def _worded(pattern: str | None, change: str) -> bool:
    if pattern is None:
        return True
    old, new = ("".join(line[2:] for line in change.splitlines() if line[0] == sign).casefold() for sign in "-+")
    return new.replace("xx", "") == old.replace("xx", "") and bool(re.search(pattern, change))


def survivors(root: Path) -> None:
    """Print every mutant that lives without a reason."""
    reasons = json.loads(REASONS.read_text(encoding="utf-8"))
    for one in mutants(root):
        if one.status == "lives" and told(reasons, one) is None:
            print(f"{one.module} {one.function}\n{one.change}\n")


def table(root: Path) -> str:
    """The score by room, and what lives by its reason."""
    reasons = json.loads(REASONS.read_text(encoding="utf-8"))
    scores: dict[str, Counter[str]] = {}
    groups: dict[str, Counter[str]] = {}
    for one in mutants(root):
        scores.setdefault(Path(one.module).parts[1], Counter())[one.status] += 1
        if one.status == "lives":
            reason = told(reasons, one) or "No reason yet: a test is missing."
            groups.setdefault(reason, Counter())[f"`{_short(one.module)}` `{one.function}`"] += 1
    rows = ["| room | mutants | tried | killed | live | score |", "|---|---:|---:|---:|---:|---:|"]
    whole = sum(scores.values(), Counter())
    rows += [_row(f"`{room}`", counts) for room, counts in scores.items() if counts["killed"]]
    rows += [_row("**all**", whole)]
    if whole["untried"]:
        rows += ["", "Where not all were tried, in brackets the interval of 95 % that the tried ones leave for all."]
    rows += ["", "What lives, and why:", ""]
    order = sorted(groups, key=lambda reason: (reason not in reasons, -groups[reason].total()))
    for reason in order:
        where = ", ".join(f"{place} {count}" for place, count in sorted(groups[reason].items()))
        rows.append(f"- {reason} ({groups[reason].total()}: {where})")
    return "\n".join(rows)


def _short(module: str) -> str:
    return module.removeprefix("erasure_core/").removesuffix(".py")


def _row(name: str, counts: Counter[str]) -> str:
    tried, killed = counts["killed"] + counts["lives"], counts["killed"]
    score = f"{killed / tried:.1%}" + (_interval(killed, tried) if counts["untried"] else "")
    return f"| {name} | {tried + counts['untried']} | {tried} | {killed} | {counts['lives']} | {score} |"


def _interval(killed: int, tried: int) -> str:
    """Wilson's, of 95 %, where those that were tried are a sample of all."""
    share, z = killed / tried, 1.96
    middle, half = share + z**2 / (2 * tried), z * math.sqrt(share * (1 - share) / tried + (z / (2 * tried)) ** 2)
    low, high = ((middle + sign * half) / (1 + z**2 / tried) for sign in (-1, 1))
    return f" ({low:.0%} to {high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "survivors", "table"], nargs="?", default="run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--names", nargs="*", default=(), help="of mutants, as mutmut writes them; else all")
    parser.add_argument("--draw", type=int, help="try at most so many mutants of each room, drawn at random")
    parser.add_argument("--found", type=Path, default=FOUND, help="where mutmut keeps what it knows")
    given = parser.parse_args()
    if given.what == "run":
        run(given.processes, given.names, given.draw)
    elif given.what == "survivors":
        survivors(given.found)
    else:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{table(given.found)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
