"""What the settings of DoCo and AbO rest on: a minute for each concept, but ten and more for ``training``.

python tools/study.py discriminator noto
python tools/study.py focus cat car noto
python tools/study.py training noto

discriminator: DoCo's is taught on what the original model predicts under the anchor's captions (real) and under the
concept's (fake). Then, on states that it has not met: the cosine between the way it shows to a fake and the way to the
real one, and the share of right verdicts.

focus: pictures drawn by the guidance that AbO's loss aims at, that is by a model which has learned it perfectly.

training: how near AbO comes to that with fewer and more updates, judged as on the page results-learned.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from results import learned, single
from results.settings import INSTEAD, Bench, preserved, run
from torch import Tensor

from erasure_core import Concept
from erasure_core.drawing.table import table
from erasure_core.methods import METHODS
from erasure_core.methods.abo import TOY_ABO, focused
from erasure_core.methods.captions import captions_of, with_target
from erasure_core.methods.doco import NoisedBatch
from erasure_core.sampling.ddim import initial_latents, sample_latents, split_prediction, timesteps
from erasure_core.toy.evaluation import Gallery, captions_for, drift_outside, subject_of
from erasure_core.training.gan import (
    ConditionalDiscriminator,
    adversarial_loss,
    discriminator_loss,
    patch_discriminator,
)
from erasure_core.training.loop import descend

STATES, TAUGHT, BATCH, PART, ANCHORS = 384, 256, 32, 32, 64
RATE = 1e-3
UPDATES = 100
PICTURES, SEED, STEPS, GUIDANCE = 16, 100, 15, 3.0
DISCRIMINATORS = {
    "batch norm, both sides apart": {"batch_norm": True},
    "no norm": {},
    "no norm, conditional": {"conditional": True},
    "no norm, conditional, penalty 0.1": {"conditional": True, "penalty": 0.1},
    "no norm, conditional, penalty 0.5": {"conditional": True, "penalty": 0.5},
    "no norm, penalty 0.5": {"penalty": 0.5},
}
FOCUS = (0.0, 0.25, 0.5, 1.0)
TRAININGS = ((0.25, 120), (0.25, 360), (0.1, 360), (0.0, 240), (0.0, 360))  # focus and steps


class States:
    """Noised pictures of the anchor, and what the model predicts under both captions."""

    def __init__(self, model, concept: Concept):
        kind, generator = subject_of(concept).kind, torch.Generator().manual_seed(0)
        named = captions_of(kind, concept, ANCHORS, generator)
        shown = [with_target(caption, concept) for caption in named]
        self.anchor, own = (model.encode_prompts(texts).detach() for texts in (shown, named))
        clean = sample_latents(model, shown, range(ANCHORS))
        self.place = torch.arange(STATES) % ANCHORS
        times = torch.randint(len(model.alphas_cumprod), (STATES,), generator=generator)
        self.alphas, noise = model.alphas_cumprod[times], torch.randn(STATES, *clean.shape[1:], generator=generator)
        batches = {
            part: NoisedBatch(
                model.prediction_type, clean[self.place[part]], noise[part], times[part], self.alphas[part]
            )
            for part in torch.arange(STATES).split(PART)
        }
        self.latents = torch.cat([batch.latents for batch in batches.values()])
        with torch.no_grad():
            self.real, self.fake = (
                torch.cat([batch.predicted(model, text[self.place[part]]) for part, batch in batches.items()])
                for text in (self.anchor, own)
            )

    def verdict(self, discriminator: torch.nn.Module, which: Tensor) -> Callable[[Tensor], Tensor]:
        if isinstance(discriminator, torch.nn.Sequential):
            return discriminator
        captions = self.anchor[self.place[which]]
        return lambda clean: discriminator(clean, self.latents[which], self.alphas[which], captions)


def discriminators(bench: Bench, concept: Concept) -> Iterator[list[str]]:
    states = States(bench.model, concept)
    for name, settings in DISCRIMINATORS.items():
        yield [name, *_shown(states, _taught(states, **settings))]


def _taught(states: States, batch_norm=False, conditional=False, penalty=0.0) -> torch.nn.Module:
    shape, generator = states.real.shape[1:], torch.Generator().manual_seed(1)
    if conditional:
        width = states.anchor.context.shape[-1]
        discriminator = ConditionalDiscriminator(shape, 0, width, batch_norm=batch_norm)
    else:
        discriminator = patch_discriminator(shape, 0, batch_norm=batch_norm)
    parameters = list(discriminator.parameters())
    optimiser = torch.optim.Adam(parameters, RATE, betas=(0.5, 0.999))
    for _ in range(UPDATES):
        which = torch.randint(TAUGHT, (BATCH,), generator=generator)
        verdict = states.verdict(discriminator, which)
        with torch.enable_grad():
            loss = discriminator_loss(verdict, states.real[which], states.fake[which], penalty)
            descend(loss, parameters, optimiser)
    return discriminator


def _shown(states: States, discriminator: torch.nn.Module) -> list[str]:
    which = torch.arange(TAUGHT, STATES)
    verdict, real = states.verdict(discriminator, which), states.real[which]
    fake = states.fake[which].clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(adversarial_loss(verdict, fake), fake)
    with torch.no_grad():
        right = (float((verdict(real) < 0).float().mean()) + float((verdict(fake) > 0).float().mean())) / 2
        cosine = F.cosine_similarity(-slope.flatten(1), (real - fake).flatten(1)).mean()
    return [f"{float(cosine):.2f}", f"{100 * right:.0f}"]


@torch.no_grad()
def drawn(model, prompts: list[str], others: list[str], focus: float | None) -> Tensor:
    """Pictures by the guidance of ``prompts``, or with a ``focus`` by what AbO makes of both."""
    count, alphas = len(prompts), model.alphas_cumprod
    own, other = (model.encode_prompts(texts) for texts in (prompts, others))
    empty = model.encode_prompts([""]).expand(count)
    latents = initial_latents(model, [SEED * 1_000_003 + place for place in range(count)])
    for time in timesteps(len(alphas), STEPS):
        at = torch.full((count,), time)
        score, guide = (model.predict_noise(latents, at, text) for text in (empty, own))
        guide = guide - score
        if focus is not None:
            guide = focused(guide, model.predict_noise(latents, at, other) - score, focus)
        output = score + GUIDANCE * guide
        clean, noise = split_prediction(model.prediction_type, output, latents, float(alphas[time]))
        ahead = float(alphas[max(time - len(alphas) // STEPS, 0)])
        latents = ahead**0.5 * clean + (1 - ahead) ** 0.5 * noise
    return model.decode_latents(latents).float()


def goals(bench: Bench, concept: Concept) -> Iterator[list[str]]:
    model, judge, subject = bench.model, bench.judge, subject_of(concept)
    captions = captions_for(subject, PICTURES, 0, SEED)
    prompts = [str(caption) for caption in captions]
    others = [with_target(prompt, concept) for prompt in prompts]
    before = Gallery(tuple(captions), images := drawn(model, prompts, others, None), judge.judge(images))
    for focus in FOCUS:
        images = drawn(model, prompts, others, focus)
        after = Gallery(tuple(captions), images, judge.judge(images))
        names = getattr(after.verdict, f"{subject.kind}s")
        shares = [100 * (1 - names.count(concept.name) / PICTURES), 100 * names.count(concept.instead) / PICTURES]
        outside = 100 * drift_outside(before, after, subject)
        yield [f"{concept}, focus {focus:g}", *(f"{share:.0f}" for share in shares), f"{outside:.1f}"]


def trainings(bench: Bench, concept: Concept) -> Iterator[list[str]]:
    prompts = preserved(learned.VARIANTS["abo"], concept)
    was, before = single.unedited(bench, concept.name)
    for focus, steps in TRAININGS:
        settings = replace(TOY_ABO[was.subject.kind], focus=focus, steps=steps)
        erasure = run(bench.model, METHODS["abo"], concept, settings, prompts, seed=0)
        now, after = single.drawn(bench, concept.name, erasure)
        outside = drift_outside(before, after, was.subject)
        shares = (f"{100 * now.ua:.0f}", f"{100 * (now.ira - was.ira):+.0f}", f"{100 * outside:.1f}")
        yield [f"{concept}, focus {focus:g}, {steps} steps", *shares]


STUDIES = {
    "discriminator": (discriminators, ("cosine", "right")),
    "focus": (goals, ("UA", "the alternative", "outside")),
    "training": (trainings, ("UA", "IRA", "outside")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(STUDIES))
    parser.add_argument("concepts", nargs="+")
    args = parser.parse_args()
    bench = Bench(Path("build/study"))
    study, columns = STUDIES[args.what]
    for name in args.concepts:
        concept, lines = Concept(name, INSTEAD[name]), []
        for line in study(bench, concept):
            print(line, flush=True)
            lines.append(line)
        print(table((str(concept), *columns), lines), flush=True)


if __name__ == "__main__":
    main()
