"""The public names of ``erasure_core``: the same at run time and to a type checker."""

from __future__ import annotations

import ast
import fnmatch
import re
from importlib import import_module
from pathlib import Path

import erasure_core

FOLDER = Path(erasure_core.__file__).parent


def stub_imports() -> dict[str, str]:
    """The module of each name that the stub file exports."""
    imports = ast.parse((FOLDER / "__init__.pyi").read_text(encoding="utf-8")).body[1:]
    assert all(isinstance(one, ast.ImportFrom) and one.level == 1 for one in imports)
    assert all(alias.name == alias.asname for one in imports for alias in one.names), "else it is no export"
    return {alias.name: one.module for one in imports for alias in one.names}


def test_type_checkers_see_the_names_that_can_be_imported() -> None:
    modules = stub_imports()
    assert sorted(modules) == sorted(erasure_core.__all__)
    for name, module in modules.items():
        assert getattr(erasure_core, name) is getattr(import_module(f"erasure_core.{module}"), name), name


def test_every_file_of_the_package_is_installed() -> None:
    """``py.typed`` among them, without which type checkers pass over an installed package."""
    project = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    patterns = re.findall(r'"([^"]+)"', project.partition("[tool.setuptools.package-data]")[2].partition("\n\n")[0])[1:]
    data = [path.name for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert "py.typed" in data and "__init__.pyi" in data
    assert [name for name in data if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []
