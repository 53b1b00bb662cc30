"""Where text enters a denoiser: the first linear layers that its influence reaches, and the rows that they read.

The closed form edits a layer to ``W A`` wherever text enters through it. These layers are found without knowing the
family: the model is run as a skeleton, its text is changed, and the layers whose inputs change are those that text
reaches past no other layer. How the inputs change tells what a layer reads.
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
"""Calls a denoiser with texts by name, all else fixed by the caller, and returns its output."""
TEXT, ROWS = "text", "rows"
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
TOLERANCE = 1e-4
LARGE = 64  # what softmax spreads over small numbers it gives to one of large ones, so no pooling seems linear


@dataclass(frozen=True)
class FoundEntry:
    """A linear layer that text enters through.

    ``kind`` is ``text`` when each row that it reads is, in the ``columns`` start to stop of its input, a sum of
    multiples of the text's own rows: with ``W A`` in these columns the model does what it did for ``text A^T``.
    It is ``rows`` when each row is a function of one row of the text, a normalised one for example: a map is solved
    among the rows that the layer sees (``collect_rows``), in these columns.
    """

    name: str
    text: str
    kind: str
    width: int
    """How many columns the weight has."""
    columns: tuple[int, int]
    aligned: bool
    """The rows that the text changes are the text's rows, one for one and in their order."""
    shared: bool
    """The layer also reads rows that the text does not change."""
    group: str
    """The first layer that reads the same rows."""
    calls: int
    """How often a run of the model calls the layer."""


@dataclass(frozen=True)
class Leak:
    """A place that text reaches past all entries; ``name`` is a layer's, or ``output``."""

    name: str
    text: str
    reason: str


@dataclass(frozen=True)
class Trace:
    """``unread`` are the texts that nothing in the model depends on."""

    entries: tuple[FoundEntry, ...]
    leaks: tuple[Leak, ...]
    unread: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether all influence of the texts passes through the entries."""
        return not self.leaks


def find_entries(
    modules: Mapping[str, nn.Module], run: Run, texts: Mapping[str, Tensor], elsewhere: Run | None = None
) -> Trace:
    """The entries of the texts, of which only shapes and types are used: ``[..., rows, width]`` or ``[1, width]``.

    ``run`` must depend on nothing random. ``elsewhere`` is the same call at other latents and another timestep; with
    it, layers that read a function of the text and of these are told from those that read one of the text alone.
    Raises ``ValueError`` when two equal runs differ or the text decides which layers are called.
    """
    layers = layers_of(modules)
    probes = {name: _Probe.of(text, place) for place, (name, text) in enumerate(texts.items())}
    plain = {name: probe.plain for name, probe in probes.items()}
    first = _observe(layers, run, plain)
    changed = {name: probe.moved for name, probe in probes.items()}
    moved = _observe(layers, run, changed, lambda call, digest: first.digests.get(call) != digest)
    if moved.digests.keys() != first.digests.keys():
        name = next(iter(moved.digests.keys() ^ first.digests.keys()))[0]
        raise ValueError(f"the text decides whether {name} is called; such a model cannot be traced")
    alike: dict[tuple[int, int], list[Call]] = defaultdict(list)
    for call in moved.kept:
        alike[first.digests[call], moved.digests[call]].append(call)
    leaks = []
    if moved.output != first.output:
        leaks.append(Leak("output", " and ".join(texts), "it reaches the model's output past every layer"))
    if first.blind:
        leaks.append(Leak(first.blind, "", "what it reads is not finite, and hides what it depends on"))

    calls = {same[0]: same for same in alike.values()}
    again = _observe(layers, run, plain, wanted=calls) if calls else first
    for call in calls:
        if first.digests[call] != again.digests[call]:
            raise ValueError(f"two equal runs differ in what {call[0]} reads; switch off dropout and fix random seeds")
    findings: dict[tuple[str, Call], _Finding | str] = {}
    for name, probe in probes.items() if calls else ():
        alone = moved if len(probes) == 1 else _observe(layers, run, plain | {name: probe.moved}, wanted=calls)
        wanted = [call for call in calls if alone.digests[call] != again.digests[call]]
        if not wanted:
            continue
        half, large, other = (
            _observe(layers, way, plain | {name: text}, wanted=wanted, salt=salt)
            for way, text, salt in (
                (run, probe.half, 0),
                (run, LARGE * probe.moved, 0),
                (elsewhere or run, probe.moved, 1),
            )
        )
        for call in wanted:
            inputs = (passed.kept[call] for passed in (again, alone, half, large, other))
            finding = _judge(probe, is_linear(layers[call[0]]), *inputs)
            findings |= {(name, same): finding for same in calls[call]}
    _refuse_sums(findings)
    read = {name for name, _ in findings}
    unread = tuple(name for name in texts if name not in read and moved.output == first.output)
    widths = {name: layer.in_features for name, layer in layers.items() if is_linear(layer)}
    return Trace(_entries(Counter(name for name, _ in first.digests), widths, findings, leaks), tuple(leaks), unread)


def collect_rows(
    modules: Mapping[str, nn.Module], run: Run, entries: Sequence[FoundEntry], texts: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """By each entry's name the rows ``[n, stop - start]`` of the texts as its layer reads them, in float32.

    Rows that do not depend on the text are left out. The model runs as a skeleton, and no further than needed.
    """
    layers, found = layers_of(modules), {}
    for text in dict.fromkeys(entry.text for entry in entries):
        mine = [entry for entry in entries if entry.text == text]
        wanted = {(entry.name, number) for entry in mine for number in range(entry.calls)}
        one = changed = _observe(layers, run, texts, wanted=wanted)
        if any(entry.shared for entry in mine):
            changed = _observe(layers, run, dict(texts) | {text: _numbers(texts[text], 2)}, wanted=wanted)
        for entry in mine:
            rows = []
            for number in range(entry.calls):
                here, there = (passed.kept[entry.name, number].flatten(0, -2) for passed in (one, changed))
                touched = (here != there).any(1) if entry.shared else slice(None)
                rows.append(here[touched, slice(*entry.columns)].float())
            found[entry.name] = torch.cat(rows)
    return found


@dataclass(frozen=True)
class _Probe:
    """A text and changed versions of it, in numbers that add without rounding, in half precision too.

    ``moved`` differs from ``plain`` in each row by a multiple of ``direction``; ``half`` is ``moved`` in the rows
    where ``chosen``, and ``plain`` in the others.
    """

    plain: Tensor
    moved: Tensor
    half: Tensor
    direction: Tensor
    chosen: Tensor

    @classmethod
    def of(cls, text: Tensor, seed: int) -> _Probe:
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
    """Multiples of 1/64 between -1/8 and 1/8 in the shape of a text."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randint(-8, 9, text.shape, generator=draw) / 64).to(text)


