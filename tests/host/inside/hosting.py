"""Loads ComfyUI, which is on the path, and this pack, which is ``pack`` then."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def load_comfy() -> None:
    """ComfyUI reads its command line when it is imported; COMFYUI_OPTION adds to it.

    It computes on the CPU, unless COMFYUI_DEVICE is ``gpu``.
    """
    import comfy.options

    device = [] if os.environ.get("COMFYUI_DEVICE") == "gpu" else ["--cpu"]
    arguments, sys.argv = sys.argv, ["main.py", *device, *os.environ.get("COMFYUI_OPTION", "").split()]
    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401

    sys.argv = arguments


def load_pack() -> None:
    """As ComfyUI loads a folder of custom_nodes."""
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pack"])
