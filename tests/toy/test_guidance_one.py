"""Guidance 1, as turbo, LCM and distilled models are sampled: an erasure works, a negative prompt does nothing."""

from __future__ import annotations

import pytest
import torch

from erasure_core import rece
from erasure_core.sampling.ddim import generate
from erasure_core.toy import Judge
from erasure_core.toy.evaluation import Gallery, Subject, captions_for, score

EACH = 12


def share_gone(judge: Judge, captions: list, images: torch.Tensor, subject: Subject) -> float:
    return score(Gallery(tuple(captions), images, judge.judge(images)), subject).ua


@pytest.mark.usefixtures("untouched")
def test_an_erasure_works_at_guidance_1_where_a_negative_prompt_does_nothing(toy, judge: Judge) -> None:
    subject = Subject("object", "cat")
    captions = captions_for(subject, EACH, 1, 0)[:EACH]
    prompts, seeds = [str(caption) for caption in captions], list(range(EACH))
    plain = generate(toy, prompts, seeds, guidance=1.0)
    assert torch.equal(generate(toy, prompts, seeds, guidance=1.0, negative="cat"), plain)
    with rece(toy, "cat").applied_to(toy):
        erased = generate(toy, prompts, seeds, guidance=1.0)
    assert share_gone(judge, captions, plain, subject) <= 0.5
    assert share_gone(judge, captions, erased, subject) >= 0.9
