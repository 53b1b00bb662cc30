"""The adversarial parts of DoCo: a PatchGAN discriminator (arXiv 1611.07004), its loss, the loss of the edited model
against it, and the concept-preserving gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conditioning import Conditioning

CHANNELS = (64, 128, 256, 512)
TEXT_PLANES = 16  # in which a conditional discriminator reads a caption
ANCHOR, TARGET = 0.0, 1.0  # the discriminator's labels
Verdict = Callable[[Tensor], Tensor]
"""A function from clean latents ``[n, c, h, w]`` to a discriminator's logits of their patches."""


def patch_discriminator(latent_shape: Sequence[int], seed: int, *, batch_norm: bool = True) -> nn.Sequential:
    """Return a discriminator that maps latents ``[n, c, h, w]`` to logits of patches ``[n, 1, h', w']``.

    ``latent_shape`` is ``(c, h, w)``. The discriminator has up to four stages of 4x4 convolutions with stride two and
    64 to 512 channels, as many as leave at least two positions on each side; large latents get all four, as published.
    All but the first have batch norm, unless ``batch_norm`` is false. The same ``seed`` gives the same weights.
    """
    before, *sides = latent_shape
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in CHANNELS:
            if min(sides) < 4:
                break
            layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
            if len(layers) > 1 and batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
            before, sides = width, [side // 2 for side in sides]
        layers.append(nn.Conv2d(before, 1, 3, padding=1))
    return nn.Sequential(*layers)


class ConditionalDiscriminator(nn.Module):
    """A discriminator that also reads what the clean latents were predicted from (conditional GAN, arXiv 1411.1784).

    That is the noised latents, how much noise is in them, and the caption, whose rows are ``text_width`` wide. The
    other arguments are those of ``patch_discriminator``.
    """

    def __init__(self, latent_shape: Sequence[int], seed: int, text_width: int, *, batch_norm: bool = True):
        super().__init__()
        channels, *sides = latent_shape
        self.patches = patch_discriminator((2 * channels + 1 + TEXT_PLANES, *sides), seed, batch_norm=batch_norm)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text = nn.Linear(text_width, TEXT_PLANES)

    def forward(self, clean: Tensor, latents: Tensor, alphas: Tensor, captions: Conditioning) -> Tensor:
        """Return the logits for ``clean``, which were predicted of the noised ``latents``, ``[n, c, h, w]`` as well.

        ``alphas`` ``[n]`` are the shares of the signal in these, and ``captions`` those of the anchor.
        """
        noise = (1 - alphas.to(clean)).sqrt()[:, None]
        planes = torch.cat([noise, self.text(captions.context.to(clean).mean(1))], 1)
        planes = planes[:, :, None, None].expand(-1, -1, *clean.shape[2:])
        return self.patches(torch.cat([clean, latents, planes], 1))


def adversarial_loss(verdict: Verdict, fake: Tensor) -> Tensor:
    """Return the loss of the edited model: cross entropy of the discriminator's verdict on ``fake`` with "anchor"."""
    return _cross_entropy(verdict(fake), ANCHOR)


def discriminator_loss(verdict: Verdict, real: Tensor, fake: Tensor, gradient_penalty: float = 0.0) -> Tensor:
    """Return the loss of the discriminator: binary cross entropy over ``real`` (anchor) and ``fake`` (target).

    Each side passes on its own, so that batch norm does not mix them: the edited model is judged by a pass of its own
    side alone, too. ``gradient_penalty``, at least 0, times the mean square of the slope of the logits of each of
    ``real`` is added (R1, arXiv 1801.04406); by default nothing is.
    """
    if not gradient_penalty:
        return (_cross_entropy(verdict(real), ANCHOR) + _cross_entropy(verdict(fake), TARGET)) / 2
    real = real.detach().requires_grad_()
    logits = verdict(real)
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    loss = (_cross_entropy(logits, ANCHOR) + _cross_entropy(verdict(fake), TARGET)) / 2
    return loss + gradient_penalty * slope.square().sum((1, 2, 3)).mean()


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def clipped(gradients: Sequence[Tensor], most: float) -> list[Tensor]:
    """Return the gradients of all parameters, scaled down together where their common norm is above ``most``."""
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    return [gradient * (most / norm).clamp(max=1) for gradient in gradients] if norm > 0 else list(gradients)


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
