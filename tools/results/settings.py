"""What is measured: concepts, settings of methods, and erasures by them, each made only once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from erasure_core import Concept, Erasure, common_concepts
from erasure_core.limits import Settings
from erasure_core.methods import METHODS, Method
from erasure_core.methods.inputs import Images, Preserve
from erasure_core.methods.rece import PUBLISHED
from erasure_core.toy import Judge, load_toy
from erasure_core.toy.evaluation import NAMES, pictures_of, subject_of

TUNED_ON = ("cat", "pizza", "car", "noto")
OBJECTS = ("cat", "dog", "pizza", "car", "rose", "skull", "penguin", "banana", "guitar", "pumpkin")
STYLES = ("noto", "twemoji", "blob", "fluent")
REPLACED = ("cat -> dog", "rose -> sunflower", "noto -> fluent")
INSTEAD = {
    "cat": "dog", "dog": "fox", "pizza": "hamburger", "car": "bus", "rose": "sunflower", "skull": "ghost",
    "penguin": "owl", "banana": "lemon", "guitar": "umbrella", "pumpkin": "watermelon",
    "noto": "fluent", "twemoji": "blob", "blob": "twemoji", "fluent": "noto",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What is measured. ``preserve`` is common, unlisted or nothing; ``instead``: each concept has a replacement."""

    method: str
    meaning: str
    preserve: str = "common"
    instead: bool = False


RECE = {
    "listed": Setting("rece", "RECE, the presets `object` and `style`, common concepts preserved"),
    "unlisted": Setting(
        "rece", "RECE, the same without the model's own objects and styles among what is preserved", "unlisted"
    ),
    "published": Setting(
        "rece", "RECE, the published settings: preset of the paper, only the empty prompt preserved", "nothing"
    ),
    "uce": Setting("uce", "UCE with common concepts preserved"),
}
ALL = {
    "rece": Setting("rece", "RECE with a replacement, common concepts preserved", instead=True),
    "few_shot": Setting("few_shot", "few-shot as published: four pictures, no replacement, nothing listed", "nothing"),
    "doco": Setting("doco", "DoCo with the replacement as its anchor, common concepts preserved", instead=True),
    "abo": Setting("abo", "AbO with a replacement, common concepts preserved", instead=True),
}
SETTINGS = {**RECE, **ALL}
DEFAULT = "general"
"""RECE's default, nothing listed; ``general`` measures it on a page of its own, ``attacks`` attacks it."""
SEED = 100


def preserved(setting: Setting, concept: Concept) -> list[str]:
    if setting.preserve == "nothing":
        return []
    known = {*NAMES["object"], *(f"in the style of {style}" for style in NAMES["style"])}
    return [text for text in common_concepts([concept]) if setting.preserve == "common" or text not in known]


def erase(model, concept: Concept, name: str) -> Erasure:
    """By the setting of this name; everything random from seed 0."""
    if name == DEFAULT:
        return run(model, METHODS["rece"], concept, METHODS["rece"].presets[DEFAULT], [])
    setting, subject = SETTINGS[name], subject_of(concept)
    method = METHODS[setting.method]
    presets = PUBLISHED if name == "published" else method.toy_presets
    kind = "style" if subject.kind == "style" else "object"
    settings = presets[published(kind) if setting.method == "few_shot" else kind]
    return run(model, method, concept, settings, preserved(setting, concept))


def published(kind: str) -> str:
    """The name of few-shot's preset as published, for a kind of concept; ``few_shot`` measures its others."""
    return "published" if kind == "object" else f"published-{kind}"


def run(model, method: Method, concept: Concept, settings: Settings, preserve: list[str], **more) -> Erasure:
    """A method with all that it takes; few-shot by matching draws its pictures."""
    if Preserve in method.takes:
        more["preserve"] = preserve
    if Images in method.takes and getattr(settings, "objective", "") != "matching":
        more["images"] = pictures_of(subject_of(concept))
    return method.run(model, [concept], settings, **more)


def kept(folder: Path, concept: Concept, name: str, make: Callable[[], Erasure]) -> Erasure:
    """The erasure of an earlier run, or a new one."""
    path = _place(folder, concept, name)
    return Erasure.load(path) if path.exists() else _keep(make(), path)


def _place(folder: Path, concept: Concept, name: str) -> Path:
    return folder / f"{name}-{str(concept).replace(' -> ', '-to-').replace(' ', '-')}.safetensors"


def _keep(erasure: Erasure, path: Path) -> Erasure:
    path.parent.mkdir(parents=True, exist_ok=True)
    erasure.save(path, overwrite=True)
    return erasure


class Bench:
    """The model and its judge, and the folder where erasures are kept between runs."""

    def __init__(self, folder: Path = Path("build/erasures")):
        self.model, self.judge, self.folder = load_toy(), Judge.load(), folder

    def erasure(self, concept: Concept, name: str) -> Erasure:
        return kept(self.folder, concept, name, lambda: erase(self.model, concept, name))

    def erased_anew(self, concept: Concept, name: str) -> Erasure:
        """Computed again, and kept for ``erasure``."""
        return _keep(erase(self.model, concept, name), _place(self.folder, concept, name))
