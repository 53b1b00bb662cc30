"""The autoencoder of a diffusers pipeline, and what inpainting and instruct models read of a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..model import UnsupportedModelError
from .weight_slots import device_of, is_offloaded_by_layer


class Images:
    """The autoencoder of a pipeline, between images and latents.

    Images are ``[n, 3, h, w]`` with values from 0 to 1. Latents are ``[n, c, h / 8, w / 8]``, scaled for the UNet.
    """

    def __init__(self, pipe):
        """Raise ``UnsupportedModelError`` where the UNet of ``pipe`` reads channels of an unknown kind."""
        self._pipe = pipe
        self.channels: int = pipe.vae.config.latent_channels
        self._grey: dict[tuple[int, int], Tensor] = {}
        _kind(pipe.unet.config.in_channels, self.channels)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of ``images``: the middle of the autoencoder's distribution, without noise."""
        encoded = self._run("encode", 2 * images - 1)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * self._pipe.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of ``latents`` in float32, clamped to values from 0 to 1."""
        images = self._run("decode", latents / self._pipe.vae.config.scaling_factor).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def unet_input(self, latents: Tensor) -> Tensor:
        """Return ``latents`` with the channels in which the UNet reads a picture: one of which nothing is known.

        For inpainting a mask of ones and the latents of a picture that is masked everywhere (the middle grey, as the
        pipeline makes it); for instruct models zeros, as for the unconditional part of their image guidance.
        """
        kind = _kind(self._pipe.unet.config.in_channels, self.channels)
        if kind == "inpainting":
            picture = self._grey_latents(*latents.shape[2:]).to(latents).expand(len(latents), -1, -1, -1)
            return torch.cat([latents, torch.ones_like(latents[:, :1]), picture], 1)
        return torch.cat([latents, torch.zeros_like(latents)], 1) if kind == "instruct" else latents

    def _grey_latents(self, height: int, width: int) -> Tensor:
        """Return the latents of a grey picture, which are computed once."""
        if (height, width) not in self._grey:
            side = self._pipe.vae_scale_factor
            picture = torch.full((1, 3, side * height, side * width), 0.5)
            self._grey = {(height, width): self.encode(picture)}
        return self._grey[height, width]

    def _run(self, method: str, values: Tensor):
        """Run the autoencoder, in float32 if its configuration says that half precision overflows, as in SDXL."""
        vae = self._pipe.vae
        values = values.to(device_of(vae))
        if vae.dtype != torch.float16 or not vae.config.get("force_upcast", False):
            return getattr(vae, method)(values.to(vae.dtype))
        if is_offloaded_by_layer(vae):
            raise UnsupportedModelError(
                "this autoencoder overflows in float16 and is offloaded layer by layer, so it cannot run in float32; "
                "use pipe.enable_model_cpu_offload() in place of pipe.enable_sequential_cpu_offload()"
            )
        whole = {f"module.{name}": weight.float() for name, weight in vae.named_parameters()}
        return functional_call(_Method(vae, method), whole, (values.float(),))


class _Method(nn.Module):
    """A module whose call is one of another's methods."""

    def __init__(self, module: nn.Module, method: str):
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *arguments):
        return getattr(self.module, self.method)(*arguments)


def _kind(channels: int, latents: int) -> str:
    """Return how a UNet that reads so many ``channels`` draws, where a latent has ``latents`` of them."""
    kinds = {latents: "plain", 2 * latents: "instruct", 2 * latents + 1: "inpainting"}
    if channels not in kinds:
        raise UnsupportedModelError(
            f"the UNet reads {channels} channels where a latent has {latents}; that is neither a model that draws from "
            f"text ({latents}), nor one for instructions ({2 * latents}) or inpainting ({2 * latents + 1})"
        )
    return kinds[channels]
