"""The method RECE: reliable and efficient concept erasure in closed form (arXiv 2407.12383, ECCV 2024).

No gradient and no images: everything happens on ``[d, d]`` matrices, see ``closed_form``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ..arguments import checked
from ..closed_form.already_erased import check_not_erased, not_erased
from ..closed_form.collect import check_preserve, gather_statistics, reference_rows
from ..closed_form.derived_contexts import DerivedSystem
from ..closed_form.linalg import SingularSystemError, WeightGram, free_directions
from ..closed_form.statistics import EntryStatistics, Statistics
from ..closed_form.update import updated
from ..concepts.common import built_in_prompts
from ..concepts.parse import Concept, as_concepts, as_prompts
from ..devices import on_cpu
from ..erasures.erasure import Erasure, deltas_of
from ..erasures.erasure_record import ContextMap, Origin
from ..erasures.low_rank import Delta, LowRank
from ..limits import Settings, setting
from ..model import (
    Callback,
    TextEntry,
    TextReader,
    UnsupportedModelError,
    clip_skip_of,
    combined,
    digests_of,
    sample_of,
)
from ..progress import TwoStages
from ..workers import ALONE, Workers
from .inputs import Exactly, Preserve
from .method import ClosedForm, Method

GATHERING, ERASING, FORMING = "gathering weights", "erasing", "forming the changes"
"""What progress is called in the phases after those of ``collect``."""
LEAST_MOVED, MOST_MOVED = 0.01, 10.0
"""The limits of how far an edit moves the rows of concepts, relative to their size: presets move them 0.6 to 2.2."""
UPWARD, DOWNWARD = ("loops", "erase_scale", "preserve_scale", "amplification"), ("ridge", "regularization")
"""The settings that let an edit go further, or be less determined, the higher or the lower they are."""


LEAST_ADDED = 1e-3
"""The least norm of a loop's change, relative to the one before; with every useful regularization it is above 0.1."""


@dataclass(frozen=True)
class ReceSettings(Settings):
    """Settings of ``rece``; the defaults are the published ones for objects."""

    loops: int = setting(
        1, least=0, says="a whole number of at least 0",
        help="How often what would bring the concept back is found and erased too; 0 is plain UCE.",
    )  # fmt: skip
    regularization: float = setting(
        1e-1, above=0, help="How small those contexts are kept; smaller erases more and harms more."
    )
    erase_scale: float = setting(1.0, above=0, help="The weight of what is erased.")
    preserve_scale: float = setting(0.1, above=0, help="The weight of what is preserved.")
    ridge: float = setting(
        0.1, above=0,
        help="How firmly the weights are held where nothing else holds them; raise it if the system is singular.",
    )  # fmt: skip
    relative_ridge: float = setting(
        0.0, least=0,
        help="How firmly the weights are held, in the unit of the edit itself, so that one value suits one concept and "
        "a thousand. It is added to 'ridge'; more harms less and erases less.",
    )  # fmt: skip
    amplification: float = setting(
        1.0, above=0,
        help="How far to go along the change that was found; 1 is as published. More erases more surely inside long "
        "prompts and harms more.",
    )  # fmt: skip
    name_only: bool = setting(
        False,
        help="Edit what is read for a name itself and not what is read behind it: erases less, and harms less where "
        "many concepts are erased.",
    )
    exactness: float = setting(
        1e-3, least=0, below=1,
        help="The share of what is read for the prompts in 'exactly' that may change nevertheless; more leaves the "
        "edit more room.",
    )  # fmt: skip

    everyday_captions: bool = setting(
        False,
        help="Preserve two dozen built-in captions of everyday pictures too, so that prompts that do not name what is "
        "erased stay as they are.",
    )

    @property
    def needs_common(self) -> bool:
        """Whether a list of everyday concepts is needed: not where a relative ridge holds what nobody lists."""
        return not self.relative_ridge


