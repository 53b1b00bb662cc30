"""The closed form against what the official implementation of RECE gave, in float64."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from erasure_core import derived_context, edit_map
from erasure_core.closed_form.align import aligned_rows
from erasure_core.closed_form.linalg import gram_matrix, row_gram
from erasure_core.closed_form.statistics import EntryStatistics
from erasure_core.closed_form.uce import RowPairs
from erasure_core.erasures.low_rank import LowRank
from erasure_core.methods.rece import ReceSettings, solve

DATA = Path(__file__).resolve().parent.parent / "data"
CLOSE, CLOSE_IN_FLOAT32 = 1e-8, 1e-6


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

    def aligned(self) -> RowPairs:
        ends = self.case["last_content_token"]
        rows = [
            aligned_rows(self.contexts[concept], self.contexts[target], ends[concept], ends[target])
            for concept, target in self.pairs
        ]
        return RowPairs([a for a, _ in rows], [b for _, b in rows])

    def kept(self, step: str) -> list[Tensor]:
        return [self.contexts[prompt] for prompt in self.case[step] or [""]]

    def first_map(self) -> Tensor:
        pairs = self.aligned()
        return edit_map(pairs.concepts, pairs.targets, self.kept("retain_uce"), **self.scales)

    def next_map(self, derived: list[Tensor]) -> Tensor:
        targets = [self.contexts[target] for _, target in self.pairs]
        return edit_map(derived, targets, self.kept("retain_rece"), **self.scales)

    def check(self, current: Tensor, step: str, close: float = CLOSE) -> None:
        for name, expected in self.weights_after(step).items():
            assert relative_error(self.weights[name] @ current, expected) < close, name


@pytest.mark.parametrize("name", ["rece_one_concept", "rece_three_concepts"])
def test_official_results(name: str) -> None:
    golden = Golden(name)
    current = golden.first_map()
    golden.check(current, "after_uce")
    gram = gram_matrix(golden.weights.values())
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


@dataclass(frozen=True)
class OwnKept(RowPairs):
    """The official code may preserve other prompts in the first step than in the loop; ours preserves the same."""

    kept: Tensor

    def step(self, preserve_gram: Tensor | None, free: Tensor | None, **scales: float) -> LowRank:
        return super().step(self.kept, free, **scales)


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("name", ["rece_one_concept", "rece_three_concepts"])
def test_the_loop_as_shipped_gives_the_official_results(name: str, summed: bool) -> None:
    """``solve`` after every number of loops, with all rows and with their sums; it gives float32."""
    golden = Golden(name)
    first = golden.aligned()
    whole = [[golden.contexts[one] for one in side] for side in zip(*golden.pairs, strict=True)]
    edited = OwnKept(first.concepts, first.targets, row_gram(golden.kept("retain_uce")))
    derived = RowPairs(*whole).summed() if summed else RowPairs(*whole)
    nothing = torch.zeros(64, 64, dtype=torch.float64)
    known = EntryStatistics(edited, derived, row_gram(golden.kept("retain_rece")), nothing, whole[0][0][-1], 0.0)
    gram = gram_matrix(golden.weights.values())
    for loops in range(golden.case["epochs"] + 1):
        told: list[int] = []
        settings = ReceSettings(loops, golden.case["regularization"], **golden.scales)
        change = solve(known, gram, settings, told.append)
        assert told == list(range(loops)) and change.up.dtype == change.down.dtype == torch.float32
        edit = torch.eye(64, dtype=torch.float64) + change.dense().double()
        golden.check(edit, f"after_rece_{loops}" if loops else "after_uce", CLOSE_IN_FLOAT32)
