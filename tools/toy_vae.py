"""First stage: the autoencoder (TAESD layout, 16 latent channels). The encoder is principal components, in closed form;
only the decoder learns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import toy_pca
from diffusers import AutoencoderTiny
from toy_data import pictures
from toy_optim import Both
from toy_run import Run

from erasure_core.toy.config import VAE

DECODER_NOISE = 0.06
BATCH = 8


def new_vae() -> AutoencoderTiny:
    """He's initialisation, each residual branch starting at a quarter, so that a signal passes at once."""
    vae = AutoencoderTiny(**VAE)
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
            if name.endswith("conv.4"):
                module.weight.data.mul_(0.25)
    last = vae.decoder.layers[-1]
    last.weight.data.mul_(0.1)
    last.bias.data.fill_(0.5)
    return vae.to(memory_format=torch.channels_last)


def draw(drawings: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    flat = drawings.flatten(0, 1)
    which = torch.randint(0, len(flat), (count,), generator=generator)
    colours = torch.randint(0, 8, (count,), generator=generator)
    return pictures(flat[which].float(), colours, generator, flip=True).contiguous(memory_format=torch.channels_last)


def _edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def loss_of(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``output`` in -1 to 1 as diffusers decodes it, ``x`` in 0 to 1."""
    y = output / 2 + 0.5
    edges = sum(F.l1_loss(a, b) for a, b in zip(_edges(y), _edges(x), strict=True))
    return 0.3 * F.l1_loss(y, x) + 4 * F.mse_loss(y, x) + 0.3 * edges


@torch.no_grad()
def psnr(vae: AutoencoderTiny, drawings: torch.Tensor) -> float:
    """Mean over 192 pictures of the peak signal-to-noise ratio in dB; both sides clamped to 0..1."""
    x = draw(drawings, 192, torch.Generator().manual_seed(10_000))
    y = (vae.decoder(vae.encoder(2 * x - 1)) / 2 + 0.5).clamp(0, 1)
    return float((-10 * torch.log10(((y - x) ** 2).mean((1, 2, 3)))).mean())


def train(run: Run, drawings: torch.Tensor, steps: int) -> AutoencoderTiny:
    """The encoder at once, in closed form; then ``steps`` of the decoder; resumes where it stopped."""
    vae = with_encoder(run, drawings)
    vae.encoder.requires_grad_(False)
    optimiser = Both(vae.decoder.named_parameters(), 1.5e-3, outer=("",))
    for step in run.steps("vae", vae, optimiser, steps, ema=0.998):
        x = draw(drawings, BATCH, run.generator)
        with torch.no_grad():
            z = vae.encoder(2 * x - 1)
            z = z + DECODER_NOISE * torch.rand(len(z), 1, 1, 1) * torch.randn_like(z)
        loss = loss_of(vae.decoder(z), x)
        loss.backward()
        optimiser.step(step / steps, clip=1.0)
        if step % 100 == 0:
            run.log(step=step, loss=float(loss.detach()), psnr=psnr(run.averaged(vae), drawings))
    run.finish("vae", vae)
    return vae


def with_encoder(run: Run, drawings: torch.Tensor) -> AutoencoderTiny:
    """A new autoencoder whose encoder is principal components of the pictures."""
    torch.manual_seed(run.seed)
    vae = new_vae()
    with torch.no_grad():
        toy_pca.write_encoder(vae, draw(drawings, 768, torch.Generator().manual_seed(20_000)))
    return vae


def frozen(run: Run, drawings: torch.Tensor) -> AutoencoderTiny:
    """What there is so far: the finished autoencoder, else the one whose decoder still learns."""
    if not (run.done("vae") or run.begun("vae")):
        return with_encoder(run, drawings).eval().requires_grad_(False)
    vae = new_vae()
    vae.load_state_dict(run.load("vae") if run.done("vae") else run.average("vae"))
    return vae.eval().requires_grad_(False)
