"""Erase concepts from text-to-image models: pure PyTorch, without ComfyUI.

>>> from erasure_core import load_checkpoint, rece
>>> model = load_checkpoint("v1-5.safetensors")                         # doctest: +SKIP
>>> erasure = rece(model, "van gogh -> art")                            # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module

_PLACES = {
    "audit.compare": ("compare",),
    "audit.red_team": ("attack",),
    "audit.report": ("report",),
    "baking.bake": ("bake",),
    "closed_form": ("derived_context", "edit_map"),
    "closed_form.collect": ("gather_statistics",),
    "closed_form.statistics": ("Statistics",),
    "closed_form.statistics_file": ("StatisticsFileError", "load_statistics", "save_statistics"),
    "closed_form.update": ("updated",),
    "concepts.aliases": ("aliases_of",),
    "concepts.cached": ("CachedRows",),
    "concepts.common": ("common_concepts",),
    "concepts.parse": ("Concept", "ConceptError", "parse_concepts"),
    "concepts.suggest": ("suggest",),
    "diffusers.checkpoint": ("load_checkpoint",),
    "diffusers.model": ("from_diffusers",),
    "conditioning": ("Conditioning",),
    "erasures.erasure": ("Erasure",),
    "erasures.erasure_file": ("ErasureFileError",),
    "erasures.low_rank": ("Dense", "LowRank"),
    "erasures.erasure_record": ("Origin", "__version__"),
    "methods.abo": ("ABO", "AbOSettings", "abo"),
    "methods.doco": ("DOCO", "DoCoSettings", "doco"),
    "methods.few_shot": ("FEW_SHOT", "FewShotSettings", "few_shot"),
    "methods.rece": ("RECE", "ReceSettings", "erase_statistics", "rece"),
    "methods.uce": ("UCE", "UceSettings", "uce"),
    "model": ("DiffusionModel", "TextReader", "UnsupportedModelError"),
    "sampling.ddim": ("generate",),
    "sampling.purify": ("purify",),
    "training.loop": ("TrainingError",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}
__all__ = [*_MODULES]


def __getattr__(name: str):
    """Public names are imported when they are asked for, so that the command line can answer Ctrl-C from the start."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
