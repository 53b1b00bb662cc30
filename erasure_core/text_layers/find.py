"""Finding the layers through which text enters a denoiser, and the rows of text that they read.

The closed form edits a layer to ``W A`` wherever text enters through it. These layers are found without knowledge of
the architecture: the model runs as a skeleton (``constant_layers``) with several texts. A layer whose input differs
between two texts reads text that has passed no other layer, and how its input differs shows what it reads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor, nn

from .constant_layers import Layer, is_linear, layers_of, skeleton

Run = Callable[[Mapping[str, Tensor]], Tensor]
"""Calls a denoiser with texts by name and returns its output; the caller has fixed all other inputs."""
LINEAR, ROWWISE = "text", "rows"
"""The kinds of an ``EntryLayer``: it reads the text linearly, or a function of each row."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
TOLERANCE = 1e-4
LARGE = 64  # factor by which a text is enlarged: a softmax over it changes its weights, so pooling never looks linear


@dataclass(frozen=True)
class EntryLayer:
    """A linear layer through which text enters.

    ``kind`` is ``text`` when each row of the layer's input is, in the ``columns``, a sum of multiples of rows of the
    text: with ``W A`` in these columns the model does what it did for ``text A^T``. It is ``rows`` when each row is a
    function of one row of the text, for example a normalised one: then a map is solved in these columns for the rows
    that the layer reads (``collect_rows``).
    """

    name: str
    """The module's name."""
    text: str
    """The name of the text that it reads."""
    kind: str
    width: int
    """The number of columns of the layer's weight."""
    columns: tuple[int, int]
    """The first column that reads the text, and the one after the last."""
    aligned: bool
    """Whether the rows that the text changes are the text's rows, one for one and in their order."""
    shared: bool
    """Whether the layer also reads rows that the text does not change."""
    group: str
    """The name of the first layer that reads the same rows."""
    calls: int
    """How often one run of the model calls the layer."""


@dataclass(frozen=True)
class Leak:
    """A place that text reaches without passing an entry layer; ``name`` is the layer there, or ``output``."""

    name: str
    text: str
    reason: str


