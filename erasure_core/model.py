"""The contract of a model: ``TextReader`` for closed forms, ``DiffusionModel`` for sampling and training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .conditioning import Conditioning
from .devices import on_cpu

CONTEXT, POOLED = "context", "pooled"
POOLED_LAYER = "unet.add_embedding.linear_1.weight"
"""What reads the pooled vector in SDXL and its refiner, and after it the embedded sizes of the picture."""
VAE_FACTOR = 8  # pixels a latent, in every Stable Diffusion
SCOPES = ("cross-attention", "attention", "unet", "text_encoder")
"""The scopes of ``DiffusionModel.weights_of``."""
TOKEN_EMBEDDING = ".embeddings.token_embedding.weight"
Callback = Callable[[int, int, str], None]
"""Called as ``callback(done, total, what)``; whatever it raises cancels the work and reaches the caller."""


class UnsupportedModelError(ValueError):
    """The model lacks what the method edits; the message says which families work."""


@dataclass(frozen=True)
class EncodedPrompts:
    """What a text encoder makes of prompts; ``last_content[i]`` is the index of prompt i's last token."""

    conditioning: Conditioning
    last_content: tuple[int, ...]

    def rows(self, behind: int | None = None) -> list[dict[str, tuple[TextRows, ...]]]:
        """The ``text_rows`` of a model whose layers read the context, and the pooled vector, as they are.

        ``behind`` is the number of rows behind the last token, by default all.
        """
        found: list[dict[str, tuple[TextRows, ...]]] = []
        for place, last in enumerate(self.last_content):
            texts = [one[place] for one in self.conditioning.tensors]
            context = texts[0] if behind is None else texts[0][: last + 1 + behind]
            rows = TextRows(context, last), *(TextRows(vector[None], 0) for vector in texts[1:])
            found.append({name: (one,) for name, one in zip((CONTEXT, POOLED), rows, strict=False)})
        return found


@dataclass(frozen=True)
class TextRows:
    """The rows ``[n, d]`` that the layers of a text entry read for one prompt.

    ``last_content`` is the index of the row of the last token before end-of-text. Where the rows come from several
    encoders one after the other, each has its own ``TextRows``.
    """

    rows: Tensor
    last_content: int


@dataclass(frozen=True)
class TextEntry:
    """Linear layers that read the same rows of text, so that one map edits all of them: ``W' = W A``.

    ``weights`` are ``[out, in]``, merged with what upstream patches did; they may be computed on access, one at a time.
    ``columns`` are the first and the end of those of ``in`` that read the text, where the others read something else.
    """

    weights: Mapping[str, Tensor]
    columns: tuple[int, int] | None = None

    def part(self, weight: Tensor) -> Tensor:
        """Return the columns ``[out, d]`` of a weight that read the text."""
        return weight if self.columns is None else weight[:, slice(*self.columns)]


@runtime_checkable
class TextReader(Protocol):
    """A text-to-image model as closed forms see it: how it reads prompts, and where its denoiser reads the text.

    Weights are named as in diffusers with the part in front:
    ``unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight``.
    """

    erasures: tuple[Any, ...]
    """Each ``Erasure`` that the model carries, one on top of the other; ``Erasure.applied_to`` and ``over`` set it."""

    def reads(self, prompt: str) -> Hashable:
        """Return the tokens that all text encoders read of a prompt: equal for prompts that they cannot tell apart.

        Raises ``ValueError`` for a prompt longer than the window.
        """

    def text_entries(self) -> Mapping[str, TextEntry]:
        """Return where text enters, by name: ``context``, and ``pooled`` if the model reads a pooled vector."""

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        """Return for each prompt the rows that the layers of each text entry read, by the entry's name.

        Raises ``ValueError`` for a prompt longer than the window.
        """


@runtime_checkable
class NameReader(TextReader, Protocol):
    """A model whose text encoders read from left to right, so that the rows of a name need not those behind it."""

    def name_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        """Return the ``text_rows`` of each prompt up to its end-of-text, which take less time to compute.

        They are the same within the rounding of the encoder. Raises ``ValueError`` for a prompt longer than the window.
        """


@runtime_checkable
class CacheableReader(NameReader, Protocol):
    """A model that says which text encoders it has, so that what they make of prompts can be kept."""

    def rows_device(self) -> torch.device:
        """Return the device on which the rows of prompts are."""

    def encoder_digest(self) -> str:
        """Return what identifies the text encoders, as they are now: equal only where all prompts have equal rows.

        Raises ``UnsupportedModelError`` for text encoders that cannot be identified.
        """


