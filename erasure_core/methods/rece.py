"""RECE, reliable and efficient concept erasure (arXiv 2407.12383), and UCE (arXiv 2308.14761), its first step.

No gradient and no images: everything happens on ``[d, d]`` matrices, see ``closed_form``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ..closed_form import LowRank, SeenWeights, aligned_rows, edit_step, facing_rows, plus_gram, row_gram
from ..concepts import Concept, as_concepts
from ..erasure import ContextMap, Erasure, Origin, deltas_of
from ..model import (
    Callback,
    TextEntry,
    TextRows,
    TextToImageModel,
    UnsupportedModelError,
    combined,
    fingerprint_of,
)

EMPTY_TARGET = " "
PART = 16  # prompts encoded between two reports of progress


@dataclass(frozen=True)
class RecePreset:
    """Settings of ``rece``; the published ones for all coefficients but the loops and the regularization."""

    loops: int
    regularization: float
    erase_scale: float = 1.0
    preserve_scale: float = 0.1
    ridge: float = 0.1
    amplification: float = 1.0


@dataclass(frozen=True)
class UcePreset:
    """Settings of ``uce``, as published."""

    erase_scale: float = 1.0
    preserve_scale: float = 0.1
    ridge: float = 0.1


PUBLISHED: Mapping[str, RecePreset] = {
    "object": RecePreset(loops=1, regularization=1e-1),
    "style": RecePreset(loops=1, regularization=1e-3),
    "explicit": RecePreset(loops=3, regularization=1e-1),
}

PRESETS: Mapping[str, RecePreset] = {
    "object": RecePreset(loops=1, regularization=1e-3, amplification=1.4),
    "style": RecePreset(loops=1, regularization=1e-3, amplification=1.8),
    "explicit": PUBLISHED["explicit"],
}
"""Ours, by ``tools/sweep.py`` on the embedded model; nothing explicit could be measured there."""

UCE_PRESETS: Mapping[str, UcePreset] = {"object": UcePreset(), "style": UcePreset(), "explicit": UcePreset()}


def rece(
    model: TextToImageModel,
    concepts: Sequence[Concept | str] | Concept | str,
    *,
    preserve: Sequence[str] = (),
    loops: int = 1,
    regularization: float = 1e-1,
    erase_scale: float = 1.0,
    preserve_scale: float = 0.1,
    ridge: float = 0.1,
    amplification: float = 1.0,
    callback: Callback | None = None,
) -> Erasure:
    """Erase concepts from the layers of ``model`` that text enters through: cross-attention keys and values, mostly.

    ``loops`` times, the context that best regenerates each concept through the edited weights is erased too; 0 is
    plain UCE. ``preserve`` lists prompts whose keys and values should stay, the empty prompt when there are none;
    a prompt that names nothing but an erased concept is an error. ``regularization`` keeps derived contexts
    small, ``ridge`` keeps the weights near their originals. The closed form learns from the bare name and reaches only
    part of what the name does inside longer prompts: ``amplification`` goes on along the same change, 1 is as
    published. Raises ``ValueError`` for settings and prompts that cannot be used and ``UnsupportedModelError`` for
    weights that cannot; the model is only read.
    """
    settings = RecePreset(loops, regularization, erase_scale, preserve_scale, ridge, amplification)
    check_settings(settings)
    concepts = as_concepts(concepts)
    preserve = _check_preserve(concepts, preserve)
    report = callback or (lambda done, total, what: None)
    parts = _prompts(concepts, preserve)
    steps = len(parts)
    total = steps + 2 + loops

    rows: dict[str, Mapping[str, tuple[TextRows, ...]]] = {}
    for done, prompts in enumerate(parts):
        report(done, total, "encoding prompts")
        rows |= zip(prompts, model.text_rows(prompts), strict=True)
    report(steps, total, "gathering weights")
    entries = model.text_entries()
    if not entries:
        raise UnsupportedModelError("no linear layer of the model reads text, so there is nothing to edit")
    digests: dict[str, bytes] = {}
    deltas, maps = {}, {}
    for name, entry in entries.items():
        gram = gather(entry, digests)
        read = {prompt: _solvable(found[name]) for prompt, found in rows.items()}
        _check_width(name, gram, read)

        def loop_done(loop: int) -> None:
            report(steps + 1 + loop, total, f"erasing what would bring it back, loop {loop + 1} of {loops}")

        report(steps + 1, total, "erasing")
        change = solve(read, concepts, preserve, gram, settings, loop_done)
        report(total - 1, total, "forming the changes")
        deltas |= deltas_of(change, entry)
        maps[name] = ContextMap(change, tuple(entry.weights), entry.columns)
    made_on = combined([digests[name] for name in sorted(digests)])
    origin = Origin(
        "rece" if loops else "uce", tuple(concepts), {**asdict(settings), "preserve": preserve}, made_on
    )
    report(total, total, "done")
    return Erasure(deltas, (origin,), maps)


def solve(
    read: Mapping[str, Sequence[TextRows]],
    concepts: Sequence[Concept],
    preserve: Sequence[str],
    gram: Tensor,
    settings: RecePreset,
    loop_done: Callable[[int], None],
) -> LowRank:
    """The ``E`` of ``W' = W (I + E)`` for the layers of one text entry, in float32 on the CPU.

    ``read`` is what they read for each prompt, ``gram`` their ``sum W^T W``.
    """
    scales = {
        "erase_scale": settings.erase_scale, "preserve_scale": settings.preserve_scale, "ridge": settings.ridge
    }  # fmt: skip
    gram = gram.to(read[concepts[0].name][0].rows.device)
    kept = row_gram([part.rows for prompt in preserve for part in read[prompt]])
    faced = [
        pair
        for concept in concepts
        for pair in zip(read[concept.name], read[concept.instead or EMPTY_TARGET], strict=True)
    ]
    pairs = [aligned_rows(k.rows, t.rows, k.last_content, t.last_content) for k, t in faced]
    change = step = edit_step([k for k, _ in pairs], [t for _, t in pairs], kept, **scales)
    seen = SeenWeights.of(gram)
    whole = [facing_rows(k.rows, t.rows, k.last_content, t.last_content) for k, t in faced]
    for loop in range(settings.loops):
        loop_done(loop)
        seen = seen.after(step)
        derived = seen.derived([k for k, _ in whole], regularization=settings.regularization)
        step = edit_step(derived, [t for _, t in whole], kept, **scales)
        change = change.followed_by(step)
    change = change.recompressed(1e-9)
    found = LowRank((settings.amplification * change.up).float().cpu(), change.down.float().cpu())
    if not (torch.isfinite(found.up).all() and torch.isfinite(found.down).all()):
        raise UnsupportedModelError("the edit is not finite; raise ridge or regularization")
    return found


def uce(
    model: TextToImageModel,
    concepts: Sequence[Concept | str] | Concept | str,
    *,
    preserve: Sequence[str] = (),
    erase_scale: float = 1.0,
    preserve_scale: float = 0.1,
    ridge: float = 0.1,
    callback: Callback | None = None,
) -> Erasure:
    """Unified concept editing (arXiv 2308.14761): ``rece`` without its loops."""
    return rece(
        model,
        concepts,
        preserve=preserve,
        loops=0,
        erase_scale=erase_scale,
        preserve_scale=preserve_scale,
        ridge=ridge,
        callback=callback,
    )


def check_settings(settings: RecePreset) -> None:
    """Raise ``ValueError`` naming the setting, what came and what would be right."""
    if isinstance(settings.loops, bool) or not isinstance(settings.loops, int) or settings.loops < 0:
        raise ValueError(f"loops must be a whole number of at least 0, got {settings.loops!r}")
    for name, value in asdict(settings).items():
        if name != "loops" and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number above 0, got {value}")


def gather(entry: TextEntry, digests: dict[str, bytes]) -> Tensor:
    """The Gram matrix of the weights of a text entry, ``[d, d]`` in float64, in one pass over them.

    Adds their digests by name. Raises ``UnsupportedModelError`` when they cannot be edited.
    """
    gram = None
    for name in sorted(entry.weights):
        weight = entry.weights[name]
        part = entry.part(weight)
        if gram is not None and part.shape[1] != len(gram):
            raise UnsupportedModelError(f"{name} reads text {part.shape[1]} wide, other layers {len(gram)} wide")
        gram = plus_gram(gram, part)
        if not torch.isfinite(gram.diagonal()).all():
            raise UnsupportedModelError(
                f"{name} holds NaN or infinite values; the checkpoint or an upstream patch is damaged"
            )
        digests[name] = fingerprint_of(name, weight)
    return gram


def _check_width(entry: str, gram: Tensor, read: Mapping[str, Sequence[TextRows]]) -> None:
    given = next(iter(read.values()))[0].rows.shape[1]
    if given != len(gram):
        raise UnsupportedModelError(
            f"the model reads a {entry} {len(gram)} wide but CLIP gives {given}: CLIP and MODEL do not belong together"
        )


def _check_preserve(concepts: Sequence[Concept], preserve: Sequence[str]) -> list[str]:
    erased = {concept.name.casefold() for concept in concepts}
    prompts = list(dict.fromkeys(prompt.strip() for prompt in preserve))
    for prompt in prompts:
        if prompt.casefold() in erased:
            raise ValueError(f"preserve lists '{prompt}', which is to be erased; take it out of one of the two lists")
    return prompts or [""]


def _prompts(concepts: Sequence[Concept], preserve: Sequence[str]) -> list[list[str]]:
    """Each distinct prompt that has to be encoded, in parts between which progress is told."""
    prompts = [*preserve]
    for concept in concepts:
        prompts += [concept.name, concept.instead or EMPTY_TARGET]
    prompts = list(dict.fromkeys(prompts))
    return [prompts[start : start + PART] for start in range(0, len(prompts), PART)]


def _solvable(parts: Sequence[TextRows]) -> list[TextRows]:
    """Off a device that lacks float64."""
    return [replace(part, rows=part.rows.cpu()) if part.rows.device.type == "mps" else part for part in parts]