@dataclass(frozen=True)
class Trace:
    """All entry layers and leaks of a model; ``unread`` are the texts that nothing in the model depends on."""

    entries: tuple[EntryLayer, ...]
    leaks: tuple[Leak, ...]
    unread: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether all influence of the texts passes through the entry layers."""
        return not self.leaks


def find_entries(
    modules: Mapping[str, nn.Module], run: Run, texts: Mapping[str, Tensor], elsewhere: Run | None = None
) -> Trace:
    """Find the layers of a denoiser through which texts enter.

    ``modules`` are the denoiser's modules by name. Of the ``texts``, ``[..., rows, width]`` or ``[1, width]``, only
    shapes and types are used. ``run`` must not depend on random numbers. ``elsewhere`` is the same call with other
    latents and another timestep; with it, a layer that reads a function of both text and timestep counts as a leak.
    By default this is not examined. Raises ``ValueError`` when two equal runs differ, or when the text decides which
    layers are called.
    """
    layers = layers_of(modules)
    test_texts = {name: _TestText.of(text, place) for place, (name, text) in enumerate(texts.items())}
    plain = {name: text.plain for name, text in test_texts.items()}
    first = _observe(layers, run, plain)
    changed = {name: text.moved for name, text in test_texts.items()}
    moved = _observe(layers, run, changed, lambda call, digest: first.digests.get(call) != digest)
    if moved.digests.keys() != first.digests.keys():
        name = next(iter(moved.digests.keys() ^ first.digests.keys()))[0]
        raise ValueError(f"the text decides whether {name} is called; such a model cannot be traced")
    alike: dict[tuple[int, int], list[Call]] = defaultdict(list)
    for call in moved.inputs:
        alike[first.digests[call], moved.digests[call]].append(call)
    leaks = []
    if moved.output != first.output:
        leaks.append(Leak("output", " and ".join(texts), "it reaches the model's output past every layer"))
    if first.blind:
        leaks.append(Leak(first.blind, "", "what it reads is not finite, and hides what it depends on"))

    calls = {same[0]: same for same in alike.values()}
    again = _observe(layers, run, plain, only=calls) if calls else first
    for call in calls:
        if first.digests[call] != again.digests[call]:
            raise ValueError(f"two equal runs differ in what {call[0]} reads; switch off dropout and fix random seeds")
    findings: dict[tuple[str, Call], _Finding | str] = {}
    for name, text in test_texts.items() if calls else ():
        alone = moved if len(test_texts) == 1 else _observe(layers, run, plain | {name: text.moved}, only=calls)
        readers = [call for call in calls if alone.digests[call] != again.digests[call]]
        if not readers:
            continue
        half, large, other = (
            _observe(layers, way, plain | {name: values}, only=readers, salt=salt)
            for way, values, salt in (
                (run, text.half, 0),
                (run, LARGE * text.moved, 0),
                (elsewhere or run, text.moved, 1),
            )
        )
        for call in readers:
            inputs = (observed.inputs[call] for observed in (again, alone, half, large, other))
            finding = _judge(text, is_linear(layers[call[0]]), *inputs)
            findings |= {(name, same): finding for same in calls[call]}
    _refuse_sums(findings)
    read = {name for name, _ in findings}
    unread = tuple(name for name in texts if name not in read and moved.output == first.output)
    widths = {name: layer.in_features for name, layer in layers.items() if is_linear(layer)}
    return Trace(_entries(Counter(name for name, _ in first.digests), widths, findings, leaks), tuple(leaks), unread)


def collect_rows(
    modules: Mapping[str, nn.Module], run: Run, entries: Sequence[EntryLayer], texts: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the rows of the ``texts`` that each of the ``entries`` reads, by the layer's name.

    The rows are float32 ``[n, width of the entry's columns]``; rows that do not depend on the text are left out. The
    model runs as a skeleton, and only until all of these layers have been called.
    """
    layers, rows_by_layer = layers_of(modules), {}
    for text in dict.fromkeys(entry.text for entry in entries):
        mine = [entry for entry in entries if entry.text == text]
        only = {(entry.name, number) for entry in mine for number in range(entry.calls)}
        one = changed = _observe(layers, run, texts, only=only)
        if any(entry.shared for entry in mine):
            changed = _observe(layers, run, dict(texts) | {text: _numbers(texts[text], 2)}, only=only)
        for entry in mine:
            rows = []
            for number in range(entry.calls):
                here, there = (observed.inputs[entry.name, number].flatten(0, -2) for observed in (one, changed))
                touched = (here != there).any(1) if entry.shared else slice(None)
                rows.append(here[touched, slice(*entry.columns)].float())
            rows_by_layer[entry.name] = torch.cat(rows)
    return rows_by_layer


