"""The prompt that erases an object with RECE: its nodes, what it draws, and what it is refused for."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer, PromptError

RECE, BEFORE, AFTER, DECODED_AFTER = "6", "9", "12", "11"


def with_sampler(prompt: dict[str, Any], model: list, clip: list | None = None) -> None:
    """Let the pictures called "After" come from another MODEL, and CLIP."""
    prompt["10"]["inputs"]["model"] = model
    if clip:
        prompt["20"] = deepcopy(prompt["3"])
        prompt["20"]["inputs"]["clip"] = clip
        prompt["10"]["inputs"]["positive"] = ["20", 0]


def pixels(server: ComfyServer, entry: dict[str, Any], node: str) -> np.ndarray:
    return np.stack([np.asarray(picture.convert("RGB"), np.int16) for picture in server.images(entry, node)])


def refused(server: ComfyServer, prompt: dict[str, Any]) -> str:
    with pytest.raises(PromptError) as error:
        server.queue(prompt)
    return str(error.value)


def saved_files(server: ComfyServer) -> list[str]:
    loras = server.directory / "output" / "loras"
    return sorted(str(path.relative_to(loras)) for path in loras.rglob("*") if path.is_file())


def save(server: ComfyServer, prompt: dict[str, Any], prefix: str) -> Path:
    """Queue the prompt with a Save Erasure node and return the file."""
    saving = deepcopy(prompt)
    saving["30"] = {"class_type": "ErasureSave", "inputs": {"erasure": [RECE, 2], "filename_prefix": prefix}}
    return Path(server.queue(saving)["outputs"]["30"]["text"][0])
