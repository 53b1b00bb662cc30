"""The core stands on torch alone."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import erasure_core

HOSTS = (
    "comfy", "comfy_api", "folder_paths", "nodes", "diffusers", "transformers", "accelerate", "peft", "eval_unlearn",
)  # fmt: skip


def test_no_module_imports_a_host_or_diffusers() -> None:
    modules = [found.name for found in pkgutil.walk_packages(erasure_core.__path__, "erasure_core.")]
    assert "erasure_core.commands.main" in modules and "erasure_core.toy.pipeline" in modules
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(sorted({{name.split(".")[0] for name in sys.modules}} & set({HOSTS!r})))
"""
    root = Path(erasure_core.__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
