"""What ``rece_speed`` measures: how many concepts on which model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product

from erasure_core import Concept, common_concepts
from erasure_core.concepts.common import COMMON, built_in_prompts
from erasure_core.methods.rece import RECE, ReceSettings

LOOPS = 3
ADJECTIVES = (
    "old", "small", "wooden", "golden", "broken", "striped", "shiny", "dusty", "frozen", "painted", "plastic", "tall",
    "rusty", "soft", "hollow", "dark", "bright", "carved", "giant", "tiny", "round", "square", "folded", "torn"
)  # fmt: skip
NOUNS = COMMON[: COMMON.index("photo")]


@dataclass(frozen=True)
class Case:
    """What is erased from which model. It is measured ``repeats`` times once warm; 0: its first call has to do.

    Settings are those of the preset ``general`` for one concept, of ``several`` for more, or the published ones with
    three loops.
    """

    family: str
    count: int
    repeats: int = 0
    common: bool = False
    published: bool = False

    @property
    def name(self) -> str:
        variant = "-common" if self.common else "-published" if self.published else ""
        return f"{self.family}-{self.count}{variant}"

    @property
    def settings(self) -> ReceSettings:
        return ReceSettings(loops=LOOPS) if self.published else RECE["general" if self.count == 1 else "several"]

    def concepts(self) -> tuple[Concept, ...]:
        """The first of "old person", "old man" and so on."""
        names = islice((f"{adjective} {noun}" for adjective, noun in product(ADJECTIVES, NOUNS)), self.count)
        return tuple(map(Concept, names))

    def preserve(self) -> tuple[str, ...]:
        return tuple(common_concepts(self.concepts())) if self.common else ()

    def prompts(self) -> list[str]:
        """Everything that has to be encoded: concepts, the empty target, what is preserved, and built-in captions."""
        captions = built_in_prompts(self.concepts(), common=False, captions=self.settings.everyday_captions)
        return [*(concept.name for concept in self.concepts()), " ", *self.preserve(), *captions]


CASES = {
    case.name: case
    for case in (
        Case("sd15", 1, 3), Case("sd21", 1, 3), Case("sdxl", 1), Case("sd15", 1, common=True),
        Case("sd15", 1, 5, published=True), Case("sd21", 1, 3, published=True), Case("sdxl", 1, published=True),
        Case("sd15", 10, 3), Case("sd21", 10, 2), Case("sdxl", 10),
        Case("sd15", 100), Case("sd21", 100), Case("sdxl", 100),
        Case("sd15", 1000), Case("sd21", 1000), Case("sdxl", 1000),
    )
}  # fmt: skip
