"""What is left to reach after RECE with other settings, beside the share of pictures without the concept.

python tools/regeneration.py
"""

from __future__ import annotations

from dataclasses import replace

import torch
from results.settings import TUNED_ON

from erasure_core import Concept, Erasure
from erasure_core.closed_form.align import aligned_rows
from erasure_core.closed_form.regeneration import regeneration_error
from erasure_core.drawing.table import table
from erasure_core.erasures.erasure import deltas_of
from erasure_core.erasures.erasure_record import ContextMap, Origin
from erasure_core.erasures.low_rank import LowRank
from erasure_core.methods.rece import RECE, rece
from erasure_core.model import DiffusionModel
from erasure_core.toy import Judge, load_toy
from erasure_core.toy.evaluation import evaluate_erasure

ERASED, OTHERS, SEED = 16, 32, 7
GENERAL = RECE["general"]
SETTINGS = {
    "`published`": RECE["published"],
    "`published`, 3 loops": RECE["explicit"],
    "`general`": GENERAL,
    "`general`, no loop": replace(GENERAL, loops=0),
    "`general`, 3 loops": replace(GENERAL, loops=3),
    "`general`, relative ridge 1": replace(GENERAL, relative_ridge=1.0),
    "`general`, names only": replace(GENERAL, name_only=True),
    "`general`, amplification 1.4": replace(GENERAL, amplification=1.4),
    "`general`, amplification 1": replace(GENERAL, amplification=1.0),
    "`general`, amplification 1, 3 loops": replace(GENERAL, amplification=1.0, loops=3),
    "`general`, amplification 1, 5 loops": replace(GENERAL, amplification=1.0, loops=5),
}
RANKS = (2, 6)


def projection(model: DiffusionModel, concept: str, rank: int) -> Erasure:
    """A singular map: the ``rank`` directions in which the concept's rows differ most from the target's become 0."""
    name, target = model.text_rows([concept, ""])
    (one,), (other,) = name["context"], target["context"]
    rows, goal = aligned_rows(one.rows, other.rows, one.last_content, other.last_content)
    directions = torch.linalg.svd((rows - goal).double(), full_matrices=False)[2][:rank].float()
    change, entry = LowRank(-directions.T, directions), model.text_entries()["context"]
    deltas, error = deltas_of(change, entry)
    maps = {"context": ContextMap(change, tuple(entry.weights), entry.columns)}
    return Erasure(deltas, (Origin("projection", (Concept(concept),), {}, ""),), maps, error)


def main() -> None:
    model, judge = load_toy(), Judge.load()
    lines = []
    cases = {label: lambda concept, one=one: rece(model, concept, one) for label, one in SETTINGS.items()}
    cases |= {f"projection, rank {rank}": lambda concept, rank=rank: projection(model, concept, rank) for rank in RANKS}
    for label, erase in cases.items():
        errors, lost, kept = [], [], []
        for concept in TUNED_ON:
            erasure = erase(concept)
            errors.append(f"{100 * (regeneration_error(model, erasure, concept) or 0):.0f}")
            scores, _ = evaluate_erasure(model, judge, concept, erasure, erased=ERASED, others=OTHERS, seed=SEED)
            lost.append(100 * scores.ua)
            kept.append(100 * scores.ira)
        means = [f"{sum(shares) / len(shares):.0f}" for shares in (lost, kept)]
        lines.append([label, *errors, *means])
        print(lines[-1], flush=True)
    print(table(("settings", *TUNED_ON, "UA", "IRA"), lines))


if __name__ == "__main__":
    main()