@dataclass(frozen=True)
class _TestText:
    """A random text and changed versions of it, in numbers that add without rounding, also in half precision.

    ``moved`` differs from ``plain`` in each row by a multiple of ``direction``. ``half`` is ``moved`` in the rows that
    the mask ``chosen`` selects, and ``plain`` in the others.
    """

    plain: Tensor
    moved: Tensor
    half: Tensor
    direction: Tensor
    chosen: Tensor

    @classmethod
    def of(cls, text: Tensor, seed: int) -> _TestText:
        """Make one with the shape and type of ``text``."""
        draw = torch.Generator().manual_seed(seed)
        plain = _numbers(text, seed)
        *front, width = text.shape
        rows = text[..., 0].numel()
        direction = torch.tensor([-2.0, -1.0, 1.0, 2.0])[torch.randint(4, (width,), generator=draw)]
        amounts = torch.randint(1, 4, (rows, 1), generator=draw)
        chosen = torch.randperm(rows, generator=draw) < max(1, rows // 2)
        step = (amounts * direction / 16).reshape(text.shape).to(plain)
        mask = chosen.reshape(*front, 1).to(plain.device)
        return cls(plain, plain + step, torch.where(mask, plain + step, plain), direction, chosen)


def _numbers(text: Tensor, seed: int) -> Tensor:
    """Return random multiples of 1/64 between -1/8 and 1/8 in the shape and type of a text."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randint(-8, 9, text.shape, generator=draw) / 64).to(text)


class _StopRun(BaseException):
    """Ends a run once all needed inputs are stored; a BaseException, so that no ``except Exception`` catches it."""


Call = tuple[str, int]
"""A layer's name, and the number of one of its calls in a run, from 0."""


@dataclass
class _Observation:
    """What one run shows: digests of the inputs of all calls, in their order, and some of the inputs themselves."""

    digests: dict[Call, int]
    inputs: dict[Call, Tensor]
    output: int | None = None
    """The digest of the model's output; ``None`` for a run that ended early."""
    blind: str | None = None
    """The name of the first layer whose input is not finite, which hides what it depends on."""


def _observe(
    layers: Mapping[str, Layer],
    run: Run,
    texts: Mapping[str, Tensor],
    keep: Callable[[Call, int], bool] = lambda *_: False,
    only: Collection[Call] | None = None,
    salt: int = 0,
) -> _Observation:
    """Run the skeleton and store the inputs of the calls for which ``keep(call, digest)`` is true.

    Equal inputs are stored once. With ``only``, just these calls are looked at, all their inputs are stored, and the
    run ends after the last of them; ``ValueError`` is raised if one of them never comes.
    """
    observed = _Observation({}, {})
    counts: Counter[str] = Counter()
    store: dict[tuple, Tensor] = {}
    odd: dict[tuple, Tensor] = {}

    def record(name: str, input: Tensor) -> None:
        call = (name, counts[name])
        counts[name] += 1
        if only is not None and call not in only:
            return
        digest = observed.digests[call] = _digest(input, odd)
        if not observed.blind and not bool(input.sum(dtype=torch.float32).isfinite()):
            observed.blind = name
        if only is not None or keep(call, digest):
            observed.inputs[call] = store.setdefault((digest, input.shape), input.detach().clone())
        if only is not None and len(observed.inputs) == len(only):
            raise _StopRun

    with torch.no_grad(), skeleton(layers, record, salt), suppress(_StopRun):
        observed.output = _digest(run({name: text.clone() for name, text in texts.items()}), odd)
    for name, _ in set(only or ()) - set(observed.inputs):
        raise ValueError(f"this run of the model does not call {name} as others did")
    return observed


def _digest(values: Tensor, odd: dict[tuple, Tensor]) -> int:
    """Return a hash of all bits, which always differs when a single number differs.

    ``odd`` is a cache of the multipliers, by size and device.
    """
    bits = values.detach().contiguous().view(INTEGERS[values.element_size()])
    for size in reversed(bits.shape):
        kind = (size, bits.device)
        if kind not in odd:
            odd[kind] = _odd(*kind)
        bits = (bits * odd[kind]).sum(-1)
    return int(bits)


def _odd(count: int, device: torch.device) -> Tensor:
    """Return ``count`` odd numbers of 64 bits that look random."""
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=device) * 0x1E3779B97F4A7C15
    return (steps ^ (steps >> 29)) * 0x3F58476D1CE4E5B9 | 1


@dataclass(frozen=True)
class _Finding:
    """What one call of a layer reads of a text.

    ``rows`` is a mask of the rows of its input that the text changes, ``contents`` a digest of these rows.
    """

    kind: str
    columns: tuple[int, int]
    aligned: bool
    rows: Tensor
    contents: int


