"""A model whose text encoders' output is kept in a folder, for later runs that read the same prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import torch

from ..files.cache_folder import CacheFolder
from ..model import CacheableReader, TextRows, UnsupportedModelError
from .wrapped import WrappedReader

MOST_BYTES = 2_000_000_000
PARTS = "parts"
DTYPES = {str(one): one for one in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
Rows = Mapping[str, tuple[TextRows, ...]]
Read = Callable[[Sequence[str]], Sequence[Rows]]


class CachedRows(WrappedReader):
    """A ``TextReader`` that takes the rows of prompts from files where it can, and writes those that it has to encode.

    ``folder`` is made if it is missing, and holds at most ``most`` bytes, by default two gigabytes: the files that were
    written first are removed. Several processes may use it at once. A file is read only for the same text encoders, to
    the last bit of every weight, with the same settings, precision, kind of device and versions of PyTorch and
    transformers, and for the same tokens. ``model`` is one of diffusers whose text encoders stay as they are while this
    is in use: they are looked at once, here. Whoever can write into the folder can decide what is erased.

    Raises ``UnsupportedModelError`` for another model, and for text encoders with LoRAs that are not fused; ``OSError``
    for a folder that cannot be used.
    """

    def __init__(self, model: CacheableReader, folder: str | Path, most: int = MOST_BYTES):
        if not isinstance(model, CacheableReader):
            raise UnsupportedModelError(
                f"the text encoders of a {type(model).__name__} cannot be told from others, so what they read cannot "
                "be kept; use from_diffusers(pipe), load_checkpoint(file) or load_toy()"
            )
        super().__init__(model)
        self._model, self._folder = model, CacheFolder(Path(folder), most)
        self._digest = model.encoder_digest()

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Rows]:
        """Return the model's rows of each prompt; see ``TextReader``."""
        return self._rows("text", self._model.text_rows, prompts)

    def name_rows(self, prompts: Sequence[str]) -> Sequence[Rows]:
        """Return the model's rows of each prompt up to its end-of-text; see ``NameReader``."""
        return self._rows("name", self._model.name_rows, prompts)

    def _rows(self, kind: str, read: Read, prompts: Sequence[str]) -> list[Rows]:
        keys, device = [self._key(kind, prompt) for prompt in prompts], self._model.rows_device()
        rows = {key: one for key in dict.fromkeys(keys) if (one := self._kept(key, device)) is not None}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in rows}
        if missing:
            for key, one in zip(missing, read(list(missing.values())), strict=True):
                rows[key] = one
                self._keep(key, one)
            self._folder.trim()
        return [rows[key] for key in keys]

    def _key(self, kind: str, prompt: str) -> str:
        """Return the key of what text encoders read; ``reads`` gives numbers in tuples, which ``repr`` tells apart."""
        return sha256(repr((self._digest, kind, self._model.reads(prompt))).encode()).hexdigest()

    def _kept(self, key: str, device: torch.device) -> Rows | None:
        found = self._folder.read(key)
        if found is None:
            return None
        metadata, tensors = found
        rows: dict[str, tuple[TextRows, ...]] = {}
        for place, (name, last, dtype) in enumerate(json.loads(metadata[PARTS])):
            one = tensors[str(place)].to(device, DTYPES[dtype])
            rows[name] = (*rows.get(name, ()), TextRows(one, last))
        return rows

    def _keep(self, key: str, rows: Rows) -> None:
        parts = [(name, one) for name, several in rows.items() for one in several]
        about = [[name, one.last_content, str(one.rows.dtype)] for name, one in parts]
        tensors = {str(place): _storable(one.rows) for place, (_, one) in enumerate(parts)}
        self._folder.write(key, {PARTS: json.dumps(about)}, tensors)


def _storable(rows: torch.Tensor) -> torch.Tensor:
    """Return rows in a type that files have: bfloat16 is as exact in float32."""
    return rows.float() if rows.dtype == torch.bfloat16 else rows
