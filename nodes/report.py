"""The node that measures what an erasure did."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io

from ..erasure_core.audit.report import Pictures, summarise
from ..erasure_core.audit.report_prompts import MOST, report_prompts
from ..erasure_core.audit.report_sheet import report_sheet
from ..erasure_core.closed_form.regeneration import regeneration_error
from ..erasure_core.concepts.common import not_among, sharing_no_word
from ..erasure_core.concepts.parse import parse_prompts
from ..erasure_core.toy.known_concepts import known_concepts
from .comfy_host.erasures_of_model import erasures_of
from .comfy_host.images import to_image
from .comfy_host.model import ComfyModel
from .comfy_host.progress import progress
from .comfy_host.recognisers import recogniser
from .comfy_host.sampling import Sampling, draw_both
from .comfy_host.toy import is_toy
from .input_checks import checked
from .inputs import CHECK, MODELS, audited_inputs, concept_inputs, judge_inputs, name_of_erased
from .sampler_inputs import sampler_inputs
from .schema import advanced, schema

log = logging.getLogger(__name__)


class ErasureReport(io.ComfyNode):
    """Draws pictures before and after an erasure, and measures how they differ with ``summarise``."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureReport",
            display_name="Report on an Erasure",
            category=CHECK,
            search_aliases=("evaluate", "measure", "test erasure", "before and after", "score"),
            description="Measures what an erasure does to its concept, to the concepts nearest to it in the text "
            "encoder, and to far ones, on pictures from the same noise before and after. " + MODELS,
            inputs=[
                *audited_inputs(),
                io.Model.Input("erased_model", tooltip="What an erasing node returned."),
                io.Latent.Input(
                    "latent",
                    tooltip="An empty latent image: its size is that of the pictures, its batch how many a prompt.",
                ),
                *concept_inputs(),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    placeholder="More prompts that ask for it, one a line. For example: sunflowers by van gogh",
                    tooltip="More prompts that ask for the concept, one a line. Brackets are text and set no weights.",
                ),
                advanced(
                    io.Int.Input(
                        "neighbours",
                        default=6,
                        min=1,
                        max=MOST,
                        tooltip="How many near concepts, and how many far ones.",
                    )
                ),
                *sampler_inputs("The noise that all pictures begin with, as KSampler draws it."),
                io.Clip.Input(
                    "erased_clip", optional=True, tooltip="The erased text encoder; the plain one if not connected."
                ),
                *judge_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="report", tooltip="Bars, the verdict and a line for each prompt."),
                io.String.Output(display_name="json", tooltip="All numbers."),
                io.String.Output(display_name="verdict", tooltip="One paragraph."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model, clip, vae, erased_model, latent, concept, kind, prompts, neighbours, seed, steps, cfg, sampler_name,
        scheduler, erased_clip=None, clip_vision=None, clip_judge=None,
    ):  # fmt: skip
        name, reader = name_of_erased(concept), ComfyModel(model, clip)
        toy = is_toy(model)
        judge = recogniser(toy, clip_vision, clip_judge)
        carriers = [erased_model, *([erased_clip.patcher] if erased_clip else [])]
        erased = [one for each in carriers for erasure in erasures_of(each) for one in erasure.concepts]
        problem = not_among(name, erased)
        if problem:
            log.warning("%s, unless it was erased elsewhere.", problem)
        among = sharing_no_word(erased, known_concepts(toy))
        all_prompts = report_prompts(
            reader, name, kind, among=among, count=neighbours, more=parse_prompts(prompts, "prompts")
        )
        sampling = Sampling(seed, steps, cfg, sampler_name, scheduler)
        advance = _counter(2 * len(all_prompts))

        def draw_all(one, encoder) -> Pictures:
            pairs = []
            for one_prompt in all_prompts:
                advance()
                pairs.append(draw_both(one, encoder, vae, one_prompt.prompt, "", latent, sampling))
            images, latents = zip(*pairs, strict=True)
            return Pictures(torch.cat(images), torch.cat(latents))

        before, after = draw_all(model, clip), draw_all(erased_model, erased_clip or clip)
        settings = {"seed": seed, "steps": steps, "cfg": cfg, "sampler_name": sampler_name, "scheduler": scheduler}
        added = [one for each in carriers for one in erasures_of(each)][len(erasures_of(model)) :]
        left = regeneration_error(reader, added, name)
        result = summarise(name, all_prompts, before, after, judge, {**settings, "kind": kind}, left)
        verdict = result.verdict()
        return io.NodeOutput(to_image(report_sheet(result)), result.as_json(), verdict, ui={"text": (verdict,)})


def _counter(total: int):
    report, done = progress(), 0

    def advance() -> None:
        nonlocal done
        report(done, total, "sampling")
        done += 1

    return advance
