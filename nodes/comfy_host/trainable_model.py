"""Training inside ComfyUI: its modules as differentiable functions of weights; its own weights are not changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from ...erasure_core import Conditioning, UnsupportedModelError
from ...erasure_core.model import (
    VAE_FACTOR,
    LazyWeights,
    TextEntry,
    check_scope,
    entry_weights,
    in_attention,
    overlaid,
    padded,
)
from ...erasure_core.quoting import shown
from .model import UNET, ComfyModel, merged_weights, working_device
from .weights import stored

TEXT_PARTS = ("text_encoder", "text_encoder_2")
STOCK_IMAGE_SIZE = 32  # what ComfyUI notes for every checkpoint of Stable Diffusion, whatever its size
ROOM = 4  # times the UNet's copy: itself, activations, gradients


@contextmanager
def trainable(model, clip, vae=None) -> Iterator[TrainableComfyModel]:
    """MODEL, CLIP and VAE as a model to train through, inside a ``with`` block; its memory is freed at the end."""
    with torch.inference_mode(False):
        seen = TrainableComfyModel(model, clip, vae)
        _make_room(seen)
        try:
            yield seen
        finally:
            seen.forget()
            comfy.model_management.soft_empty_cache()


class TrainableComfyModel(ComfyModel):
    """A ``ComfyModel`` whose passes are differentiable in stand-ins for its weights; nothing of it is written.

    The UNet and the text encoder run with normal tensors in the places of all their weights: the host's, merged with
    what upstream patches did, or the stand-ins. Hooks and patches of the attention (IPAdapter and the like) are not
    seen. Use it outside of inference mode, see ``trainable``.
    """

    def __init__(self, model, clip, vae=None):
        super().__init__(model, clip)
        _check(model)
        self.vae = vae
        self.device = working_device(model)
        self.dtype = _compute_dtype(model, self.device)
        self._towers = {
            name: Tower.of(clip, name, part) for name, part in zip(self.text.names, TEXT_PARTS, strict=False)
        }
        self._stand_ins: dict[str, Tensor] = {}
        self._own: dict[str, dict[str, Tensor]] = {}  # shared with the views that with_weights gives

    @property
    def prediction_type(self) -> str:
        sampling = self.model.get_model_object("model_sampling")
        return "v_prediction" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "epsilon"

    @property
    def alphas_cumprod(self) -> Tensor:
        return 1 / (self.model.get_model_object("model_sampling").sigmas.double().square() + 1)

    @cached_property
    def tokens(self) -> int:
        return len(self.text.windows_of("")[self.text.names[0]])

    def text_entries(self) -> Mapping[str, TextEntry]:
        entries = super().text_entries().items()
        return {name: replace(entry, weights=overlaid(entry.weights, self._stand_ins)) for name, entry in entries}

    def weights_of(self, scope: str) -> Mapping[str, Tensor]:
        return overlaid(self._weights_of(scope), self._stand_ins)

    def _weights_of(self, scope: str) -> Mapping[str, Tensor]:
        check_scope(scope)
        if scope == "cross-attention":
            return entry_weights(self)
        if scope == "text_encoder":
            towers = [merged_weights(self.clip.patcher, t.keys) for t in self._towers.values()]
            return LazyWeights({name: partial(one.__getitem__, name) for one in towers for name in one})
        keys = {name: key for name, key in self._keys.items() if scope == "unet" or in_attention(name)}
        return merged_weights(self.model, keys)

    def with_weights(self, weights: Mapping[str, Tensor]) -> TrainableComfyModel:
        for name in weights:
            if name not in self._keys and not any(name in tower.keys for tower in self._towers.values()):
                raise ValueError(f"the model has no weight {name}")
        view = copy.copy(self)
        view._stand_ins = {**self._stand_ins, **weights}
        return view

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        if not any(name in tower.keys for tower in self._towers.values() for name in self._stand_ins):
            with torch.inference_mode():
                encoded = self.text.encode(prompts)
            return encoded.conditioning.clone()
        windows = [self.text.windows_of(prompt) for prompt in prompts]
        return self._encoded({name: [[one[0] for one in w[name]] for w in windows] for name in self.text.names})

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        rows = ids.tolist()
        return self._encoded({name: [tower.padded(row) for row in rows] for name, tower in self._towers.items()})

    def _encoded(self, tokens: Mapping[str, list[list]]) -> Conditioning:
        """All encoders' contexts side by side, and the last one's pooled vector where the model reads it."""
        stage = self.clip.cond_stage_model
        stage.reset_clip_options()
        if self.clip.layer_idx is not None:
            stage.set_clip_options({"layer": self.clip.layer_idx})
        contexts = []
        for name, tower in self._towers.items():
            ours = self._in_place(tower.keys, tower.prefix, torch.float32)
            weights = self._all_weights(self.clip.patcher, tower.module, tower.prefix, torch.float32)
            with CopiedNorms(), torch.set_grad_enabled(torch.is_grad_enabled() and bool(ours)):
                context, pooled = functional_call(tower.module, {**weights, **ours}, (tokens[name],))[:2]
            contexts.append(context)
        return Conditioning(torch.cat(contexts, -1), pooled if self.text.pooled else None)

    def tokenize(self, prompt: str) -> list[int]:
        ids = [token[0] for token in self.text.windows_of(prompt)[self.text.names[0]]]
        if not all(isinstance(one, int) for one in ids):
            raise ValueError(f"'{shown(prompt)}' names an embedding, which no attack can change; leave it out")
        return ids

    def text_of(self, ids: Sequence[int]) -> str:
        return self._towers[self.text.names[0]].tokenizer.tokenizer.decode(list(ids)).strip()

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        unet = self.model.model.diffusion_model
        weights = self._all_weights(self.model, unet, UNET, self.dtype)
        ours = self._in_place(self._keys, UNET, self.dtype)
        latents, text = latents.to(self.device, self.dtype), conditioning.to(self.device, self.dtype)
        named: dict[str, Any] = {"transformer_options": {"optimized_attention_override": _differentiable_attention}}
        if text.pooled is not None:
            named["y"] = self._label(text.pooled, latents)
        given = self._with_extra_channels(latents), timesteps.to(self.device)
        return functional_call(unet, {**weights, **ours}, given, {"context": text.context, **named})

    def _label(self, pooled: Tensor, latents: Tensor) -> Tensor:
        """Return what SDXL reads besides the context: the pooled vector and the size of the picture, uncropped."""
        height, width = (VAE_FACTOR * side for side in latents.shape[-2:])
        adm = self.model.model.encode_adm(pooled_output=pooled, height=height, width=width, device=self.device)
        return adm.to(self.device, self.dtype)

    def _with_extra_channels(self, latents: Tensor) -> Tensor:
        """As the host fills them in for a picture that is all to be painted (inpainting) or has no model (edits)."""
        inner = self.model.model
        missing = inner.model_config.unet_config["in_channels"] - latents.shape[1]
        if not missing:
            return latents
        extra = inner.concat_cond(noise=latents, latent_image=torch.zeros_like(latents), device=self.device)
        if extra is None or extra.shape[1] != missing:
            raise UnsupportedModelError(f"MODEL reads {missing} channels beside latents, and what they hold is unknown")
        return torch.cat([latents, extra.to(latents)], 1)

    def encode_images(self, images: Tensor) -> Tensor:
        if self.vae is None:
            raise ValueError("VAE is missing: images are encoded with it; connect the one of the checkpoint")
        with torch.inference_mode():
            encoded = self.vae.encode(images.movedim(1, -1))
        return self.scaled_latents(encoded)

    def decode_latents(self, latents: Tensor) -> Tensor:
        if self.vae is None:
            raise ValueError("VAE is missing: latents are decoded with it; connect the one of the checkpoint")
        with torch.inference_mode():
            return self.vae.decode(self.model.model.process_latent_out(latents)).movedim(-1, 1)

    @contextmanager
    def patched(self, deltas: Mapping[str, Tensor]) -> Iterator[None]:
        """Use stand-ins for weights that hold the changes inside a ``with`` block."""
        before, unet, text = self._stand_ins, self.weights_of("unet"), self.weights_of("text_encoder")
        changed = {}
        for name, delta in deltas.items():
            own = unet if name.startswith("unet.") else text
            if name not in own or own[name].shape != delta.shape:
                raise ValueError(f"the erasure changes {name} as {tuple(delta.shape)}; it was made for another model")
            changed[name] = own[name] + delta.to(self.device)
        self._stand_ins = {**before, **changed}
        try:
            yield
        finally:
            self._stand_ins = before

    def scaled_latents(self, samples: Tensor) -> Tensor:
        """Return latents of a LATENT or a VAE, scaled as the UNet expects them."""
        return self.model.model.process_latent_in(samples.clone())

    def latent_shape(self) -> tuple[int, int, int]:
        side = self.model.model.model_config.unet_config["image_size"]
        if side == STOCK_IMAGE_SIZE:
            side = 128 if self.text.pooled else 96 if self.prediction_type == "v_prediction" else 64
        return self.model.model.latent_format.latent_channels, side, side

    def free_memory(self) -> int | None:
        return comfy.model_management.get_free_memory(self.device)

    def forget(self) -> None:
        """Free the copies of weights; they are made again when they are needed."""
        self._own.clear()

    def _in_place(self, keys: Mapping[str, str], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """The stand-ins among ``keys``, by their names within the module that ``prefix`` leads to."""
        return {
            keys[name].removeprefix(prefix): tensor.to(self.device, dtype)
            for name, tensor in self._stand_ins.items()
            if name in keys
        }

    def _all_weights(self, patcher, module, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return all weights of a module as normal tensors with their patches; copies if ComfyUI's cannot be used."""
        if prefix not in self._own:
            self._own[prefix] = {
                path: stored(patcher, prefix + path).plain(self.device, dtype) for path, _ in module.named_parameters()
            }
        return self._own[prefix]


