"""The versions that the project says it works with are those that are tested."""

from __future__ import annotations

from pathlib import Path

from lowest_versions import PROJECT, lowest_versions

ROOT = Path(PROJECT).parent


def test_each_has_a_lowest_version_and_no_highest() -> None:
    text = PROJECT.read_text(encoding="utf-8")
    found = lowest_versions(text)
    assert set(found) == {"torch", "safetensors", "numpy", "pillow", "diffusers", "transformers", "accelerate", "peft"}
    assert "<" not in text and "==" not in text


def test_the_readme_names_them() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, version in lowest_versions(PROJECT.read_text(encoding="utf-8")).items():
        assert name in ("numpy", "pillow") or f"{name} {version}" in readme, name


def test_the_target_installs_them() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = makefile.partition("\ntest-oldest:")[2].partition("\n\n")[0]
    assert "lowest_versions.py" in target and "$(OLDEST)" in target and "OLDEST ?= python3.10\n" in makefile
