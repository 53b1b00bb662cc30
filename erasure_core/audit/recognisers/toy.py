"""The embedded model's judge as a recogniser."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...toy.evaluation import subject_of
from ...toy.judge import Judge
from .recogniser import one_each


class ToyRecogniser:
    """The judge of the embedded model; it knows the concepts that this model draws, and no others."""

    name = "the judge of the embedded model"

    def __init__(self, judge: Judge | None = None):
        self._judge = judge or Judge.load()

    def knows(self, concept: str) -> bool:
        try:
            return bool(subject_of(concept))
        except ValueError:
            return False

    def shows(self, images: Tensor, concepts: Sequence[str]) -> list[bool]:
        subjects = [subject_of(concept) for concept in one_each(images, concepts)]
        verdict = self._judge.judge(images)
        return [getattr(verdict, f"{one.kind}s")[index] == one.name for index, one in enumerate(subjects)]