PUBLISHED: Mapping[str, ReceSettings] = {
    "object": ReceSettings(loops=1, regularization=1e-1),
    "style": ReceSettings(loops=1, regularization=1e-3),
    "explicit": ReceSettings(loops=3, regularization=1e-1),
}
GENERAL = ReceSettings(
    loops=1, regularization=1e-3, amplification=1.8, relative_ridge=0.3, everyday_captions=True
)  # fmt: skip
RECE: Mapping[str, ReceSettings] = {
    "general": GENERAL,
    "several": replace(GENERAL, amplification=1.2),
    "published": PUBLISHED["object"],
    "object": ReceSettings(loops=1, regularization=1e-3, amplification=1.4),
    "style": ReceSettings(loops=1, regularization=1e-3, amplification=1.8),
    "explicit": PUBLISHED["explicit"],
    "many": ReceSettings(loops=1, regularization=1e-3, amplification=1.2, name_only=True),
}
"""``general`` is for an object or a style, ``several`` for several at once; both hold what nobody lists
(docs/method.md, "The ridge"). ``object``, ``style`` and ``many`` are those of earlier versions, which need a list of
what to preserve. All by ``tools/sweep.py`` and ``tools/sweep_many.py`` on the embedded model; nothing explicit could be
measured there."""


@checked
def rece(
    model: TextReader,
    concepts: Sequence[Concept | str] | Concept | str,
    settings: ReceSettings = RECE["general"],
    *,
    preserve: Sequence[str] | str = (),
    exactly: Sequence[str] | str = (),
    callback: Callback | None = None,
) -> Erasure:
    """Erase concepts from the layers of a model that read text, mostly cross-attention keys and values.

    The edit is UCE's (arXiv 2308.14761, eq. 7). After it, ``settings.loops`` times, the context that best regenerates
    each concept through the edited weights (RECE, arXiv 2407.12383, eq. 6) is erased in the same way. ``model`` is only
    read.

    - ``concepts``: one concept or several, each a ``Concept`` or text, ``van gogh`` or ``van gogh -> art``.
    - ``settings``: one of the presets ``RECE``, or a ``ReceSettings``; the default is ``general``. Its
      ``regularization`` keeps derived contexts small, and ``ridge`` keeps the weights near their originals. The closed
      form learns from the bare name and reaches only part of what the name does inside longer prompts:
      ``amplification`` goes further along the same change, 1 is as published. ``name_only`` edits what is read for the
      name's last token and not what is read behind it, as SPEED (arXiv 2503.07392) does: less of what all prompts share
      there is lost when many concepts are erased.
    - ``preserve``: prompts whose keys and values should stay as they are, beside the empty prompt and the built-in
      captions of settings with ``everyday_captions``; by default none.
    - ``exactly``: prompts that the edit leaves alone whatever else it has to do, but for a share ``exactness`` of what
      is read for them; by default none. ``exact_error`` among the origin's settings says by how much their keys and
      values change nevertheless. A few prompts use up all directions; then nothing can be erased, which is an error.
    - ``callback``: gets the progress.

    Raises ``ValueError`` for prompts that cannot be used, such as one to preserve that names nothing but an erased
    concept, and when an earlier closed form has erased all ``concepts`` from the model already (``applied_to``,
    ``over``; where it has erased some of them, these stay as they are, with a warning);
    ``SingularSystemError`` where the settings leave the edit undetermined; ``UnsupportedModelError`` for a model in
    which no linear layer reads text, and for weights that are not finite.
    """
    return rece_with_statistics(
        model, as_concepts(concepts), settings, preserve=preserve, exactly=exactly, callback=callback
    )[0]


@checked
def rece_with_statistics(
    model: TextReader,
    concepts: Sequence[Concept],
    settings: ReceSettings,
    *,
    preserve: Sequence[str] = (),
    exactly: Sequence[str] = (),
    common: bool = False,
    statistics: Statistics | None = None,
    restore: Sequence[str] = (),
    callback: Callback | None = None,
) -> tuple[Erasure, Statistics]:
    """Erase as ``rece`` does, and return the statistics of all concepts and prompts too, to continue with.

    With ``common`` the built-in everyday concepts are preserved as well; it is off by default, as in ``rece``. With
    ``statistics`` of an earlier erasure, their concepts are erased again together with ``concepts``, which may then be
    none, except for those that ``restore`` names; by default there are no statistics, and nothing is restored. Raises
    the errors of ``rece`` and ``updated``.
    """
    stages = TwoStages(callback, 2 + settings.loops)
    result = gathered(
        model, concepts, settings, preserve=preserve, exactly=exactly, common=common, statistics=statistics,
        restore=restore, callback=stages.first,
    )  # fmt: skip
    _check_any(result)
    with torch.no_grad():
        return _erase(model, result, settings, stages.second), result


