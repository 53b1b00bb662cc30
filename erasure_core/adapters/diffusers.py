"""A diffusers ``StableDiffusionPipeline`` behind the ``TextToImageModel`` protocol."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..model import (
    CONTEXT,
    EncodedPrompts,
    LazyWeights,
    TextEntry,
    TextRows,
    UnsupportedModelError,
    context_rows,
    entry_weights,
    overlaid,
)

PARTS = ("unet", "text_encoder", "text_encoder_2")
NEST = "text_model."


class DiffusersModel:
    """See ``TextToImageModel``. The pipeline's own weights are never written: see ``patched``."""

    def __init__(self, pipe, stand_ins: Mapping[str, Tensor] | None = None):
        self.pipe = pipe
        self._stand_ins = dict(stand_ins or {})
        self.prediction_type: str = pipe.scheduler.config.prediction_type
        self.alphas_cumprod: Tensor = pipe.scheduler.alphas_cumprod.double()
        self.context_dim: int = pipe.text_encoder.config.hidden_size
        self.tokens: int = min(pipe.tokenizer.model_max_length, pipe.text_encoder.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        return self.pipe.unet.device

    def encode_prompts(self, prompts: Sequence[str]) -> EncodedPrompts:
        rows = [self._tokens_of(prompt) for prompt in prompts]
        context = self.encode_tokens(torch.tensor([self._padded(row) for row in rows]))
        return EncodedPrompts(context, tuple(len(row) - 2 for row in rows))

    def encode_tokens(self, ids: Tensor, batch: int = 32) -> Tensor:
        distinct, places = ids.unique(dim=0, return_inverse=True)
        device, ours = self.pipe.text_encoder.device, self._ours("text_encoder")
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(ours)):
            parts = [self._call("text_encoder", ours, part.to(device))[0] for part in distinct.split(batch)]
            return torch.cat(parts)[places.to(device)]

    def tokenize(self, prompt: str) -> list[int]:
        return self._padded(self._tokens_of(prompt))

    def text_of(self, ids: Sequence[int]) -> str:
        return self.pipe.tokenizer.decode(list(ids)).strip()

    def _padded(self, row: list[int]) -> list[int]:
        return row + [self.pipe.tokenizer.pad_token_id] * (self.tokens - len(row))

    def shortened(self, prompt: str) -> str:
        """The prompt, or as much of its beginning as the text encoder takes."""
        if self._fits(prompt):
            return prompt
        return prompt[: bisect(range(1, len(prompt)), False, key=lambda length: not self._fits(prompt[:length]))]

    def _tokens_of(self, prompt: str) -> list[int]:
        ids = self._ids(prompt)
        if len(ids) > self.tokens:
            raise ValueError(
                f"'{prompt[:60]}...' is {len(ids) - 2} tokens long, "
                f"the text encoder takes {self.tokens - 2}; shorten it"
            )
        return ids

    def _fits(self, prompt: str) -> bool:
        return len(self._ids(prompt)) <= self.tokens

    def _ids(self, text: str) -> list[int]:
        return list(self.pipe.tokenizer(text, verbose=False)["input_ids"])

    def text_entries(self) -> Mapping[str, TextEntry]:
        readers = {}
        for name, module in self.pipe.unet.named_modules():
            if name.endswith(("attn2.to_k", "attn2.to_v")):
                readers[f"unet.{name}.weight"] = lambda module=module: _merged(module)
        return {CONTEXT: TextEntry(overlaid(LazyWeights(readers), self._stand_ins))} if readers else {}

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        return context_rows(self.encode_prompts(prompts))

    def weights_of(self, scope: str) -> Mapping[str, Tensor]:
        if scope == "cross-attention":
            return entry_weights(self)
        if scope not in ("attention", "unet", "text_encoder"):
            raise ValueError(f"weights are of cross-attention, attention, unet or text_encoder, not '{scope}'")
        part = "text_encoder" if scope == "text_encoder" else "unet"
        self._without_loras()
        wanted = {f"{part}.{name}": weight for name, weight in getattr(self.pipe, part).named_parameters()}
        if part == "text_encoder":
            wanted = {_nested(name): weight for name, weight in wanted.items()}
        if scope == "attention":
            wanted = {name: weight for name, weight in wanted.items() if ".attn1." in name or ".attn2." in name}
        readers = {name: lambda weight=weight: weight.detach().float() for name, weight in wanted.items()}
        return overlaid(LazyWeights(readers), self._stand_ins)

    def with_weights(self, weights: Mapping[str, Tensor]) -> DiffusersModel:
        for name in weights:
            owner, leaf = self._place(name)
            if getattr(owner, leaf).dtype == torch.float16:
                raise UnsupportedModelError("training in float16 gives NaN; load the model in float32 or bfloat16")
        self._without_loras()
        return DiffusersModel(self.pipe, {**self._stand_ins, **weights})

    def predict_noise(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        ours = self._ours("unet")
        return self._call("unet", ours, latents, timesteps, encoder_hidden_states=context).sample

    def _without_loras(self) -> None:
        for part in ("unet", "text_encoder"):
            if any(hasattr(module, "lora_A") for module in getattr(self.pipe, part).modules()):
                raise UnsupportedModelError(
                    f"the {part} has LoRAs on it, which cannot be trained through; call pipe.fuse_lora() and then "
                    "pipe.unload_lora_weights()"
                )

    def _ours(self, part: str) -> dict[str, Tensor]:
        """Stand-ins for the weights of a part, by the names that it has for them, as it stores its own."""
        found = {}
        for name, tensor in self._stand_ins.items():
            if name.startswith(part + "."):
                owner, leaf = self._place(name)
                weight = getattr(owner, leaf)
                found[self._path(name)] = tensor.to(weight.device, weight.dtype)
        return found

    def _call(self, part: str, ours: Mapping[str, Tensor], *arguments, **named):
        """The module with ``ours`` in the places of its own weights, which get and keep nothing for gradients."""
        module = getattr(self.pipe, part)
        if torch.is_grad_enabled():
            ours = {**{name: weight.detach() for name, weight in module.named_parameters()}, **ours}
        return functional_call(module, ours, arguments, named) if ours else module(*arguments, **named)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        vae = self.pipe.vae
        encoded = vae.encode((2 * images - 1).to(vae.device, vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        vae = self.pipe.vae
        images = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def latent_shape(self) -> tuple[int, int, int]:
        config = self.pipe.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @contextmanager
    def patched(self, deltas: Mapping[str, Tensor]) -> Iterator[None]:
        """Stand-in parameters take the places of the named weights; the originals come back untouched."""
        places = [(*self._place(name), delta) for name, delta in deltas.items()]
        for owner, leaf, delta in places:
            shape = tuple(getattr(owner, leaf).shape)
            if tuple(delta.shape) != shape:
                raise ValueError(f"the erasure changes a weight of shape {tuple(delta.shape)}, the model has {shape}")
        originals = [(owner, leaf, getattr(owner, leaf)) for owner, leaf, _ in places]
        try:
            for (owner, leaf, delta), (_, _, weight) in zip(places, originals, strict=True):
                changed = weight.detach().float() + delta.to(weight.device, torch.float32)
                setattr(owner, leaf, nn.Parameter(changed.to(weight.dtype), requires_grad=False))
            yield
        finally:
            for owner, leaf, weight in originals:
                setattr(owner, leaf, weight)

    def _place(self, name: str) -> tuple[nn.Module, str]:
        part = name.partition(".")[0]
        module, _, leaf = self._path(name).rpartition(".")
        try:
            if part not in PARTS:
                raise AttributeError(part)
            owner = getattr(self.pipe, part).get_submodule(module)
            owner = getattr(owner, "base_layer", owner)
            getattr(owner, leaf)
        except AttributeError:
            raise ValueError(f"the erasure changes {name}, which the model does not have") from None
        return owner, leaf

    def _path(self, name: str) -> str:
        """A weight's name within its part: newer transformers have no ``text_model`` in the text encoder's."""
        part, _, path = name.partition(".")
        if path.startswith(NEST) and not hasattr(getattr(self.pipe, part, None), "text_model"):
            return path.removeprefix(NEST)
        return path


def from_diffusers(pipe) -> DiffusersModel:
    """Adapt a ``StableDiffusionPipeline`` (SD 1.x, SD 2.x and look-alikes).

    Raises ``UnsupportedModelError`` for a pipeline without a UNet and one text encoder.
    """
    missing = [part for part in ("unet", "text_encoder", "tokenizer", "vae") if getattr(pipe, part, None) is None]
    if missing:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} has no {', '.join(missing)}; a StableDiffusionPipeline (SD 1.x or 2.x) is needed"
        )
    if getattr(pipe, "text_encoder_2", None) is not None:
        raise UnsupportedModelError(f"{type(pipe).__name__} has two text encoders, which is not supported yet")
    return DiffusersModel(pipe)


def _nested(name: str) -> str:
    """``text_encoder.text_model.encoder...`` as LoRA files and older transformers have it."""
    part, _, path = name.partition(".")
    return name if path.startswith(NEST) else f"{part}.{NEST}{path}"


def _merged(module: nn.Module) -> Tensor:
    """A linear layer's weight in at least float32, with the LoRAs that PEFT has put on it."""
    base = getattr(module, "base_layer", module)
    weight = base.weight.detach()
    weight = weight if weight.dtype == torch.float64 else weight.float()
    for adapter in getattr(module, "active_adapters", ()):
        if base is not module and not module.merged and adapter in module.lora_A:
            weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
    return weight