class _Enough(BaseException):
    """Ends a run of which all that is wanted has been seen; no ``except Exception`` on the way may stop it."""


Call = tuple[str, int]
"""A layer's name and which call of it in a run this is, from 0."""


@dataclass
class _Pass:
    """One run: digests of what calls read, in their order, and the inputs that were kept."""

    digests: dict[Call, int]
    kept: dict[Call, Tensor]
    output: int | None = None
    blind: str | None = None
    """The first layer that read a number that is not finite."""


def _observe(
    layers: Mapping[str, Layer],
    run: Run,
    texts: Mapping[str, Tensor],
    keep: Callable[[Call, int], bool] = lambda *_: False,
    wanted: Collection[Call] | None = None,
    salt: int = 0,
) -> _Pass:
    """Run the skeleton and keep the inputs that ``keep`` asks for; equal ones are kept once.

    With ``wanted``, look at these calls only, keep what they read, and end the run when all have been seen. Raises
    ``ValueError`` for those that never come.
    """
    passed = _Pass({}, {})
    counts: Counter[str] = Counter()
    store: dict[tuple, Tensor] = {}
    odd: dict[tuple, Tensor] = {}

    def seen(name: str, input: Tensor) -> None:
        call = (name, counts[name])
        counts[name] += 1
        if wanted is not None and call not in wanted:
            return
        digest = passed.digests[call] = _digest(input, odd)
        if not passed.blind and not bool(input.sum(dtype=torch.float32).isfinite()):
            passed.blind = name
        if wanted is not None or keep(call, digest):
            passed.kept[call] = store.setdefault((digest, input.shape), input.detach().clone())
        if wanted is not None and len(passed.kept) == len(wanted):
            raise _Enough

    with torch.no_grad(), skeleton(layers, seen, salt), suppress(_Enough):
        passed.output = _digest(run({name: text.clone() for name, text in texts.items()}), odd)
    for name, _ in set(wanted or ()) - set(passed.kept):
        raise ValueError(f"this run of the model does not call {name} as others did")
    return passed


