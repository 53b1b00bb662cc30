"""PatchGAN (arXiv 1611.07004) on predicted clean latents, and the surgery on two gradients that DoCo needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512)


def patch_discriminator(latent_shape: Sequence[int], seed: int) -> nn.Sequential:
    """Latents ``[n, c, h, w]`` to patch logits ``[n, 1, h', w']``: 4x4 convolutions of stride two, 64 channels and up.

    Of the four stages, as many as leave at least two positions a side. The same ``seed`` gives the same weights.
    """
    before, *sides = latent_shape
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in CHANNELS:
            if min(sides) < 4:
                break
            layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
            if len(layers) > 1:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
            before, sides = width, [side // 2 for side in sides]
        layers.append(nn.Conv2d(before, 1, 3, padding=1))
    return nn.Sequential(*layers)


def preserving(unlearn: Tensor, preserve: Tensor) -> Tensor:
    """The concept-preserving gradient (arXiv 2405.15304): ``unlearn`` less what works against ``preserve``.

    Where their inner product is negative, ``unlearn - (<unlearn, preserve> / |preserve|^2) preserve``, a true
    projection: a step against the result does not raise the preserved loss to first order. Else ``unlearn`` itself.
    """
    conflict = (unlearn * preserve).sum()
    if conflict >= 0:
        return unlearn
    return unlearn - conflict / preserve.square().sum() * preserve
