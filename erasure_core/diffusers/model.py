"""A diffusers pipeline of the Stable Diffusion families behind the ``DiffusionModel`` protocol."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..arguments import checked
from ..conditioning import Conditioning
from ..devices import free_memory
from ..families.family import Family, tokenizer_of
from ..families.unets import text_parts
from ..model import (
    CONTEXT,
    POOLED,
    POOLED_LAYER,
    LazyWeights,
    TextEntry,
    TextRows,
    UnsupportedModelError,
    check_scope,
    entry_weights,
    in_attention,
    overlaid,
)
from ..quoting import excerpt
from .detection import NEEDED, encoders_of, family_of_pipeline
from .text_encoders import TextEncoders
from .unsupported import check_unet
from .vae import Images
from .weight_slots import device_of, weights_in
from .weights import Parts, merged

AESTHETIC_SCORE = 6.0  # what diffusers asks SDXL's refiner for


class _NoDrawing:
    """The pipeline of a model with other weights, which it does not know, so that it must not draw."""

    def __init__(self, pipe):
        self._pipe = pipe

    def __getattr__(self, name: str):
        if name == "_pipe":  # as a copy asks before it has any
            raise AttributeError(name)
        return getattr(self._pipe, name)

    def __call__(self, *arguments, **named):
        raise UnsupportedModelError(
            "this model was made by over() or with_weights(), and its pipe has the weights without the erasure; draw "
            "with generate(model, prompts, seeds), or use the pipe inside 'with erasure.applied_to(model)'"
        )


class DiffusersModel:
    """A diffusers pipeline as a ``DiffusionModel``, whose methods are described there.

    The pipeline's own weights are never written (see ``patched``).
    """

    def __init__(self, pipe, family: Family, clip_skip: int = 0):
        """``family`` says how ``pipe`` reads text; see ``from_diffusers``, also for ``clip_skip``."""
        self.pipe = pipe
        self.family = family
        self.clip_skip = clip_skip
        self.erasures: tuple[Any, ...] = ()
        self.vocabulary: frozenset[str] = frozenset()  # see vocabulary_of
        self._images = Images(pipe)
        self._stand_in(Parts(pipe))
        self.prediction_type: str = pipe.scheduler.config.prediction_type
        self.alphas_cumprod: Tensor = pipe.scheduler.alphas_cumprod.double()
        self.context_dim: int = self._text.width
        self.tokens: int = self._text.tokens

    def _stand_in(self, parts: Parts) -> None:
        self._parts, self._text = parts, TextEncoders(parts, self.family, self.clip_skip)

    @property
    def device(self) -> torch.device:
        return device_of(self.pipe.unet)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        return self._text.encode(prompts).conditioning

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        return self._text.encode_tokens(ids)

    def reads(self, prompt: str) -> Hashable:
        return self._text.reads(prompt)

    def tokenize(self, prompt: str) -> list[int]:
        return self._text.tokenize(prompt)

    def text_of(self, ids: Sequence[int]) -> str:
        return self._text.text_of(ids)

    def shortened(self, prompt: str) -> str:
        """Return ``prompt``, or as much of its beginning as the text encoders take."""
        return self._text.shortened(prompt)

    def text_entries(self) -> Mapping[str, TextEntry]:
        self._parts.check()
        unet, entries = self._parts.module("unet"), {}
        paths = [path.removesuffix(".weight") for path in weights_in(unet) if path.endswith(".weight")]
        readers = {
            f"unet.{path}.weight": lambda path=path: merged(unet, path)
            for path in paths
            if path.endswith(("attn2.to_k", "attn2.to_v"))
        }
        if readers:
            entries[CONTEXT] = TextEntry(overlaid(LazyWeights(readers), self._parts.stand_ins))
        if self._text.pooled:
            reader = {POOLED_LAYER: lambda: merged(unet, "add_embedding.linear_1")}
            weights = overlaid(LazyWeights(reader), self._parts.stand_ins)
            entries[POOLED] = TextEntry(weights, (0, self._text.pooled))
        return entries

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        return self._text.encode(prompts).rows()

    def name_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        return self._text.names(prompts)

    def rows_device(self) -> torch.device:
        return self._text.device

    def encoder_digest(self) -> str:
        return self._text.digest()

    def weights_of(self, scope: str) -> Mapping[str, Tensor]:
        check_scope(scope)
        if scope == "cross-attention":
            return entry_weights(self)
        parts = self._parts.encoders if scope == "text_encoder" else ("unet",)
        weights = {name: weight for part in parts for name, weight in self._parts.weights(part).items()}
        if scope == "attention":
            weights = {name: weight for name, weight in weights.items() if in_attention(name)}
        readers = {name: lambda weight=weight: weight.detach().float() for name, weight in weights.items()}
        return overlaid(LazyWeights(readers), self._parts.stand_ins)

    def with_weights(self, weights: Mapping[str, Tensor]) -> DiffusersModel:
        view = copy.copy(self)
        view.pipe = _NoDrawing(self.pipe)
        view._stand_in(self._parts.replaced(weights))
        return view

    def patched(self, deltas: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        return self._parts.patched(deltas)

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        dtype, added = self.pipe.unet.dtype, {}
        if self.pipe.unet.config.get("time_cond_proj_dim") is not None:
            raise UnsupportedModelError(
                "a latent consistency model draws in another way; erase from it with rece or uce, which draw nothing"
            )
        latents, text = latents.to(dtype), conditioning.to(dtype)
        if text.pooled is not None:
            added["added_cond_kwargs"] = {"text_embeds": text.pooled, "time_ids": self._sizes(latents)}
        inputs = self._images.unet_input(latents)
        return self._parts.call("unet", inputs, timesteps, encoder_hidden_states=text.context, **added).sample

    def _sizes(self, latents: Tensor) -> Tensor:
        """Return what SDXL reads of each picture: its size, that nothing was cropped, and its size again.

        The refiner reads an aesthetic score in place of the last.
        """
        height, width = (self.pipe.vae_scale_factor * side for side in latents.shape[2:])
        config = self.pipe.unet.config
        count = (config.projection_class_embeddings_input_dim - self._text.pooled) // config.addition_time_embed_dim
        row = [height, width, 0, 0, *([height, width] if count == 6 else [AESTHETIC_SCORE])]
        return torch.tensor([row] * len(latents), dtype=latents.dtype, device=latents.device)

    def encode_images(self, images: Tensor) -> Tensor:
        return self._images.encode(images)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return self._images.decode(latents)

    def latent_shape(self) -> tuple[int, int, int]:
        size = self.pipe.unet.config.sample_size
        sides = [size, size] if isinstance(size, int) else size
        if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(type(s) is int and s > 0 for s in sides)):
            raise UnsupportedModelError(
                f"the UNet's sample_size is {excerpt(size)}; it is the side of latents, or height and width, such as 64"
            )
        return self._images.channels, *sides

    def free_memory(self) -> int | None:
        return free_memory(self.device)


@checked
def from_diffusers(pipe, clip_skip: int = 0) -> DiffusersModel:
    """Return ``pipe`` as a model that methods can read, edit and draw with; its weights are never written.

    ``pipe`` is a pipeline of Stable Diffusion 1.x, 2.x or XL, of XL's refiner, for inpainting or for instructions, in
    float32, float16 or bfloat16. The refiner draws for one aesthetic score, whether guidance leads to a prompt or away
    from it. ``clip_skip`` is how many of CLIP's last layers are skipped, as in a call of ``pipe``: by default 0; 1 is
    what others call "clip skip 2". An erasure works for prompts that are read with the same ``clip_skip``. Raises
    ``ValueError`` for more layers than there are, and ``UnsupportedModelError`` for a pipeline of another kind, and for
    one with quantised weights.
    """
    kind = type(pipe).__name__
    encoders = encoders_of(pipe) or text_parts()[:1]
    parts = ["unet", *encoders, *map(tokenizer_of, encoders), "vae"]
    missing = [part for part in parts if getattr(pipe, part, None) is None]
    if missing:
        raise UnsupportedModelError(f"{kind} has no {', '.join(missing)}; {NEEDED}")
    check_unet(kind, pipe.unet)
    Parts(pipe).check()
    family = family_of_pipeline(pipe)
    if not hasattr(pipe.scheduler, "alphas_cumprod"):
        raise UnsupportedModelError(
            f"the {type(pipe.scheduler).__name__} of {kind} has no alphas_cumprod; {NEEDED}, with a DDIMScheduler"
        )
    return DiffusersModel(pipe, family, clip_skip)