@checked
def gathered(
    model: TextReader,
    concepts: Sequence[Concept],
    settings: ReceSettings,
    *,
    preserve: Sequence[str] = (),
    exactly: Sequence[str] = (),
    common: bool = False,
    statistics: Statistics | None = None,
    restore: Sequence[str] = (),
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> Statistics:
    """Return the statistics that ``rece_with_statistics`` erases, and erase nothing; its arguments and errors are here.

    With ``workers`` each process encodes its share of the prompts, and all return the same sums.
    """
    preserve, exactly = as_prompts(preserve, "preserve"), as_prompts(exactly, "exactly")
    if not model.text_entries():
        raise UnsupportedModelError("no linear layer of the model reads text, so there is nothing to edit")
    if statistics is None:
        concepts = not_erased(model, concepts)
        check_preserve(concepts, preserve, exactly)
        built_in = built_in_prompts(concepts, common=common, captions=settings.everyday_captions)
        prompts = list(dict.fromkeys([*preserve, *built_in])) or [""]
        return gather_statistics(
            model, concepts, prompts, exactly=exactly, name_only=settings.name_only, callback=callback, workers=workers
        )
    check_kind(statistics, settings.name_only)
    check_not_erased(model, statistics.concepts)
    return updated(
        statistics, model, concepts, preserve,
        restore=restore, exactly=exactly, common=common, captions=settings.everyday_captions, callback=callback,
        workers=workers,
    )  # fmt: skip


@checked
def erase_statistics(
    model: TextReader, statistics: Statistics, settings: ReceSettings, *, callback: Callback | None = None
) -> Erasure:
    """Erase the concepts of ``statistics`` as ``rece`` does, from a model that has none of them erased.

    Only one prompt is encoded, to compare the text encoders. ``settings`` is one of the presets ``RECE``, or a
    ``ReceSettings``; ``callback`` gets the progress. Raises ``ValueError`` for statistics that are empty, are of
    another text encoder, or do not fit the settings, and the errors of ``rece``.
    """
    _check_any(statistics)
    check_kind(statistics, settings.name_only)
    check_not_erased(model, statistics.concepts)
    statistics.check_encoder(reference_rows(model))
    with torch.no_grad():
        return _erase(model, statistics, settings, callback or (lambda done, total, what: None))


def _check_any(statistics: Statistics) -> None:
    if not statistics.concepts:
        raise ValueError("the statistics hold no concept, so there is nothing to erase")


def _erase(model: TextReader, statistics: Statistics, settings: ReceSettings, report: Callback) -> Erasure:
    total = 2 + settings.loops

    def loop_done(loop: int) -> None:
        report(1 + loop, total, f"erasing what would bring it back, loop {loop + 1} of {settings.loops}")

    report(0, total, GATHERING)
    digests: dict[str, bytes] = {}
    deltas: dict[str, Delta] = {}
    maps, errors, error = {}, {}, 0.0
    for name, entry in model.text_entries().items():
        gram = gather(entry, digests)
        entry_statistics = statistics.entries[name]
        _check_width(name, gram, entry_statistics)
        report(1, total, ERASING)
        change = solve(entry_statistics, gram.to(entry_statistics.preserve_gram.device), settings, loop_done)
        _check_moved(entry_statistics.edited.summed().concepts, change, settings)
        report(total - 1, total, FORMING)
        entry_deltas, rounding = deltas_of(change, entry)
        deltas.update(entry_deltas)
        error = max(error, rounding)
        maps[name] = ContextMap(change, tuple(entry.weights), entry.columns)
        if statistics.exactly:
            errors[name] = relative_change(change, entry_statistics.exactly_gram, gram)
    model_fingerprint = combined([digests[name] for name in sorted(digests)])
    settings_record = {**asdict(settings), "preserve": list(statistics.preserve), "clip_skip": clip_skip_of(model)}
    if statistics.exactly:
        settings_record |= {"exactly": list(statistics.exactly), "exact_error": errors}
    report(total, total, "done")
    origin = Origin("rece" if settings.loops else "uce", statistics.concepts, settings_record, model_fingerprint)
    return Erasure(deltas, (origin,), maps, error)


def solve(
    statistics: EntryStatistics,
    gram: Tensor,
    settings: ReceSettings,
    loop_done: Callable[[int], None] = lambda loop: None,
) -> LowRank:
    """Return the ``E`` of ``W' = W (I + E)``, ``[d, d]`` in float32 on the CPU, for the layers of one text entry.

    The first step is UCE's (eq. 7), each loop adds one for the derived contexts (RECE, eq. 6). ``statistics`` are those
    of the entry, ``gram`` is ``sum W^T W`` over its layers, float64 ``[d, d]``. ``loop_done`` is called with the number
    of each loop, from 0, when it begins; by default nothing is. Raises ``SingularSystemError`` for an edit that is not
    determined, ``UnsupportedModelError`` for one that is not finite, and ``ValueError`` for settings or prompts that
    leave nothing to change.
    """
    ridge = settings.ridge + (settings.relative_ridge * statistics.ridge_unit() if settings.relative_ridge else 0.0)
    scales = {"erase_scale": settings.erase_scale, "preserve_scale": settings.preserve_scale, "ridge": ridge}
    free = _free(statistics.exactly_gram, settings.exactness)
    try:
        change = step = statistics.edited.step(statistics.preserve_gram, free, **scales)
        system = DerivedSystem.of(gram)
        for loop in range(settings.loops):
            loop_done(loop)
            system = system.after(step)
            derived = statistics.derived.derived(system, settings.regularization)
            before, step = step, derived.step(statistics.preserve_gram, free, **scales)
            _check_adds(step, before, settings.regularization)
            change = change.followed_by(step)
    except SingularSystemError as error:
        raise SingularSystemError(
            f"the closed-form system is singular, so the edit is not determined; {gentler(settings)}"
        ) from error
    change = change.recompressed(1e-9)
    edit = LowRank((settings.amplification * change.up).float().cpu(), change.down.float().cpu())
    if not (torch.isfinite(edit.up).all() and torch.isfinite(edit.down).all()):
        raise UnsupportedModelError(f"the edit is not finite; {gentler(settings)}")
    return edit


def _free(exactly_gram: Tensor, exactness: float) -> Tensor | None:
    """Return the directions, orthonormal columns ``[d, f]``, that an edit may change; ``None`` for all."""
    if not exactly_gram.any():
        return None
    free = free_directions(exactly_gram, exactness)
    if not free.shape[1]:
        raise ValueError(
            f"what is to be left exactly alone takes up all {len(exactly_gram)} directions of the text, so nothing can "
            f"be erased; list fewer prompts (exactly), or raise exactness above {exactness:g}"
        )
    return free


def gentler(settings: ReceSettings) -> str:
    """Return advice for an edit that goes too far: settings that are beyond those of all presets, else the ridge."""
    presets = RECE.values()
    high = [name for name in UPWARD if getattr(settings, name) > max(getattr(one, name) for one in presets)]
    low = [name for name in DOWNWARD if getattr(settings, name) < min(getattr(one, name) for one in presets)]
    advice = [f"lower {name} from {getattr(settings, name):g}" for name in high]
    advice += [f"raise {name} from {getattr(settings, name):g}" for name in low]
    return ", ".join(advice) or f"raise ridge above {settings.ridge:g}, or lower amplification"


def _check_adds(step: LowRank, before: LowRank, regularization: float) -> None:
    """Raise ``ValueError`` if derived contexts are so small that erasing them changes nothing."""
    if step.dense().norm() < LEAST_ADDED * before.dense().norm():
        raise ValueError(
            f"regularization: {regularization:g} leaves nothing of what the loops derive, so that they change nothing; "
            "lower regularization, or set loops to 0"
        )


def _check_moved(rows: Tensor, change: LowRank, settings: ReceSettings) -> None:
    """Raise ``ValueError`` for an edit that erases nothing, or ruins the model.

    ``rows`` is the ``row_gram`` of the concepts.
    """
    down, up = change.down.to(rows.device), change.up.to(rows.device)
    largest = float(up.abs().max()) if up.numel() else 0.0
    up = up / (largest or 1.0)  # squares of float32 overflow
    shift = ((up.T @ up) * (down @ rows.to(down.dtype) @ down.T)).sum().clamp(min=0)
    share = largest * float(shift.double().sqrt() / rows.trace().sqrt())
    if not share >= LEAST_MOVED:
        raise ValueError(
            f"with these settings what is read for the concepts changes by {share:.1g} of itself, so nothing would be "
            "erased; raise erase_scale or amplification, lower ridge or preserve_scale, or list fewer prompts (exactly)"
        )
    if not share <= MOST_MOVED:
        raise ValueError(
            f"with these settings what is read for the concepts changes {share:.1g} times, which would ruin the model; "
            f"{gentler(settings)}"
        )


def relative_change(change: LowRank, rows: Tensor, gram: Tensor) -> float:
    """Return how much keys and values of some rows change, relative to them, in the Frobenius norm.

    ``change`` is ``E``, ``rows`` the ``row_gram`` of the rows, and ``gram`` is ``sum W^T W``, all ``[d, d]``. The
    result is 0 if there are no rows.
    """
    edit = change.dense().to(rows)
    gram = gram.to(rows)
    eye = torch.eye(len(rows)).to(rows)
    change_square, whole_square = ((gram * (one @ rows @ one.T)).sum() for one in (edit, eye))
    return float((change_square.clamp(min=0) / whole_square).sqrt()) if float(whole_square) else 0.0


def check_kind(statistics: Statistics, name_only: bool) -> None:
    """Raise ``ValueError`` when ``name_only`` of the settings is not that of the statistics.

    The statistics then hold other rows than the settings edit.
    """
    if name_only == statistics.name_only:
        return
    kinds = ("all rows of concepts", "names only (name_only)")
    fitting = [name for name, preset in RECE.items() if preset.name_only == statistics.name_only]
    raise ValueError(
        f"the settings edit {kinds[name_only]}, the statistics are of {kinds[statistics.name_only]}; "
        f"choose the preset {' or '.join(fitting)}, or set name_only to {statistics.name_only}"
    )


def gather(entry: TextEntry, digests: dict[str, bytes]) -> Tensor:
    """Return the Gram matrix of the weights of a text entry, float64 ``[d, d]``, in one pass over them.

    The digest of each weight is added to ``digests``, by its name. Raises ``UnsupportedModelError`` for an entry
    without weights, and for weights of different widths or with numbers that are not finite.
    """
    gram, samples, finite = WeightGram(), {}, []
    for name in sorted(entry.weights):
        weight = entry.weights[name]
        part = entry.part(weight)
        if gram.width not in (None, part.shape[1]):
            raise UnsupportedModelError(f"{name} reads text {part.shape[1]} wide, other layers {gram.width} wide")
        finite.append(gram.add(part))
        samples[name] = sample_of(weight)
    if not finite:
        raise UnsupportedModelError("a text entry of the model has no weights, so there is nothing to edit")
    for name, one in zip(samples, on_cpu(finite), strict=True):
        if not one:
            raise UnsupportedModelError(
                f"{name} holds NaN or infinite values; the checkpoint or an upstream patch is damaged"
            )
    digests.update(digests_of(samples))
    return gram.total()


def _check_width(name: str, gram: Tensor, statistics: EntryStatistics) -> None:
    if statistics.width != len(gram):
        raise UnsupportedModelError(
            f"the model reads a {name} {len(gram)} wide but CLIP gives {statistics.width}: "
            "CLIP and MODEL do not belong together"
        )


def check_rows(statistics: Statistics, settings: ReceSettings) -> None:
    """Raise ``ValueError`` when the settings edit other rows than the statistics hold; see ``check_kind``."""
    check_kind(statistics, settings.name_only)


METHOD = Method(
    "rece", rece, RECE, RECE, "closed form, iterated: erases a concept and what would bring it back",
    (Preserve, Exactly), ClosedForm(rece_with_statistics, check_rows, gathered, erase_statistics),
)  # fmt: skip
