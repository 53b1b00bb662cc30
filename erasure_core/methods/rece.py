"""RECE, reliable and efficient concept erasure (arXiv 2407.12383), and UCE (arXiv 2308.14761), its first step.

No gradient and no images: everything happens on ``[d, d]`` matrices, see ``closed_form``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..closed_form import LowRank, SeenWeights, aligned_rows, edit_step, plus_gram, row_gram
from ..concepts import Concept, as_concepts
from ..erasure import Erasure, Origin, deltas_of
from ..model import Callback, TextToImageModel, UnsupportedModelError, combined, fingerprint_of

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
    """Erase concepts from the cross-attention keys and values of ``model``.

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

    contexts: dict[str, tuple[Tensor, int]] = {}
    for done, prompts in enumerate(parts):
        report(done, total, "encoding prompts")
        contexts |= _encode(model, prompts)
    report(steps, total, "gathering weights")
    weights = model.cross_attention_weights()
    gram, made_on = gather(weights, model.context_dim)
    gram = gram.to(contexts[concepts[0].name][0].device)
    scales = {"erase_scale": erase_scale, "preserve_scale": preserve_scale, "ridge": ridge}

    report(steps + 1, total, "erasing")
    kept = row_gram([contexts[prompt][0] for prompt in preserve])
    pairs = [
        aligned_rows(contexts[c.name][0], contexts[c.instead or EMPTY_TARGET][0],
                     contexts[c.name][1], contexts[c.instead or EMPTY_TARGET][1])
        for c in concepts
    ]  # fmt: skip
    change = step = edit_step([k for k, _ in pairs], [t for _, t in pairs], kept, **scales)
    seen = SeenWeights.of(gram)
    targets = [contexts[concept.instead or EMPTY_TARGET][0] for concept in concepts]
    originals = [contexts[concept.name][0] for concept in concepts]
    for loop in range(loops):
        report(steps + 1 + loop, total, f"erasing what would bring it back, loop {loop + 1} of {loops}")
        seen = seen.after(step)
        step = edit_step(seen.derived(originals, regularization=regularization), targets, kept, **scales)
        change = change.followed_by(step)
    change = change.recompressed(1e-9)
    report(total - 1, total, "forming the changes")
    method = "rece" if loops else "uce"
    origin = Origin(method, tuple(concepts), {**asdict(settings), "preserve": preserve}, made_on)
    context_map = LowRank((amplification * change.up).float().cpu(), change.down.float().cpu())
    if not (torch.isfinite(context_map.up).all() and torch.isfinite(context_map.down).all()):
        raise UnsupportedModelError("the edit is not finite; raise ridge or regularization")
    erasure = Erasure(deltas_of(context_map, weights), (origin,), context_map)
    report(total, total, "done")
    return erasure


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


def gather(weights: Mapping[str, Tensor], context_dim: int) -> tuple[Tensor, str]:
    """The Gram matrix of the weights, ``[d, d]`` in float64, and their fingerprint, in one pass over them.

    Raises ``UnsupportedModelError`` when they cannot be edited.
    """
    if not weights:
        raise UnsupportedModelError(
            "the model has no text cross-attention (no attn2.to_k or to_v); families that work: SD 1.x, SD 2.x"
        )
    gram = None
    digests = []
    for name in sorted(weights):
        weight = weights[name]
        if weight.ndim != 2 or weight.shape[1] != context_dim:
            raise UnsupportedModelError(
                f"{name} reads a context {weight.shape[-1]} wide but CLIP gives {context_dim}: "
                "CLIP and MODEL do not belong together"
            )
        gram = plus_gram(gram, weight)
        if not torch.isfinite(gram.diagonal()).all():
            raise UnsupportedModelError(
                f"{name} holds NaN or infinite values; the checkpoint or an upstream patch is damaged"
            )
        digests.append(fingerprint_of(name, weight))
    return gram, combined(digests)


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


def _encode(model: TextToImageModel, prompts: Sequence[str]) -> dict[str, tuple[Tensor, int]]:
    """Each prompt's context and the index of its last content token."""
    encoded = model.encode_prompts(prompts)
    context = encoded.context
    if context.device.type == "mps":
        context = context.cpu()
    return {prompt: (context[index], encoded.last_content[index]) for index, prompt in enumerate(prompts)}
