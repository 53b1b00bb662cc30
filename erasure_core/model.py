"""What an algorithm sees of a text-to-image model, whoever hosts it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

TOKEN_EMBEDDING = "text_encoder.text_model.embeddings.token_embedding.weight"

Callback = Callable[[int, int, str], None]
"""Called as ``callback(done, total, what)``; whatever it raises cancels the work and reaches the caller."""


class UnsupportedModelError(ValueError):
    """The model lacks what the method edits; the message says which families work."""


@dataclass(frozen=True)
class EncodedPrompts:
    """``context`` is ``[n, tokens, d]``; ``last_content[i]`` the index of prompt i's last token before end-of-text."""

    context: Tensor
    last_content: tuple[int, ...]


@runtime_checkable
class TextToImageModel(Protocol):
    """A latent diffusion model with text cross-attention.

    Weights are named as in diffusers with the part in front:
    ``unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight``.
    """

    device: torch.device
    context_dim: int
    tokens: int
    prediction_type: str
    """``epsilon`` or ``v_prediction``."""
    alphas_cumprod: Tensor
    """``[timesteps]``, float64: the share of signal left at each timestep."""

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Contexts as sampling uses them. Raises ``ValueError`` for a prompt longer than the window."""

    def tokenize(self, prompt: str) -> list[int]:
        """The ids of a prompt's tokens in its window of ``tokens``, with start, end and padding.

        Raises ``ValueError`` for a prompt longer than the window.
        """

    def text_of(self, ids: Sequence[int]) -> str:
        """The words that tokens stand for."""

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Contexts ``[n, tokens, d]`` of ``[n, tokens]`` token ids, as ``encode_prompts`` gives them."""

    def cross_attention_weights(self) -> Mapping[str, Tensor]:
        """Every ``to_k`` and ``to_v`` that reads the context, ``[out, d]``, merged with what upstream patches did.

        Values may be computed on access, one at a time.
        """

    def weights_of(self, scope: str) -> Mapping[str, Tensor]:
        """The weights of ``cross-attention`` (as above), ``attention``, ``unet`` or ``text_encoder``, merged."""

    def with_weights(self, weights: Mapping[str, Tensor]) -> TextToImageModel:
        """The same model as it would be with ``weights`` in the places of its own, differentiable in them.

        Nothing is written: ``encode_prompts`` and ``predict_noise`` of the result use them, those of this one do not.
        """

    def predict_noise(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The UNet's output for latents ``[n, c, h, w]``, read by ``prediction_type``."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents of images ``[n, 3, h, w]`` in 0 to 1, scaled as the UNet expects them."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images ``[n, 3, h, w]`` in 0 to 1."""

    def latent_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of the model's usual picture."""

    def patched(self, deltas: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Add dense deltas to the named weights for the length of a ``with`` block, then put all back."""


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


def overlaid(weights: Mapping[str, Tensor], stand_ins: Mapping[str, Tensor]) -> LazyWeights:
    """``weights`` with those of ``stand_ins`` in their places, detached."""
    return LazyWeights(
        {
            name: lambda name=name: stand_ins[name].detach() if name in stand_ins else weights[name]
            for name in weights
        }
    )


def fingerprint_of(name: str, weight: Tensor) -> bytes:
    """A digest of a weight's name, shape and 64 of its values rounded to half precision."""
    flat = weight.detach().reshape(-1)
    picked = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.float16)
    return hashlib.sha256(f"{name}{tuple(weight.shape)}".encode() + picked.numpy().tobytes()).digest()


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits that tell checkpoints apart, the same at float32 and float16."""
    return combined([fingerprint_of(name, weights[name]) for name in sorted(weights)])


def combined(digests: Sequence[bytes]) -> str:
    """The fingerprint from its parts, in the order of the weights' names."""
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]
