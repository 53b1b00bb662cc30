"""A model that encodes each prompt once, for work that reads the same prompts again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from ..model import TextReader, TextRows
from .wrapped import WrappedReader

MOST_PROMPTS = 256


class RememberedRows(WrappedReader):
    """A ``TextReader`` that keeps the rows of the last ``most`` prompts, and encodes none of these again.

    Prompts of the same tokens count as one. At 77 tokens 768 wide, a prompt takes a quarter of a megabyte.
    """

    def __init__(self, model: TextReader, most: int = MOST_PROMPTS):
        super().__init__(model)
        self._model, self._most = model, most
        self._rows: dict[Hashable, Mapping[str, tuple[TextRows, ...]]] = {}

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        """Return the model's rows of each prompt; see ``TextReader``."""
        keys = [self._model.reads(prompt) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._rows}
        rows = {key: self._rows[key] for key in keys if key not in missing}
        if missing:
            rows.update(zip(missing, self._model.text_rows(list(missing.values())), strict=True))
        for key in dict.fromkeys(keys):
            self._rows.pop(key, None)
            self._rows[key] = rows[key]
        while len(self._rows) > self._most:
            del self._rows[next(iter(self._rows))]
        return [rows[key] for key in keys]
