"""Print the lowest versions that pyproject.toml allows, as constraints for pip: what `make test-oldest` installs."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
LISTS = re.compile(r"^(?:dependencies|diffusers) = \[(.*)\]$", re.MULTILINE)  # tomllib is not in Python 3.10
LOWEST = re.compile(r'"([\w-]+)>=([\d.]+)"')


def lowest_versions(text: str) -> dict[str, str]:
    """By the package's name, of what the library and its adapters for diffusers need."""
    return {name: version for listed in LISTS.findall(text) for name, version in LOWEST.findall(listed)}


if __name__ == "__main__":
    for name, version in lowest_versions(PROJECT.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
