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
from ...erasure_core.families.unets import text_parts
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
from ...erasure_core.quoting import excerpt
from .model import UNET, ComfyModel, merged_weights, working_device
from .toy import is_toy
from .weights import stored

STOCK_IMAGE_SIZE = 32  # what ComfyUI notes for every checkpoint of Stable Diffusion, whatever its size
ROOM = 4  # times the UNet's copy: itself, activations, gradients


@contextmanager
def trainable(model, clip, vae=None) -> Iterator[TrainableComfyModel]:
    """Open MODEL, CLIP and VAE as a model to sample, train and attack, inside a ``with`` block.

    ``vae`` may be ``None``, the default, where no image is encoded or decoded. Other models are unloaded if their
    memory is needed, and the memory of this one is freed at the end of the block. Raises ``UnsupportedModelError`` as
    ``TrainableComfyModel`` does.
    """
    with torch.inference_mode(False):
        trainable_model = TrainableComfyModel(model, clip, vae)
        _make_room(trainable_model)
        try:
            yield trainable_model
        finally:
            trainable_model.forget()
            comfy.model_management.soft_empty_cache()


class TrainableComfyModel(ComfyModel):
    """A ``ComfyModel`` that is a ``DiffusionModel``: differentiable in stand-ins for its weights, and only read.

    Members without a description have that of the contract, ``erasure_core.model``. The UNet and the text encoder run
    with normal tensors in the places of all their weights: ComfyUI's, merged with the patches of nodes upstream, or the
    stand-ins. Hooks and patches of the attention (IPAdapter and the like) do not take part. Use it outside of inference
    mode; see ``trainable``. Raises ``UnsupportedModelError`` for families other than Stable Diffusion, and for a MODEL
    that predicts neither noise nor velocity.
    """

    def __init__(self, model, clip, vae=None):
        super().__init__(model, clip)
        _check(model)
        self.vae = vae
        self.device = working_device(model)
        self.dtype = _compute_dtype(model, self.device)
        self._encoders = {
            name: TextEncoder.of(clip, name, part) for name, part in zip(self.text.names, text_parts(), strict=False)
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
            encoder_weights = [merged_weights(self.clip.patcher, t.keys) for t in self._encoders.values()]
            return LazyWeights({name: partial(one.__getitem__, name) for one in encoder_weights for name in one})
        keys = {name: key for name, key in self._keys.items() if scope == "unet" or in_attention(name)}
        return merged_weights(self.model, keys)

    def with_weights(self, weights: Mapping[str, Tensor]) -> TrainableComfyModel:
        for name in weights:
            if name not in self._keys and not any(name in encoder.keys for encoder in self._encoders.values()):
                raise ValueError(f"the model has no weight {name}")
        view = copy.copy(self)
        view._stand_ins = {**self._stand_ins, **weights}
        return view

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        if not any(name in encoder.keys for encoder in self._encoders.values() for name in self._stand_ins):
            with torch.inference_mode():
                encoded = self.text.encode(prompts)
            return encoded.conditioning.clone()
        windows = [self.text.windows_of(prompt) for prompt in prompts]
        return self._encoded({name: [[one[0] for one in w[name]] for w in windows] for name in self.text.names})

    def encode_tokens(self, ids: Tensor) -> Conditioning:
        rows = ids.tolist()
        return self._encoded({name: [encoder.padded(row) for row in rows] for name, encoder in self._encoders.items()})

    def _encoded(self, tokens: Mapping[str, list[list]]) -> Conditioning:
        """Return the contexts of all encoders side by side, and the last one's pooled vector if the model reads it."""
        stage = self.clip.cond_stage_model
        stage.reset_clip_options()
        if self.clip.layer_idx is not None:
            stage.set_clip_options({"layer": self.clip.layer_idx})
        contexts = []
        for name, encoder in self._encoders.items():
            ours = self._in_place(encoder.keys, encoder.prefix, torch.float32)
            weights = self._all_weights(self.clip.patcher, encoder.module, encoder.prefix, torch.float32)
            with CopiedNorms(), torch.set_grad_enabled(torch.is_grad_enabled() and bool(ours)):
                context, pooled = functional_call(encoder.module, {**weights, **ours}, (tokens[name],))[:2]
            contexts.append(context)
        return Conditioning(torch.cat(contexts, -1), pooled if self.text.pooled else None)

    def tokenize(self, prompt: str) -> list[int]:
        ids = [token[0] for token in self.text.windows_of(prompt)[self.text.names[0]]]
        if not all(isinstance(one, int) for one in ids):
            raise ValueError(f"'{excerpt(prompt)}' names an embedding, which no attack can change; leave it out")
        return ids

    def text_of(self, ids: Sequence[int]) -> str:
        return self._encoders[self.text.names[0]].tokenizer.tokenizer.decode(list(ids)).strip()

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        unet = self.model.model.diffusion_model
        if is_toy(self.model):
            self.model.model.check_size(latents)
        weights = self._all_weights(self.model, unet, UNET, self.dtype)
        ours = self._in_place(self._keys, UNET, self.dtype)
        latents, text = latents.to(self.device, self.dtype), conditioning.to(self.device, self.dtype)
        options: dict[str, Any] = {"transformer_options": {"optimized_attention_override": _differentiable_attention}}
        if text.pooled is not None:
            options["y"] = self._label(text.pooled, latents)
        inputs = self._with_extra_channels(latents), timesteps.to(self.device)
        return functional_call(unet, {**weights, **ours}, inputs, {"context": text.context, **options})

    def _label(self, pooled: Tensor, latents: Tensor) -> Tensor:
        """Return what SDXL reads besides the context: the pooled vector and the size of the picture, uncropped."""
        height, width = (VAE_FACTOR * side for side in latents.shape[-2:])
        adm = self.model.model.encode_adm(pooled_output=pooled, height=height, width=width, device=self.device)
        return adm.to(self.device, self.dtype)

    def _with_extra_channels(self, latents: Tensor) -> Tensor:
        """Return latents with the channels that inpainting and edit models read besides, for a picture yet to be drawn.

        ComfyUI fills them in. Raises ``UnsupportedModelError`` for channels that it does not know.
        """
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
        """Add the changes of ``deltas`` to the named weights inside a ``with`` block, by stand-ins for these weights.

        Raises ``ValueError`` for a name or a shape that no weight has.
        """
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
        """Return ``samples`` of a LATENT or of a VAE, ``[n, c, h, w]``, scaled as the UNet reads them."""
        return self.model.model.process_latent_in(samples.clone())

    def latent_shape(self) -> tuple[int, int, int]:
        side = self.model.model.model_config.unet_config["image_size"]
        if side == STOCK_IMAGE_SIZE:
            side = 128 if self.text.pooled else 96 if self.prediction_type == "v_prediction" else 64
        return self.model.model.latent_format.latent_channels, side, side

    def free_memory(self) -> int | None:
        return comfy.model_management.get_free_memory(self.device)

    def forget(self) -> None:
        """Free the copies of weights; they are made again when a pass needs them."""
        self._own.clear()

    def _in_place(self, keys: Mapping[str, str], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the stand-ins among ``keys``, by their names within the module that ``prefix`` leads to."""
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
class TextEncoder:
    """One text encoder of a CLIP: its module, ComfyUI's keys of its weights by diffusers' names, and its tokenizer.

    ``prefix`` is what keys of the module's weights begin with.
    """

    module: torch.nn.Module
    prefix: str
    keys: Mapping[str, str]
    tokenizer: Any

    @classmethod
    def of(cls, clip, name: str, part: str) -> TextEncoder:
        """Return the text encoder that ComfyUI's tokens call ``name`` (l, g or h) and diffusers calls ``part``."""
        stage, words = clip.cond_stage_model, clip.tokenizer
        place = f"clip_{name}"
        module, prefix = getattr(stage, place), f"{place}."
        paths = [path for path, _ in module.named_parameters() if path.startswith("transformer.")]
        keys = {f"{part}.{path.removeprefix('transformer.')}": prefix + path for path in paths}
        return cls(module, prefix, keys, getattr(words, place))

    def padded(self, row: Sequence[int]) -> list[int]:
        """Return the token ids of one window with this encoder's padding after the first end-of-text."""
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


def _make_room(trainable_model: TrainableComfyModel) -> None:
    """Unload MODEL and CLIP, of which copies are used, and other models if their memory is needed."""
    management = comfy.model_management
    mine = (trainable_model.model, trainable_model.clip.patcher)
    others = [
        loaded
        for loaded in management.current_loaded_models
        if loaded.model is None or not any(loaded.model.is_clone(patcher) for patcher in mine)
    ]
    with torch.inference_mode():
        for device in {patcher.load_device for patcher in mine}:
            management.free_memory(1e30, device, keep_loaded=others)
        if trainable_model.device.type == "cuda":
            numbers = sum(weight.numel() for weight in trainable_model.model.model.diffusion_model.parameters())
            management.free_memory(ROOM * numbers * trainable_model.dtype.itemsize, trainable_model.device)


def _differentiable_attention(function, *arguments, **options) -> Tensor:
    """Compute PyTorch's own attention in place of a kernel without a backward pass or one that splits its input."""
    return attention_pytorch(*arguments, **options)
