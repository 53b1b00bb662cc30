"""Files of erasures and statistics whose headers a test changes, and how they have to be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pure.erasure_files import opened, rewrite
from safetensors import safe_open
from safetensors.torch import load_file

from erasure_core import Erasure, ErasureFileError

MISSING = object()
UNKNOWN = "not a readable safetensors file"  # to an older library, which does not know these numbers


def opened_statistics(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["erasure_statistics"])


def put(holder: dict | list, place: tuple, value: object) -> None:
    *way, last = place
    for step in way:
        holder = holder[step]
    if value is MISSING:
        del holder[last]
    else:
        holder[last] = value


def refused(load: Callable, error: type, path: Path, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load(path)
    told = str(caught.value)
    assert type(caught.value) is error and told.startswith(path.name) and told.isprintable() and len(told) < 700


def refused_erasure(path: Path, place: tuple, value: object, message: str) -> None:
    tensors, header = opened(path)
    put(header, place, value)
    refused(Erasure.load, ErasureFileError, rewrite(path, tensors, header), message)