@dataclass(frozen=True)
class Tower:
    """One text encoder: its module, weights by our names and the host's, and tokenizer."""

    module: torch.nn.Module
    prefix: str
    keys: Mapping[str, str]
    tokenizer: Any

    @classmethod
    def of(cls, clip, name: str, part: str) -> Tower:
        """``name`` as the host's tokens are called, ``part`` as diffusers calls the encoder."""
        stage, words = clip.cond_stage_model, clip.tokenizer
        place = f"clip_{name}"
        module, prefix = getattr(stage, place), f"{place}."
        paths = [path for path, _ in module.named_parameters() if path.startswith("transformer.")]
        keys = {f"{part}.{path.removeprefix('transformer.')}": prefix + path for path in paths}
        return cls(module, prefix, keys, getattr(words, place))

    def padded(self, row: Sequence[int]) -> list[int]:
        """Return tokens with this encoder's padding after the first end-of-text."""
        return padded(torch.tensor([row]), self.tokenizer.end_token, self.tokenizer.pad_token)[0].tolist()


class CopiedNorms(TorchFunctionMode):
    """Gives every layer norm a copy of its input: CLIP's layers overwrite what the norm keeps for its backward pass."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.layer_norm:
            args = (args[0].clone(), *args[1:])
        return function(*args, **(kwargs or {}))


def _check(model) -> None:
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, (comfy.model_sampling.EDM, comfy.model_sampling.X0)) or not isinstance(
        sampling, comfy.model_sampling.EPS
    ):
        raise UnsupportedModelError("MODEL predicts neither noise nor velocity, and training needs one of them")


def _compute_dtype(model, device: torch.device) -> torch.dtype:
    """Return float32 or bfloat16; training in float16 gives NaN."""
    small = model.model.get_dtype() != torch.float32
    fits = device.type == "cuda" and comfy.model_management.should_use_bf16(device)
    return torch.bfloat16 if small and fits else torch.float32


def _make_room(seen: TrainableComfyModel) -> None:
    """Unload MODEL and CLIP, of which copies are used, and other models if their memory is needed."""
    management = comfy.model_management
    mine = (seen.model, seen.clip.patcher)
    others = [
        loaded
        for loaded in management.current_loaded_models
        if loaded.model is None or not any(loaded.model.is_clone(patcher) for patcher in mine)
    ]
    with torch.inference_mode():
        for device in {patcher.load_device for patcher in mine}:
            management.free_memory(1e30, device, keep_loaded=others)
        if seen.device.type == "cuda":
            numbers = sum(weight.numel() for weight in seen.model.model.diffusion_model.parameters())
            management.free_memory(ROOM * numbers * seen.dtype.itemsize, seen.device)


def _differentiable_attention(function, *arguments, **named) -> Tensor:
    """Compute PyTorch's own attention in place of a kernel without a backward pass or one that splits its input."""
    return attention_pytorch(*arguments, **named)
