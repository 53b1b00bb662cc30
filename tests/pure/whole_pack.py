"""The pack as ComfyUI loads it, every node included, on the stand-in for ComfyUI."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
SAMPLING = SimpleNamespace(SAMPLERS=["euler", "ddim"], SCHEDULERS=["normal", "karras"])
LACKING = (  # modules of ComfyUI that nodes import and the stand-in does not have: any name in them is an empty class
    "comfy.sample", "comfy.latent_formats", "comfy.sd1_clip", "comfy.supported_models", "comfy.supported_models_base",
    "comfy.ldm", "comfy.ldm.modules", "comfy.ldm.modules.attention", "latent_preview",
)  # fmt: skip


def _an_empty_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


@contextmanager
def comfyui(root: Path) -> Iterator[None]:
    """With a stand-in for all of ComfyUI that nodes import; its folders are below ``root``."""
    before, path = dict(sys.modules), list(sys.path)
    sys.path.insert(0, str(ROOT / "tests" / "stand_in"))
    try:
        for name in LACKING:
            module = sys.modules[name] = ModuleType(name)
            module.__getattr__ = _an_empty_class  # type: ignore[method-assign]
            if "." in name:
                parent, _, last = name.rpartition(".")
                setattr(importlib.import_module(parent), last, module)
        importlib.import_module("comfy.samplers").KSampler = SAMPLING
        importlib.import_module("folder_paths").root = str(root)
        yield
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name not in before]:
            if name.partition(".")[0] in ("comfy", "comfy_api", "folder_paths", "latent_preview") or "/" in name:
                del sys.modules[name]


def load(folder: Path) -> list[type]:
    """Load the pack in ``folder`` as ComfyUI does, under a name that is its path, and return its nodes' classes."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def nodes() -> list[type]:
        return await (await module.comfy_entrypoint()).get_node_list()

    return asyncio.run(nodes())
