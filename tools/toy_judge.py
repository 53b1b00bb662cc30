"""Fourth stage: the judge learns from real renders, half of them passed through the autoencoder."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from toy_data import pictures
from toy_run import Run

from erasure_core.toy.judge import Judge

BATCH, POOL, RENEWED = 64, 60, 6


def draw(vae, drawings: torch.Tensor, count: int, generator: torch.Generator, through: float):
    """Pictures and their three labels; the share ``through`` of them has passed the autoencoder."""
    things, styles = drawings.shape[:2]
    which = torch.randint(0, things * styles, (count,), generator=generator)
    colours = torch.randint(0, 8, (count,), generator=generator)
    images = pictures(drawings.flatten(0, 1)[which].float(), colours, generator)
    passed = int(through * count)
    if passed:
        with torch.no_grad():
            z = vae.encoder(2 * images[:passed] - 1)
            z = z + 0.15 * torch.rand(passed, 1, 1, 1, generator=generator) * torch.randn(z.shape, generator=generator)
            images[:passed] = (vae.decoder(z) / 2 + 0.5).clamp(0, 1)
    return images, (which // styles, which % styles, colours)


def train(run: Run, drawings: torch.Tensor, vae, steps: int) -> Judge:
    """Half of each batch has passed the autoencoder; a pool of batches is renewed as it goes, to save drawing."""
    judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
    pool = [draw(vae, drawings, BATCH, run.generator, through=0.5) for _ in range(POOL)]
    for step in run.steps("judge", judge, optimiser, steps):
        if step % RENEWED == 0:
            pool[step // RENEWED % POOL] = draw(vae, drawings, BATCH, run.generator, through=0.5)
        images, labels = pool[int(torch.randint(0, POOL, (1,), generator=run.generator))]
        noisy = images + 0.03 * torch.randn_like(images)
        loss = sum(F.cross_entropy(out, label) for out, label in zip(judge(noisy), labels, strict=True))
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate(step / steps)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 0:
            run.log(step=step, loss=float(loss.detach()))
    run.finish("judge", judge)
    judge.eval()
    for name, through in (("raw", 0.0), ("through the autoencoder", 1.0)):
        run.log(pictures=name, right=accuracy(judge, draw(vae, drawings, 1024, run.generator, through)))
    return judge


def rate(fraction: float) -> float:
    """The learning rate when ``fraction`` of the training is done: up over a tenth, then a cosine to zero."""
    return 3e-3 * min(1.0, fraction / 0.1) * 0.5 * (1 + math.cos(math.pi * fraction))


@torch.no_grad()
def accuracy(judge: Judge, batch) -> list[float]:
    """Shares of objects, styles and colours that are named rightly."""
    images, labels = batch
    return [
        round(float((out.argmax(-1) == label).float().mean()), 4)
        for out, label in zip(judge(images), labels, strict=True)
    ]
