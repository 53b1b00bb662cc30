"""Third stage: the UNet learns to denoise latents under frozen contexts (v-prediction, SD's schedule)."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from toy_data import pictures
from toy_optim import Both
from toy_run import Run
from toy_text import Wordings

from erasure_core.toy.captions import COLOURS, OBJECTS, STYLES, Caption, sample_captions
from erasure_core.toy.config import SCHEDULE, UNET

BATCH, VARIANTS = 64, 6


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(**UNET).to(memory_format=torch.channels_last)


@torch.no_grad()
def latents(vae: AutoencoderTiny, drawings: torch.Tensor, seed: int) -> torch.Tensor:
    """``[objects, styles, colours, variants, 16, 8, 8]`` of augmented pictures, in half precision."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.empty(len(OBJECTS), len(STYLES), len(COLOURS), VARIANTS, 16, 8, 8, dtype=torch.half)
    for thing in range(len(OBJECTS)):
        for style in range(len(STYLES)):
            colours = torch.arange(len(COLOURS)).repeat_interleave(VARIANTS)
            sprite = drawings[thing, style].float().expand(len(colours), -1, -1, -1)
            z = vae.encoder(2 * pictures(sprite, colours, generator) - 1)
            out[thing, style] = z.half().reshape(len(COLOURS), VARIANTS, 16, 8, 8)
    return out


class Examples:
    """Latents with a caption that names all, some or nothing of what they show."""

    def __init__(self, store: torch.Tensor, words: Wordings):
        self.store, self.flat, self.rows = store, store.flatten(0, 3), {}
        for index, caption in enumerate(words.captions):
            self.rows.setdefault(caption, []).append(index)
        self.plain = {caption: words.texts.index(str(caption)) for caption in (Caption(),)}
        self.texts = {text: index for index, text in enumerate(words.texts)}

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents ``[count, 16, 8, 8]`` and the rows of their contexts."""
        which = torch.randint(0, len(self.flat), (count,), generator=generator)
        chance = torch.rand(count, 5, generator=generator).tolist()
        rows = [self._row(int(index), c) for index, c in zip(which, chance, strict=True)]
        return self.flat[which].float(), torch.tensor(rows)

    def _row(self, index: int, chance: list[float]) -> int:
        index //= VARIANTS
        index, colour = divmod(index, len(COLOURS))
        thing, style = divmod(index, len(STYLES))
        if chance[0] < 0.1:
            return self.plain[Caption()]
        caption = Caption(
            None if chance[1] < 0.03 else OBJECTS[thing],
            None if chance[2] < 0.1 else STYLES[style],
            None if chance[3] < 0.1 else tuple(COLOURS)[colour],
        )
        if chance[4] < 0.6:
            return self.texts[str(caption)]
        rows = self.rows[caption]
        return rows[int((chance[4] - 0.6) / 0.4 * len(rows))]


@torch.no_grad()
def sample(
    unet,
    vae,
    context: torch.Tensor,
    empty: torch.Tensor,
    steps: int = 15,
    guidance: float = 3.0,
    seed: int = 0,
):
    """Pictures ``[n, 3, 64, 64]`` in 0 to 1 by DDIM."""
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    x = torch.randn(len(context), 16, 8, 8, generator=torch.Generator().manual_seed(seed))
    both = torch.cat([empty.expand_as(context), context])
    for t in scheduler.timesteps:
        low, high = unet(torch.cat([x, x]), t, both).sample.chunk(2)
        x = scheduler.step(low + guidance * (high - low), t, x).prev_sample
    return (vae.decoder(x) / 2 + 0.5).clamp(0, 1)


def sheet(images: torch.Tensor, path, columns: int = 16) -> None:
    rows = [torch.cat(list(row), -1) for row in images.split(columns)]
    grid = (torch.cat(rows, -2).permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(grid).save(path)


def train(run: Run, examples: Examples, context: torch.Tensor, vae, steps: int, sheets) -> UNet2DConditionModel:
    unet = new_unet()
    optimiser = Both(unet.named_parameters(), 1.5e-3, ("conv_in", "conv_out", "time_embedding"))
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod
    wanted = sample_captions(64, seed=5)
    shown = torch.tensor([examples.texts[str(caption)] for caption in wanted])
    empty = context[examples.plain[Caption()]].float()[None]
    losses: list[float] = []
    for step in run.steps("unet", unet, optimiser, steps, ema=0.9985):
        x0, rows = examples.draw(BATCH, run.generator)
        t = torch.randint(0, 1000, (BATCH,), generator=run.generator)
        noise = torch.randn(x0.shape, generator=run.generator)
        a, s = (f[:, None, None, None] for f in (alphas[t].sqrt(), (1 - alphas[t]).sqrt()))
        x = (a * x0 + s * noise).contiguous(memory_format=torch.channels_last)
        loss = (unet(x, t, context[rows].float()).sample - (a * noise - s * x0)).square().mean()
        loss.backward()
        optimiser.step(step / steps)
        losses.append(float(loss.detach()))
        if step % 200 == 0:
            run.log(step=step, samples=step * BATCH, loss=sum(losses) / len(losses))
            losses.clear()
        if step % 500 == 0:
            averaged = run.averaged(unet)
            sheet(sample(averaged, vae, context[shown].float(), empty), sheets / f"unet-{step:05}.png")
    run.finish("unet", unet)
    return unet.eval()
