"""How far RECE's default moves a concept's rows, and those of its neighbours, with other relative ridges; no pictures.

python tools/ridge.py

Captions name a concept ("a dog in the style of noto"), and the same captions do not ("a dog"). Compared are the last
rows of their contexts, as the layers read them: moved is the share of the way from the first to the second that the
edit goes, and neighbours is how far it moves the same rows of the neighbour that it moves most, in their own such ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from results.general import NOTHING, OTHERS, preserved
from torch import Tensor

from erasure_core import Concept
from erasure_core.closed_form.linalg import gram_matrix
from erasure_core.closed_form.regeneration import regeneration_error
from erasure_core.drawing.table import table
from erasure_core.methods.rece import RECE, rece
from erasure_core.model import DiffusionModel
from erasure_core.toy import load_toy
from erasure_core.toy.captions import STYLES

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
LAST = 60  # rows of the padding, which every caption has
NEIGHBOURS = {"noto": STYLES, "cat": ("dog", "lion", "tiger", "pizza", "car", "bus", "cake")}
CONTENTS = ("dog", "pizza", "car", "rose", "owl", "castle")
FORMS = ("a {} on a red background", "a photo of a {}", "a {} in the style of noto")


def pairs(name: str) -> Sequence[tuple[str, str]]:
    """Captions with a name and without it."""
    if name in STYLES:
        return [(f"a {content} in the style of {name}", f"a {content}") for content in CONTENTS]
    return [(form.format(name), form.format("thing")) for form in FORMS]


def moves(read: Callable[[str], Tensor], change: Tensor, gram: Tensor, name: str) -> tuple[float, float]:
    """The share of the way that the rows of a name go, and how far they move in all."""
    along = moved = whole = 0.0
    for one, other in pairs(name):
        rows = read(one)
        way, step = read(other) - rows, rows @ change.T
        along += float((step @ gram * way).sum())
        moved += float((step @ gram * step).sum())
        whole += float((way @ gram * way).sum())
    return along / whole, (moved / whole) ** 0.5


def line(model: DiffusionModel, concept: str, ridge: float, listed: str) -> list[str]:
    preserve = preserved([Concept(concept)], listed)
    erasure = rece(model, concept, replace(RECE["general"], relative_ridge=ridge), preserve=preserve)
    gram = gram_matrix(model.text_entries()["context"].weights.values())
    change = erasure.maps["context"].change.dense().double()

    def read(prompt: str) -> Tensor:
        return model.text_rows([prompt])[0]["context"][0].rows[-LAST:].double()

    own, _ = moves(read, change, gram, concept)
    others = max(moves(read, change, gram, name)[1] for name in NEIGHBOURS[concept] if name != concept)
    left = regeneration_error(model, erasure, concept) or 0.0
    return [f"{100 * number:.0f}" for number in (own, others, left)]


def main() -> None:
    torch.set_num_threads(1)
    model = load_toy()
    cases = [(concept, listed) for concept in NEIGHBOURS for listed in (NOTHING, OTHERS)]
    lines = [
        [f"{ridge:g}", *(" ".join(line(model, concept, ridge, listed)) for concept, listed in cases)]
        for ridge in RIDGES
    ]
    print(table(("relative ridge", *(f"{concept}, {listed} listed" for concept, listed in cases)), lines))


if __name__ == "__main__":
    main()
