"""How the time to parse a list of concepts grows with its length: ten times the text should take ten times as long.

python benchmarks/parsing.py

Prints, for each text, the seconds for the longer one and how many times those for the shorter one they are. Exits with
1 when one of them grows more than three times faster than its length.
"""

from __future__ import annotations

import sys
import time

from erasure_core.concepts.parse import parse_concepts
from erasure_core.drawing.table import table

REPEATED = ("(", ">(", "=", "a ", "\u0308", ", ")
LENGTH, TIMES, MOST = 3000, 10, 3.0


def seconds(text: str) -> float:
    began = time.process_time()
    parse_concepts(text)
    return time.process_time() - began


def texts(length: int) -> dict[str, str]:
    lines = "\n".join(f"concept {number} -> thing" for number in range(length // 3))
    return {f"{part!r} repeated": f"cat\nx{part * length}y" for part in REPEATED} | {"lines": lines}


def main() -> None:
    parse_concepts("cat")
    shorter, longer = texts(LENGTH), texts(LENGTH * TIMES)
    growth = {}
    rows = []
    for name, text in longer.items():
        small, large = (min(seconds(one) for _ in range(3)) for one in (shorter[name], text))
        growth[name] = large / small
        rows.append([name, f"{large:.3f}", f"{growth[name]:.1f}"])
    print(table(("text", "seconds", f"times those for 1/{TIMES}"), rows))
    sys.exit(1 if max(growth.values()) > MOST * TIMES else 0)


if __name__ == "__main__":
    main()
