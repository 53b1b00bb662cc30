"""The ComfyUI that the host tests talk to: COMFYUI_PATH, or what tools/get_comfyui.py fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphs
import pytest
from comfy_server import ROOT, ComfyServer


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def comfy_path() -> Path:
    """The folder of a ComfyUI. Host tests fail without one: a skipped tier proves nothing."""
    path = Path(os.environ.get("COMFYUI_PATH") or ROOT / "build" / "comfyui").expanduser()
    if not (path / "main.py").is_file():
        pytest.fail(f"There is no ComfyUI at {path}. Run tools/get_comfyui.py, or set COMFYUI_PATH.", False)
    return path


@pytest.fixture(scope="session")
def server(comfy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """One ComfyUI with this pack in it, shared by the session."""
    with ComfyServer(comfy_path, tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture
def prompt() -> dict[str, Any]:
    """Erasing an object, two pictures in four steps."""
    prompt = graphs.api("erase-an-object")
    prompt["5"]["inputs"]["batch_size"] = 2
    for sampler in ("7", "10"):
        prompt[sampler]["inputs"]["steps"] = 4
    return prompt