def _digest(values: Tensor, odd: dict[tuple, Tensor]) -> int:
    """A hash of every bit, which a change of one number alone always changes; ``odd`` keeps what it needs."""
    bits = values.detach().contiguous().view(INTEGERS[values.element_size()])
    for size in reversed(bits.shape):
        kind = (size, bits.device)
        if kind not in odd:
            odd[kind] = _odd(*kind)
        bits = (bits * odd[kind]).sum(-1)
    return int(bits)


def _odd(count: int, device: torch.device) -> Tensor:
    """Odd numbers of 64 bits, which look random."""
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=device) * 0x1E3779B97F4A7C15
    return (steps ^ (steps >> 29)) * 0x3F58476D1CE4E5B9 | 1


@dataclass(frozen=True)
class _Finding:
    """What one call of a layer reads of a text; ``rows`` says which rows of its input the text changes."""

    kind: str
    columns: tuple[int, int]
    aligned: bool
    rows: Tensor
    contents: int


def _judge(
    probe: _Probe, linear: bool, plain: Tensor, moved: Tensor, half: Tensor, large: Tensor, other: Tensor
) -> _Finding | str:
    """What a layer reads of the text, from its inputs in five runs; or why it is none that can be edited."""
    if not linear:
        return "it is a convolution"
    plain, moved, half, large, other = (x.reshape(-1, x.shape[-1]) for x in (plain, moved, half, large, other))
    touched = (plain != moved).any(1)
    plain, moved, half, large, other = (x[touched] for x in (plain, moved, half, large, other))
    if not bool(moved.isfinite().all()):
        return "what it reads of the text is not finite"
    used = (plain != moved).any(0).nonzero()
    columns = int(used[0]), int(used[-1]) + 1
    kept, changed = ((half == side).all(1) for side in (plain, moved))
    chosen = probe.chosen.to(changed.device)
    aligned = len(changed) == len(chosen) and bool((changed == chosen).all())
    found = _Finding(TEXT, columns, aligned, touched, _digest(moved[:, slice(*columns)], {}))
    if _is_multiple(probe, *(x[:, slice(*columns)] for x in (plain, moved, large))):
        return found
    if not bool((kept | changed).all()):
        return "it reads rows of the text that were mixed before any linear layer, as by attention pooling"
    if not bool((other == moved).all()):
        return "it reads a function of the text and of something else, as of the timestep"
    return replace(found, kind=ROWS)


def _is_multiple(probe: _Probe, plain: Tensor, moved: Tensor, large: Tensor) -> bool:
    """Whether each row is a sum of multiples of the text's rows, so that it also grows as they do."""
    rounding = max(torch.finfo(x.dtype).eps for x in (probe.plain, moved))
    plain, moved, large = plain.float(), moved.float(), large.float()
    direction = probe.direction.to(moved)
    step = moved - plain
    if step.shape[1] != len(direction):
        return False
    multiple = (step @ direction / direction.square().sum())[:, None] * direction
    allowed = max(TOLERANCE, 4 * rounding) * moved.abs().max()
    return all(bool(error.abs().max() <= allowed) for error in (step - multiple, moved - large / LARGE))


def _refuse_sums(findings: dict[tuple[str, Call], _Finding | str]) -> None:
    """Two texts in the same numbers that a layer reads, as their sum: a map of one would change the other."""
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
) -> tuple[FoundEntry, ...]:
    """The calls' findings layer by layer; those that are no entries become leaks."""
    by_layer: dict[tuple[str, str], list[_Finding | str]] = defaultdict(list)
    for (text, (name, _)), finding in findings.items():
        by_layer[text, name].append(finding)
    entries: list[FoundEntry] = []
    groups: dict[tuple, str] = {}
    for (text, name), results in by_layer.items():
        problems = [one for one in results if isinstance(one, str)]
        found = [one for one in results if not isinstance(one, str)]
        if not problems and len({(one.kind, one.columns) for one in found}) > 1:
            problems = ["it reads the text in more ways than one"]
        if problems:
            leaks.append(Leak(name, text, problems[0]))
            continue
        one = found[0]
        key = (text, one.kind, *(each.contents for each in found))
        entries.append(
            FoundEntry(
                name=name,
                text=text,
                kind=one.kind,
                width=widths[name],
                columns=one.columns,
                aligned=all(each.aligned for each in found),
                shared=len(found) < counts[name] or not all(bool(each.rows.all()) for each in found),
                group=groups.setdefault(key, name),
                calls=counts[name],
            )
        )
    return tuple(entries)
