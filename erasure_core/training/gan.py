"""The adversarial parts of DoCo: a PatchGAN discriminator (arXiv 1611.07004), its loss, the loss of the edited model
against it, and the concept-preserving gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512)
ANCHOR, TARGET = 0.0, 1.0  # the discriminator's labels


def patch_discriminator(latent_shape: Sequence[int], seed: int) -> nn.Sequential:
    """Return a discriminator that maps latents ``[n, c, h, w]`` to logits of patches ``[n, 1, h', w']``.

    ``latent_shape`` is ``(c, h, w)``. The discriminator has up to four stages of 4x4 convolutions with stride two and
    64 to 512 channels, as many as leave at least two positions on each side; large latents get all four, as published.
    The same ``seed`` gives the same weights.
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


def adversarial_loss(discriminator: nn.Module, fake: Tensor) -> Tensor:
    """Return the loss of the edited model: cross entropy of the discriminator's verdict on ``fake`` with "anchor"."""
    logits = discriminator(fake)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, ANCHOR))


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the loss of the discriminator: binary cross entropy over ``real`` (anchor) and ``fake`` (target)."""
    logits = discriminator(torch.cat([real, fake]))
    labels = torch.full_like(logits, ANCHOR)
    labels[len(real) :] = TARGET
    return F.binary_cross_entropy_with_logits(logits, labels)


def preserving(unlearn: Tensor, preserve: Tensor) -> Tensor:
    """Return the concept-preserving gradient of DoCo (arXiv 2405.15304) for one parameter.

    ``unlearn`` and ``preserve`` are the gradients of the two losses, of one shape. If their inner product is negative,
    the result is ``unlearn - (<unlearn, preserve> / |preserve|^2) preserve``, a true projection, so that a step does
    not raise the preserved loss to first order. Otherwise it is ``unlearn``.
    """
    conflict = (unlearn * preserve).sum()
    if conflict >= 0:
        return unlearn
    return unlearn - conflict / preserve.square().sum() * preserve
