"""A model whose text encoders are asked through something else; all else is the model's own, as it is now."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from ..model import TextEntry, TextReader, clip_skip_of, vocabulary_of


class WrappedReader:
    """What is the same in every ``TextReader`` around another one, ``model``."""

    def __init__(self, model: TextReader):
        self._reader = model
        self.clip_skip = clip_skip_of(model)

    @property
    def erasures(self) -> tuple[Any, ...]:
        """The erasures on the model, as they are now; see ``TextReader``."""
        return self._reader.erasures

    @erasures.setter
    def erasures(self, erasures: tuple[Any, ...]) -> None:
        self._reader.erasures = erasures

    @property
    def vocabulary(self) -> frozenset[str]:
        """The words that the model has learned; see ``vocabulary_of``."""
        return vocabulary_of(self._reader)

    def reads(self, prompt: str) -> Hashable:
        """Return the model's tokens of a prompt; see ``TextReader``."""
        return self._reader.reads(prompt)

    def text_entries(self) -> Mapping[str, TextEntry]:
        """Return the model's text entries; see ``TextReader``."""
        return self._reader.text_entries()
