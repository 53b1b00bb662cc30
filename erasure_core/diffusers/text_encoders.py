"""The text encoders of a diffusers pipeline: one or several, as its family says."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..concepts.parse import as_prompts
from ..concepts.prompt_length import too_long
from ..conditioning import Conditioning
from ..families.family import Family
from ..model import EncodedPrompts, TextRows, UnsupportedModelError, padded
from ..quoting import excerpt
from .encoder_digest import encoder_digest
from .weight_slots import device_of
from .weights import Parts

BATCH, BATCH_ON_CPU = 32, 4
"""Windows that are encoded together. A CPU is no faster with more, and its heap keeps the room that a pass has taken:
for SDXL's second encoder and 16 windows that is half a gigabyte."""
EMBEDDING = re.compile(r"(?<!\S)embedding:\S")


class TextEncoders:
    """The conditioning that the pipeline samples with: its ``family`` says what of which encoder the UNet reads."""

    def __init__(self, parts: Parts, family: Family, clip_skip: int = 0):
        """Raise ``UnsupportedModelError`` for an encoder without an end-of-text token.

        ``parts`` are the pipeline's modules, which have the text encoders of ``family``. ``clip_skip`` is that of
        ``from_diffusers``, by default no layer; ``ValueError`` is raised for one that an encoder does not have.
        """
        self._parts = parts
        self._tokenizers = [getattr(parts.pipe, encoder.tokenizer) for encoder in family.encoders]
        self._encoders = [getattr(parts.pipe, part) for part in family.parts]
        configs = [encoder.config for encoder in self._encoders]
        if clip_skip:
            _check_skip(clip_skip, family, configs)
        encoders = tuple(encoder.skipping(clip_skip) for encoder in family.encoders)
        self._family = replace(family, encoders=encoders)
        if any(getattr(config, "eos_token_id", None) is None for config in configs):
            raise UnsupportedModelError("the configuration of a text encoder has no eos_token_id, so no prompt ends")
        self.width = sum(config.hidden_size for config in configs)
        self.pooled = configs[family.parts.index(family.pooled)].projection_dim if family.pooled else 0
        self.tokens = min(
            *(tokenizer.model_max_length for tokenizer in self._tokenizers),
            *(config.max_position_embeddings for config in configs),
        )

    @property
    def device(self) -> torch.device:
        """Where the conditioning is: with the last text encoder."""
        return device_of(self._encoders[-1])

    def encode(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Encode ``prompts`` as the pipeline does. Raises ``ValueError`` for a prompt longer than the window."""
        windows, lengths = self._windows(as_prompts(prompts))
        return EncodedPrompts(self._encode(windows), tuple(length[0] - 2 for length in lengths))

    def names(self, prompts: Sequence[str], batch: int = 64) -> list[dict[str, tuple[TextRows, ...]]]:
        """Return the rows of ``prompts`` up to end-of-text, in windows no longer than the longest prompt of a batch.

        CLIP reads from left to right, so padding behind a prompt does not change its rows. Prompts of about the same
        length share a batch. Raises ``ValueError`` for a prompt longer than the window.
        """
        windows, lengths = self._windows(as_prompts(prompts))
        order = sorted(range(len(lengths)), key=lambda place: max(lengths[place]))
        rows: dict[int, dict[str, tuple[TextRows, ...]]] = {}
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            conditioning = self._encode(windows[places, :, : max(lengths[places[-1]])], batch)
            encoded = EncodedPrompts(conditioning, tuple(lengths[place][0] - 2 for place in places))
            rows.update(zip(places, encoded.rows(behind=1), strict=True))
        return [rows[place] for place in range(len(order))]

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        """Return the conditioning for token ``ids`` ``[n, tokens]`` as ``tokenize`` returns them.

        Each encoder gets the padding that it knows. Raises ``ValueError`` where the tokenizers' ids differ.
        """
        first, *others = self._tokenizers
        if any(len(other) != len(first) for other in others):
            raise ValueError(
                f"the pipeline's tokenizers have {' and '.join(str(len(one)) for one in self._tokenizers)} tokens, "
                "so their ids differ; load the same textual inversions into both"
            )
        other_ids = [padded(ids, first.eos_token_id, other.pad_token_id) for other in others]
        return self._encode(torch.stack([ids, *other_ids], 1))

    def reads(self, prompt: str) -> Hashable:
        """Return the tokens that each encoder reads of ``prompt``: equal for prompts that they cannot tell apart.

        Raises ``ValueError`` for a prompt longer than the window.
        """
        return tuple(tuple(self._ids_that_fit(prompt, tokenizer)) for tokenizer in self._tokenizers)

    def tokenize(self, prompt: str) -> list[int]:
        """Return the first encoder's token ids of ``prompt`` in its window, with start, end and padding.

        Raises ``ValueError`` for a prompt longer than the window.
        """
        first = self._tokenizers[0]
        return self._window(self._ids_that_fit(prompt, first), first)

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of token ``ids`` of the first encoder."""
        return self._tokenizers[0].decode(list(ids)).strip()

    def digest(self) -> str:
        """Return what identifies the text encoders; see ``encoder_digest``."""
        padding = [tokenizer.pad_token_id for tokenizer in self._tokenizers]
        return encoder_digest(self._parts, self._family, padding, self.tokens)

    def shortened(self, prompt: str) -> str:
        """Return ``prompt``, or as much of its beginning as the text encoders take."""
        if self._fits(prompt):
            return prompt
        return prompt[: bisect(range(1, len(prompt)), False, key=lambda length: not self._fits(prompt[:length]))]

    def _encode(self, ids: Tensor, batch: int | None = None) -> Conditioning:
        """Return the conditioning for token ids ``[n, encoders, tokens]``; equal ones are encoded once.

        ``batch`` of them are encoded together, by default as many as suit the device.
        """
        batch = batch or (BATCH_ON_CPU if self.device.type == "cpu" else BATCH)
        distinct, places = ids.unique(dim=0, return_inverse=True)
        trains = any(self._parts.has_stand_ins(part) for part in self._family.parts)
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            return Conditioning.cat([self._conditioning(part) for part in distinct.split(batch)])[places]

    def _conditioning(self, ids: Tensor) -> Conditioning:
        """Return all encoders' contexts side by side, and the pooled vector, of token ids ``[n, encoders, tokens]``."""
        contexts, pooled = [], None
        for encoder, module, rows in zip(self._family.encoders, self._encoders, ids.unbind(1), strict=True):
            hidden = {} if encoder.layer is None else {"output_hidden_states": True}
            output = self._parts.call(encoder.part, rows.to(device_of(module)), **hidden)
            context = output[0] if encoder.layer is None else output.hidden_states[encoder.layer]
            contexts.append(self._parts.final_norm(encoder.part, context) if encoder.final_norm else context)
            if encoder.part == self._family.pooled:
                pooled = output.text_embeds
        last = contexts[-1] if pooled is None else pooled
        return Conditioning(torch.cat([context.to(last) for context in contexts], -1), pooled)

    def _windows(self, prompts: Sequence[str]) -> tuple[Tensor, list[tuple[int, ...]]]:
        """Return token ids ``[n, encoders, tokens]``, and each prompt's length by encoder, with start and end."""
        ids = [[self._ids_that_fit(prompt, tokenizer) for prompt in prompts] for tokenizer in self._tokenizers]
        windows = [
            torch.tensor([self._window(row, tokenizer) for row in rows])
            for rows, tokenizer in zip(ids, self._tokenizers, strict=True)
        ]
        return torch.stack(windows, 1), [tuple(map(len, rows)) for rows in zip(*ids, strict=True)]

    def _window(self, row: list[int], tokenizer) -> list[int]:
        """Return the ids of a prompt with padding up to the length of the window."""
        return row + [tokenizer.pad_token_id] * (self.tokens - len(row))

    def _ids_that_fit(self, prompt: str, tokenizer) -> list[int]:
        """Return the ids of a prompt with start and end, or raise an error for what the window does not hold."""
        if EMBEDDING.search(prompt):
            raise ValueError(
                f"'{excerpt(prompt)}' names an embedding as ComfyUI does; load it into the pipeline "
                "(load_textual_inversion) and write its token"
            )
        ids = self._ids(prompt, tokenizer)
        if len(ids) > self.tokens:
            raise too_long(prompt, len(ids) - 2, self.tokens - 2)
        return ids

    def _fits(self, prompt: str) -> bool:
        return all(len(self._ids(prompt, tokenizer)) <= self.tokens for tokenizer in self._tokenizers)

    def _ids(self, text: str, tokenizer) -> list[int]:
        """Return the prompt with textual inversions of several tokens written out, as the pipeline does."""
        if set(tokenizer.added_tokens_encoder) - set(tokenizer.all_special_tokens):
            text = self._parts.pipe.maybe_convert_prompt(text, tokenizer)  # it warns of every long prompt
        return list(tokenizer(text, verbose=False)["input_ids"])


def _check_skip(clip_skip: int, family: Family, configs: Sequence[Any]) -> None:
    """Raise ``ValueError`` unless every encoder has a layer left to read."""
    pairs = zip(family.encoders, configs, strict=True)
    most = min(config.num_hidden_layers + (encoder.layer or -1) for encoder, config in pairs)
    if not 0 <= clip_skip <= most:
        raise ValueError(f"clip_skip must be from 0 to {most}, by this text encoder's layers, got {clip_skip}")
