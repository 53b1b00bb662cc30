"""The method UCE: unified concept editing (arXiv 2308.14761), which is RECE without its loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..arguments import checked
from ..closed_form.statistics import Statistics
from ..concepts.parse import Concept, as_concepts
from ..erasures.erasure import Erasure
from ..limits import Settings, setting
from ..model import Callback, TextReader
from .inputs import Preserve
from .method import ClosedForm, Method
from .rece import ReceSettings, erase_statistics, gathered, rece_with_statistics


@dataclass(frozen=True)
class UceSettings(Settings):
    """Settings of ``uce``, as published; see ``ReceSettings``."""

    erase_scale: float = setting(1.0, above=0, help="The weight of what is erased.")
    preserve_scale: float = setting(0.1, above=0, help="The weight of what is preserved.")
    ridge: float = setting(0.1, above=0, help="How firmly the weights are held where nothing else holds them.")


UCE: Mapping[str, UceSettings] = {"object": UceSettings(), "style": UceSettings(), "explicit": UceSettings()}


@checked
def uce(
    model: TextReader,
    concepts: Sequence[Concept | str] | Concept | str,
    settings: UceSettings = UCE["object"],
    *,
    preserve: Sequence[str] | str = (),
    callback: Callback | None = None,
) -> Erasure:
    """Erase concepts from the layers of a model that read text, in closed form (UCE, arXiv 2308.14761, eq. 7).

    This is ``rece`` without its loops. ``concepts``, ``preserve`` and ``callback`` are those of ``rece``, and so are
    the errors; ``settings`` is one of the presets ``UCE``, or a ``UceSettings``. ``model`` is only read.
    """
    return uce_with_statistics(model, as_concepts(concepts), settings, preserve=preserve, callback=callback)[0]


@checked
def uce_with_statistics(
    model: TextReader,
    concepts: Sequence[Concept],
    settings: UceSettings,
    *,
    preserve: Sequence[str] = (),
    common: bool = False,
    statistics: Statistics | None = None,
    restore: Sequence[str] = (),
    callback: Callback | None = None,
) -> tuple[Erasure, Statistics]:
    """Erase as ``uce`` does, and return the statistics too, to continue with.

    The arguments are those of ``rece_with_statistics``. Raises its errors, and ``ValueError`` for statistics of names
    only.
    """
    if statistics is not None:
        check_rows(statistics, settings)
    return rece_with_statistics(
        model, concepts, _without_loops(settings), preserve=preserve, common=common,
        statistics=statistics, restore=restore, callback=callback,
    )  # fmt: skip


def gathered_for_uce(model: TextReader, concepts: Sequence[Concept], settings: UceSettings, **named: Any) -> Statistics:
    """Return the statistics that ``uce_with_statistics`` erases; ``named`` are the other arguments of ``gathered``."""
    if named.get("statistics") is not None:
        check_rows(named["statistics"], settings)
    return gathered(model, concepts, _without_loops(settings), **named)


def erase_by_uce(
    model: TextReader, statistics: Statistics, settings: UceSettings, *, callback: Callback | None = None
) -> Erasure:
    """Erase the concepts of ``statistics`` as ``uce`` does; see ``erase_statistics``."""
    return erase_statistics(model, statistics, _without_loops(settings), callback=callback)


def _without_loops(settings: UceSettings) -> ReceSettings:
    return ReceSettings(loops=0, **asdict(settings))


def check_rows(statistics: Statistics, settings: UceSettings) -> None:
    """Raise ``ValueError`` for statistics of names only, which UCE does not edit, whatever its ``settings``."""
    if statistics.name_only:
        raise ValueError(
            "the statistics are of names only (name_only), which uce does not edit; choose the method rece"
        )


METHOD = Method(
    "uce", uce, UCE, UCE, "closed form, once: the first step of rece",
    (Preserve,), ClosedForm(uce_with_statistics, check_rows, gathered_for_uce, erase_by_uce),
)  # fmt: skip
