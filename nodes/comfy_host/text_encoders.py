"""Encoding prompts with the CLIP text encoders of Stable Diffusion in ComfyUI."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from hashlib import sha256

import comfy.model_management
import torch

from ...erasure_core import Conditioning, UnsupportedModelError
from ...erasure_core.concepts.prompt_length import too_long
from ...erasure_core.families.unets import FAMILIES
from ...erasure_core.model import EncodedPrompts

ENCODERS = {encoder.comfyui for family in FAMILIES.values() for encoder in family.encoders}
BATCH = 32
Window = list[tuple]
"""``(token, weight, word)`` for every place of an encoder's window."""


def identity(token) -> Hashable:
    """Return what identifies a token: its number, or the content of an embedding."""
    data = token["data"] if isinstance(token, dict) else token
    return sha256(data.detach().float().cpu().numpy().tobytes()).digest() if torch.is_tensor(data) else data


def host_conditioning(conditioning: Conditioning) -> list:
    """Return what a denoiser reads of prompts as a CONDITIONING, the form in which ComfyUI's nodes pass it on."""
    pooled = {} if conditioning.pooled is None else {"pooled_output": conditioning.pooled}
    return [[conditioning.context, pooled]]


class TextEncoders:
    """The text encoders of a CLIP of Stable Diffusion.

    ``pooled`` says whether the model reads the pooled vector too. Raises ``UnsupportedModelError`` for text encoders of
    other families.
    """

    def __init__(self, clip, pooled: bool):
        self.clip = clip
        self.pooled = pooled
        self.names = names_of(clip)

    @property
    def clip_skip(self) -> int:
        """How many of the last layers are skipped by "CLIP Set Last Layer", beside those that the family skips."""
        layer, index, *_ = getattr(self.clip.cond_stage_model, f"clip_{self.names[0]}").options_default
        own = -1 if layer == "last" else index
        return 0 if self.clip.layer_idx is None else own - self.clip.layer_idx

    def encode(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Encode prompts as "CLIP Text Encode" does, in float32 on the CPU.

        Raises ``ValueError`` for a prompt longer than the window, and ``UnsupportedModelError`` for a CLIP without the
        pooled vector that the model reads.
        """
        windows = [self.windows_of(prompt) for prompt in prompts]
        last = tuple(last_content(window[self.names[0]]) for window in windows)
        if self.pooled:
            return EncodedPrompts(Conditioning.cat([self._encode_one(window) for window in windows]), last)
        contexts = []
        for start in range(0, len(windows), BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            part = windows[start : start + BATCH]
            context = self.clip.encode_from_tokens({name: [_plain(one[name]) for one in part] for name in self.names})
            contexts.append(context.reshape(len(part), -1, context.shape[-1]).to("cpu", torch.float32))
        return EncodedPrompts(Conditioning(torch.cat(contexts)), last)

    def windows_of(self, prompt: str) -> dict[str, Window]:
        """Return the tokens of a prompt for each encoder. Raises ``ValueError`` for a prompt longer than the window."""
        tokens = tokenized(self.clip, prompt, return_word_ids=True)
        for windows in tokens.values():
            check_fits(prompt, windows)
        return {name: tokens[name][0] for name in self.names}

    def reads(self, prompt: str) -> Hashable:
        """Return the tokens that each encoder reads of a prompt: equal for prompts that they cannot tell apart."""
        return tuple(tuple(identity(token[0]) for token in window) for window in self.windows_of(prompt).values())

    def _encode_one(self, windows: dict[str, Window]) -> Conditioning:
        """Encode a single prompt, since ComfyUI returns only the first pooled vector of a batch."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        tokens = {name: [_plain(window)] for name, window in windows.items()}
        context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        if pooled is None:
            raise UnsupportedModelError("MODEL reads a pooled text vector, and CLIP gives none; load the CLIP of SDXL")
        return Conditioning(context, pooled).to("cpu", torch.float32)


def tokenized(clip, prompt: str, **options) -> dict[str, list[Window]]:
    """Return the tokens of a prompt in which brackets are text, as in all nodes of this pack, and set no weights."""
    for bracket in "()":
        prompt = prompt.replace(f"\\{bracket}", bracket).replace(bracket, f"\\{bracket}")
    return clip.tokenize(prompt, **options)


def check_fits(prompt: str, windows: Sequence[Window]) -> None:
    """Raise ``ValueError`` for a prompt that does not fit into one of CLIP's windows.

    ``windows`` are the prompt's for one text encoder, as ``tokenized`` returns them with ``return_word_ids``.
    """
    if len(windows) > 1:
        tokens = sum(bool(token[2]) for window in windows for token in window)
        raise too_long(prompt, tokens, len(windows[0]) - 2)


def names_of(clip) -> tuple[str, ...]:
    """Return the names of a CLIP's text encoders, as its tokens have them, in the order of their contexts.

    Raises ``UnsupportedModelError`` where there is no CLIP, or one of another family than Stable Diffusion.
    """
    if clip is None:
        raise UnsupportedModelError(
            "CLIP is missing: the checkpoint has no text encoder; load one with 'Load CLIP' and connect it"
        )
    names = sorted(clip.tokenize(""), reverse=True)  # l before g, as SDXL's contexts have them
    if not names or not set(names) <= ENCODERS:
        raise UnsupportedModelError(
            f"CLIP has the text encoders {' and '.join(names)}; Stable Diffusion has one or two of "
            f"{', '.join(sorted(ENCODERS))}: CLIP and MODEL do not belong together"
        )
    return tuple(names)


def last_content(row: Iterable[tuple]) -> int:
    """Return the index of the last token that is part of a word; 0, the start token, when there is none."""
    return max((index for index, token in enumerate(row) if token[2]), default=0)


def _plain(window: Window) -> list[tuple]:
    return [token[:2] for token in window]
