"""STEREO's scheme with AbO and all weights of the UNet: inversion and training in turn, each time from the original."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from erasure_core import Concept, Erasure
from erasure_core.audit.attacks.textual_inversion import PLACEHOLDER
from erasure_core.concepts.templates import wordings
from erasure_core.conditioning import Conditioning
from erasure_core.drawing.table import table
from erasure_core.erasures.erasure_record import Origin
from erasure_core.methods.abo import TOY_ABO, AbOSettings, Prompts, named_prompts, states_of, trained
from erasure_core.model import entry_weights, fingerprint
from erasure_core.toy.evaluation import subject_of
from erasure_core.training.loop import Budget

from .harden import COLUMNS, ERASED, OTHERS, PICTURES, ROUNDS, attacked, files_of, share
from .settings import INSTEAD, SEED, SETTINGS, Bench, preserved

CONCEPTS = ("cat", "penguin")
SCOPE = "unet"
WEIGHT = 4  # how often each context that was found is among the prompts


def jobs() -> list[dict]:
    """Each round needs the contexts of those before it."""
    return [{"concept": name, "round": number} for name in CONCEPTS for number in range(ROUNDS + 1)]


def measure(bench: Bench, concept: str, round: int) -> dict:
    """Train against the contexts of all rounds before, then invert the result and keep the contexts that this gives."""
    files = files_of(bench, f"harden-abo-{concept}", round)
    began = time.perf_counter()
    erasure = hardened(bench, concept, files[:round])
    training = time.perf_counter() - began
    return {"training": training, **attacked(bench, concept, erasure, SEED, round, files[round])}


def hardened(bench: Bench, concept: str, files: list[Path]) -> Erasure:
    """Train as ``abo`` does with its preset for the embedded model, with the contexts of ``files`` among its prompts.

    Each has the alternative's prompt of its wording, and there are half as many steps more for each file.
    """
    model, subject = bench.model, subject_of(concept)
    pair = Concept(concept, INSTEAD[concept])
    settings = TOY_ABO["style" if subject.kind == "style" else "object"]
    settings = replace(settings, steps=settings.steps + settings.steps // 2 * len(files))
    generator = torch.Generator().manual_seed(SEED)
    named, others = named_prompts(settings, pair, generator)
    prompts = Prompts.of(model, named, others, preserved(SETTINGS["abo"], pair))
    states = states_of(model, named, others, settings, SEED, None)
    deltas, losses = trained(
        model, _with_contexts(bench, prompts, pair, settings, files), states, settings,
        Budget(settings.steps), generator, scope=SCOPE,
    )  # fmt: skip
    origin = Origin("abo", (pair,), {"scope": SCOPE}, fingerprint(entry_weights(model)), losses=losses)
    return Erasure(deltas, (origin,))


def _with_contexts(bench: Bench, prompts: Prompts, pair: Concept, settings: AbOSettings, files: list[Path]) -> Prompts:
    """The same prompts, and beside them what was learned: a wording's start, and the rows from its word on."""
    if not files:
        return prompts
    asked, learned, replacements = (
        wordings(settings.kind, name) for name in (pair.name, PLACEHOLDER, pair.instead)
    )  # fmt: skip
    own, theirs = (bench.model.encode_prompts(texts).context for texts in (asked, replacements))
    found = []
    for rows_of in map(load_file, files):
        tails = [rows_of[wording] for wording in learned]
        found += [torch.cat([rows[: -len(tail)], tail]) for rows, tail in zip(own, tails, strict=True)]
    concept = torch.stack(found * WEIGHT)
    alternative = theirs.repeat(len(files) * WEIGHT, 1, 1)
    return replace(
        prompts,
        concept=Conditioning.cat([prompts.concept, Conditioning(concept)]),
        alternative=Conditioning.cat([prompts.alternative, Conditioning(alternative)]),
    )


def section(rows: list[dict]) -> str:
    """A line for each concept and round."""
    lines = [
        [
            f"{row['concept']} -> {INSTEAD[row['concept']]}", str(row["round"]), share(row, "inverted"),
            share(row, "discrete"), *(f"{100 * row[column]:.0f}" for column in COLUMNS), f"{row['training']:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    head = HEAD.format(pictures=PICTURES, erased=ERASED, others=OTHERS)
    columns = ("concept", "rounds", "inversion", "discrete", *COLUMNS, "seconds of training")
    return f"{head}\n\n{table(columns, lines)}"


HEAD = """## Hardening AbO

The same scheme with AbO and a replacement, training all weights of the UNet: after each round the contexts that
inversion has found are prompts of the concept too, and the training begins from the original again, with half as many
steps more. Columns are those above, of {pictures} pictures for each attack, {erased} of the
concept and {others} of others; one seed."""
