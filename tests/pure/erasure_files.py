"""Small erasures made by hand, and what is in their files, to read and to change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from pure.any_tensors import save_file
from pure.fakes import LAYERS
from safetensors import safe_open
from safetensors.torch import load_file

from erasure_core import Concept, Dense, Erasure, LowRank, Origin
from erasure_core.erasures.erasure_record import ContextMap
from erasure_core.model import CONTEXT

FIRST = next(iter(LAYERS))


def opened(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safe_open(path, "pt") as file:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # older safetensors map the file
        return tensors, json.loads(file.metadata()["erasure"])


def rewrite(path: Path, tensors: dict, header: object) -> Path:
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"erasure": header if isinstance(header, str) else json.dumps(header)})
    return path


def small(up: list[list[float]] | None = None, **changes) -> Erasure:
    """One layer with a map, and a bias and a whole weight beside it, all by hand."""
    low = LowRank(torch.tensor(up or [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([[1.0, 0.5], [0.25, 2.0]]))
    change = LowRank(torch.tensor([[1.0, 0.0], [0.5, 2.0]]), low.down)
    layer = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    deltas = {FIRST: low, f"{layer}.weight": Dense(torch.eye(2)), f"{layer}.bias": Dense(torch.tensor([1.0, -1.0]))}
    origin = Origin("rece", (Concept("cat", "dog"),), {"loops": 2, "exact_error": {"context": 0.5}}, "0" * 16, "0.1.0")
    return Erasure(deltas, (replace(origin, **changes),), {CONTEXT: ContextMap(change, (FIRST,))}, 0.25)


def two_maps() -> Erasure:
    """One of a layer that reads nothing but text, and one of a layer that reads it in the last of three columns."""
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0, 3.0]])
    deltas = {"unet.a.weight": LowRank(torch.ones(2, 1), other), "unet.b.weight": LowRank(torch.ones(2, 1), one)}
    maps = {
        "pooled": ContextMap(LowRank(torch.tensor([[7.0]]), other[:, 2:]), ("unet.a.weight",), (2, 3)),
        "context": ContextMap(LowRank(torch.tensor([[5.0], [6.0]]), one), ("unet.b.weight",)),
    }
    return Erasure(deltas, (), maps)