def _judge(
    text: _TestText, linear: bool, plain: Tensor, moved: Tensor, half: Tensor, large: Tensor, other: Tensor
) -> _Finding | str:
    """Return what a layer reads of the text, judged by its inputs in five runs, or why it cannot be edited."""
    if not linear:
        return "it is a convolution"
    plain, moved, half, large, other = (x.reshape(-1, x.shape[-1]) for x in (plain, moved, half, large, other))
    touched = (plain != moved).any(1)
    plain, moved, half, large, other = (x[touched] for x in (plain, moved, half, large, other))
    if not bool(moved.isfinite().all()):
        return "what it reads of the text is not finite"
    used = (plain != moved).any(0).nonzero()
    columns = int(used[0]), int(used[-1]) + 1
    unchanged, changed = ((half == side).all(1) for side in (plain, moved))
    chosen = text.chosen.to(changed.device)
    aligned = len(changed) == len(chosen) and bool((changed == chosen).all())
    finding = _Finding(LINEAR, columns, aligned, touched, _digest(moved[:, slice(*columns)], {}))
    if _is_multiple(text, *(x[:, slice(*columns)] for x in (plain, moved, large))):
        return finding
    if not bool((unchanged | changed).all()):
        return "it reads rows of the text that were mixed before any linear layer, as by attention pooling"
    if not bool((other == moved).all()):
        return "it reads a function of the text and of something else, as of the timestep"
    return replace(finding, kind=ROWWISE)


def _is_multiple(text: _TestText, plain: Tensor, moved: Tensor, large: Tensor) -> bool:
    """Return whether each row is a sum of multiples of rows of the text, so that it also grows in proportion."""
    rounding = max(torch.finfo(x.dtype).eps for x in (text.plain, moved))
    plain, moved, large = plain.float(), moved.float(), large.float()
    direction = text.direction.to(moved)
    step = moved - plain
    if step.shape[1] != len(direction):
        return False
    multiple = (step @ direction / direction.square().sum())[:, None] * direction
    allowed = max(TOLERANCE, 4 * rounding) * moved.abs().max()
    return all(bool(error.abs().max() <= allowed) for error in (step - multiple, moved - large / LARGE))


def _refuse_sums(findings: dict[tuple[str, Call], _Finding | str]) -> None:
    """Replace findings by a reason where a layer reads two texts in the same rows and columns, as their sum.

    A map for one of these texts would change the other too.
    """
    for (one, call), (other, same) in combinations(findings, 2):
        first, second = findings[one, call], findings[other, same]
        if call != same or isinstance(first, str) or isinstance(second, str):
            continue
        apart = first.columns[1] <= second.columns[0] or second.columns[1] <= first.columns[0]
        if not apart and bool((first.rows & second.rows).any()):
            findings[one, call] = findings[other, call] = f"it reads the texts '{one}' and '{other}' as one"


def _entries(
    counts: Mapping[str, int],
    widths: Mapping[str, int],
    findings: Mapping[tuple[str, Call], _Finding | str],
    leaks: list[Leak],
) -> tuple[EntryLayer, ...]:
    """Return the entry layers from the findings of all calls; add the other layers to ``leaks``."""
    by_layer: dict[tuple[str, str], list[_Finding | str]] = defaultdict(list)
    for (text, (name, _)), finding in findings.items():
        by_layer[text, name].append(finding)
    entries: list[EntryLayer] = []
    groups: dict[tuple, str] = {}
    for (text, name), results in by_layer.items():
        problems = [result for result in results if isinstance(result, str)]
        calls = [result for result in results if not isinstance(result, str)]
        if not problems and len({(call.kind, call.columns) for call in calls}) > 1:
            problems = ["it reads the text in more ways than one"]
        if problems:
            leaks.append(Leak(name, text, problems[0]))
            continue
        first = calls[0]
        key = (text, first.kind, *(call.contents for call in calls))
        entries.append(
            EntryLayer(
                name=name,
                text=text,
                kind=first.kind,
                width=widths[name],
                columns=first.columns,
                aligned=all(call.aligned for call in calls),
                shared=len(calls) < counts[name] or not all(bool(call.rows.all()) for call in calls),
                group=groups.setdefault(key, name),
                calls=counts[name],
            )
        )
    return tuple(entries)