@runtime_checkable
class DiffusionModel(TextReader, Protocol):
    """A latent diffusion model that can also be sampled, trained and attacked."""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    @property
    def tokens(self) -> int:
        """The number of tokens in a prompt's window, with start and end."""

    @property
    def prediction_type(self) -> str:
        """``epsilon`` or ``v_prediction``."""

    @property
    def alphas_cumprod(self) -> Tensor:
        """The share of the signal that is left at each timestep, float64 ``[timesteps]``."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """The prompts as sampling uses them. Raises ``ValueError`` for a prompt longer than the window."""

    def tokenize(self, prompt: str) -> list[int]:
        """Return the ids of a prompt's tokens in its window, with start, end and padding.

        Raises ``ValueError`` for a prompt longer than the window.
        """

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        """The same of ``[n, tokens]`` token ids as ``tokenize`` gives them."""

    def weights_of(self, scope: str) -> Mapping[str, Tensor]:
        """Weights merged with what upstream patches did, by ``scope``.

        ``cross-attention`` are those of all text entries, keys and values first of all; ``attention``, ``unet`` and
        ``text_encoder`` (all of them, where there are two) what they say.
        """

    def with_weights(self, weights: Mapping[str, Tensor]) -> DiffusionModel:
        """Return the model with ``weights`` in place of its own, differentiable in them.

        Nothing is written: ``encode_prompts`` and ``predict_noise`` of the result use them, those of this one do not.
        """

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the UNet's output for latents ``[n, c, h, w]``; ``prediction_type`` says what it means."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the latents, scaled for the UNet, of images ``[n, 3, h, w]`` with values from 0 to 1."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return the images of latents, ``[n, 3, h, w]`` with values from 0 to 1."""

    def latent_shape(self) -> tuple[int, int, int]:
        """Return ``(channels, height, width)`` of the latents of a picture in the model's usual size."""

    def free_memory(self) -> int | None:
        """Return the free bytes of the device on which the model computes, or ``None`` if they are unknown."""

    def patched(self, deltas: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Add dense changes to the named weights inside a ``with`` block, and restore the weights after it."""


def clip_skip_of(model: object) -> int:
    """Return how many of the last layers of CLIP a model's text skips, as ``from_diffusers`` counts; 0 without CLIP."""
    return getattr(model, "clip_skip", 0)


def vocabulary_of(model: object) -> frozenset[str]:
    """Return the words that a model has learned to draw, or none where that is unknown, as of most models."""
    return getattr(model, "vocabulary", frozenset())


def check_reader(model: object, what: str = "model") -> None:
    """Raise ``UnsupportedModelError`` for what is no ``TextReader``; ``what`` is how the sentence calls it."""
    if not callable(getattr(model, "text_entries", None)):
        raise UnsupportedModelError(
            f"{what} is of type {type(model).__name__}, which cannot be read; wrap a pipeline of diffusers, "
            "from_diffusers(pipe), or take the embedded model, load_toy()"
        )


def check_model(model: object, what: str = "model") -> None:
    """Raise ``UnsupportedModelError`` for what is no ``DiffusionModel``; ``what`` is how the sentence calls it."""
    check_reader(model, what)
    if not callable(getattr(model, "predict_noise", None)):
        raise UnsupportedModelError(
            f"{what} is of type {type(model).__name__}, which reads text but can be neither sampled nor trained"
        )


class LazyWeights(Mapping[str, Tensor]):
    """Weights that are merged when they are read, so that only one full copy exists at a time."""

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]]):
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def entry_weights(model: TextReader) -> Mapping[str, Tensor]:
    """Return the weights of all text entries of a model, by name."""
    return weights_of(model.text_entries())


def weights_of(entries: Mapping[str, TextEntry]) -> Mapping[str, Tensor]:
    """Return the weights of ``entries`` by name, each computed when it is read."""
    readers = {name: partial(entry.weights.__getitem__, name) for entry in entries.values() for name in entry.weights}
    return LazyWeights(readers)


def token_embeddings(model: DiffusionModel) -> dict[str, Tensor]:
    """Return each text encoder's table of token embeddings, ``[vocabulary, width]``, by the weight's name."""
    weights = model.weights_of("text_encoder")
    found = {name: weights[name] for name in weights if name.endswith(TOKEN_EMBEDDING)}
    if not found:
        raise UnsupportedModelError(f"the text encoder has no weight named ...{TOKEN_EMBEDDING}, so no words to learn")
    return found


def check_scope(scope: str) -> None:
    """Raise ``ValueError`` for what is no scope of ``weights_of``."""
    if scope not in SCOPES:
        raise ValueError(f"weights are of {', '.join(SCOPES[:-1])} or {SCOPES[-1]}, not '{scope}'")


def in_attention(name: str) -> bool:
    """Whether a weight of the UNet is of the scope ``attention``: self-attention or cross-attention."""
    return ".attn1." in name or ".attn2." in name


def padded(ids: Tensor, end: int, padding: int) -> Tensor:
    """Return token ids ``[n, tokens]`` with an encoder's own ``padding`` after the first end-of-text."""
    ends = (ids == end).int()
    return torch.where(ends.cumsum(1) - ends > 0, padding, ids)


def overlaid(weights: Mapping[str, Tensor], stand_ins: Mapping[str, Tensor]) -> LazyWeights:
    """Return ``weights`` with those of ``stand_ins`` in their places, detached."""

    def read(name: str) -> Tensor:
        return stand_ins[name].detach() if name in stand_ins else weights[name]

    return LazyWeights({name: partial(read, name) for name in weights})


@dataclass(frozen=True)
class Sample:
    """A weight's shape and at most 64 of its values in half precision, from which its digest is made."""

    shape: tuple[int, ...]
    values: Tensor

    def digest(self, name: str) -> bytes:
        """Return the digest of the weight of this name; the values are on the CPU."""
        return hashlib.sha256(f"{name}{self.shape}".encode() + self.values.numpy().tobytes()).digest()


def sample_of(weight: Tensor) -> Sample:
    """Return the sample of a weight, with its values where the weight is."""
    flat = weight.detach().reshape(-1)
    return Sample(tuple(weight.shape), flat[:: max(1, flat.numel() // 64)][:64].to(torch.float16))


def digests_of(samples: Mapping[str, Sample]) -> dict[str, bytes]:
    """Return the digest of each weight by its name, from the samples by name; a GPU is waited for once."""
    values = on_cpu([sample.values for sample in samples.values()])
    return {
        name: Sample(sample.shape, one).digest(name)
        for (name, sample), one in zip(samples.items(), values, strict=True)
    }


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return sixteen hexadecimal digits that identify a checkpoint, the same for float32 and float16."""
    digests = digests_of({name: sample_of(weights[name]) for name in sorted(weights)})
    return combined(list(digests.values()))


def combined(digests: Sequence[bytes]) -> str:
    """Return the fingerprint of the digests of all weights, in the order of their names."""
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]
