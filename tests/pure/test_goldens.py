"""The closed form against what the official implementation of RECE gave, in float64."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from erasure_core import closed_form, derived_context, edit_map

DATA = Path(__file__).resolve().parent.parent / "data"
CLOSE = 1e-8


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class Golden:
    """One run of the official code: its inputs, and its weights and derived contexts after each step."""

    def __init__(self, name: str):
        with safe_open(DATA / f"{name}.safetensors", "pt") as file:
            self.case = json.loads(file.metadata()["case"])
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.contexts = {text: self.tensors[f"embedding/{index}"] for index, text in enumerate(self.case["texts"])}
        self.pairs = [(concept, target or " ") for concept, target in self.case["pairs"]]
        self.weights = self.weights_after("before")
        self.scales = {
            "erase_scale": self.case["erase_scale"],
            "preserve_scale": self.case["preserve_scale"],
            "ridge": self.case["lamb"],
        }

    def weights_after(self, step: str) -> dict[str, Tensor]:
        return {key.split("/", 1)[1]: value for key, value in self.tensors.items() if key.startswith(step + "/")}

    def first_map(self) -> Tensor:
        ends = self.case["last_content_token"]
        aligned = [
            closed_form.aligned_rows(self.contexts[concept], self.contexts[target], ends[concept], ends[target])
            for concept, target in self.pairs
        ]
        kept = [self.contexts[prompt] for prompt in self.case["retain_uce"] or [""]]
        return edit_map([a for a, _ in aligned], [b for _, b in aligned], kept, **self.scales)

    def next_map(self, derived: list[Tensor]) -> Tensor:
        targets = [self.contexts[target] for _, target in self.pairs]
        kept = [self.contexts[prompt] for prompt in self.case["retain_rece"]]
        return edit_map(derived, targets, kept, **self.scales)

    def check(self, current: Tensor, step: str) -> None:
        for name, expected in self.weights_after(step).items():
            assert relative_error(self.weights[name] @ current, expected) < CLOSE, name


@pytest.mark.parametrize("name", ["rece_one_concept", "rece_three_concepts"])
def test_official_results(name: str) -> None:
    golden = Golden(name)
    current = golden.first_map()
    golden.check(current, "after_uce")
    gram = closed_form.gram_matrix(golden.weights.values())
    for loop in range(golden.case["epochs"]):
        derived = [
            derived_context(golden.contexts[concept], gram, current, regularization=golden.case["regularization"])
            for concept, _ in golden.pairs
        ]
        for index, context in enumerate(derived):
            assert relative_error(context, golden.tensors[f"derived/{loop}/{index}"]) < CLOSE
        current = current @ golden.next_map(derived)
        golden.check(current, f"after_rece_{loop + 1}")
    assert golden.case["epochs"] > 0 and torch.isfinite(current).all()
