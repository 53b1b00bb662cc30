"""The node that attacks an erasure, for whoever made it."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..erasure_core import Conditioning
from ..erasure_core.audit.attacks import ATTACKS
from ..erasure_core.audit.red_team import attack, chosen_attacks, draw_concept
from ..erasure_core.concepts.parse import parse_prompts
from .comfy_host import recognisers
from .comfy_host.images import to_image, to_pictures
from .comfy_host.progress import progress
from .comfy_host.text_encoders import host_conditioning
from .comfy_host.toy import is_toy
from .comfy_host.trainable_model import trainable
from .input_checks import checked
from .inputs import CHECK, MODELS, audited_inputs, concept_inputs, judge_inputs, name_of_erased, seed_input
from .schema import advanced, schema

SWITCHES = ("derived", "inversion", "discrete", "noised")
MOST_SEEDS = 0xFFFFFFFF


class ErasureRedTeam(io.ComfyNode):
    """Attacks a MODEL from which a concept was erased with ``attack``, and returns what the attacks recover."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureRedTeam",
            display_name="Red-Team an Erasure",
            category=CHECK,
            is_experimental=True,  # never run on weights of Stable Diffusion
            search_aliases=("attack", "jailbreak", "adversarial", "audit", "robustness", "test erasure"),
            description="Audits your own erasure: attacks the model that should have forgotten, shows what brings the "
            "concept back, and at what cost. Writes nothing to disk. " + MODELS,
            inputs=[
                *audited_inputs(),
                io.Model.Input("erased_model", tooltip="The model to attack: what an erasing node returned."),
                *concept_inputs(),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    placeholder="More prompts to try, one a line. For example: the painter of sunflowers",
                    tooltip="Prompts to try, one a line: paraphrases, misspellings, other languages, descriptions that "
                    "do not name it.",
                ),
                *(advanced(io.Boolean.Input(name, default=True, tooltip=_about(ATTACKS[name]))) for name in SWITCHES),
                io.Int.Input("pictures", default=8, min=1, max=64, tooltip="How many each attack draws in the end."),
                io.Int.Input(
                    "steps",
                    default=200,
                    min=1,
                    max=100_000,
                    tooltip="Of inversion; discrete, whose steps are longer, takes a quarter. More find more.",
                ),
                advanced(
                    io.Float.Input(
                        "seconds",
                        default=0.0,
                        min=0.0,
                        max=1e6,
                        step=1.0,
                        tooltip="Stop each search after so many seconds; 0 for no limit.",
                    )
                ),
                advanced(
                    io.Int.Input("sampling_steps", default=20, min=1, max=999, tooltip="DDIM steps of each picture.")
                ),
                advanced(
                    io.Float.Input(
                        "guidance",
                        default=7.0,
                        min=0.0,
                        max=30.0,
                        step=0.1,
                        tooltip="How strongly prompts lead pictures.",
                    )
                ),
                seed_input(MOST_SEEDS, "The same seed gives the same attacks and pictures."),
                io.Clip.Input(
                    "erased_clip",
                    optional=True,
                    tooltip="The text encoder that the erasing node returned; few-shot changes it. The plain one if "
                    "not connected.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Some pictures of the concept, in the size that the model draws, for the attacks to learn "
                    "from. Without them the model without the erasure draws four.",
                ),
                *judge_inputs(),
                advanced(
                    io.Boolean.Input("finetune", optional=True, default=False, tooltip=_about(ATTACKS["finetune"]))
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="All attacks' pictures, with how many show the concept."),
                io.Image.Output(display_name="pictures", tooltip="The strongest attack's pictures."),
                io.Conditioning.Output(
                    display_name="adversarial", tooltip="The strongest attack's conditioning, for KSampler."
                ),
                io.String.Output(display_name="json", tooltip="Everything but the pictures."),
                io.String.Output(display_name="verdict", tooltip="One paragraph."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model, clip, vae, erased_model, concept, kind, prompts, pictures, steps, seconds, sampling_steps, guidance,
        seed, erased_clip=None, images=None, clip_vision=None, clip_judge=None, finetune=False, **switches,
    ):  # fmt: skip
        concept = name_of_erased(concept)
        prompt_list = parse_prompts(prompts, "prompts")
        switches["finetune"] = finetune
        attacks = [*(name for name, chosen in switches.items() if chosen), *(["list"] if prompt_list else [])]
        examples = None if images is None else to_pictures(images)
        chosen_attacks(attacks, prompt_list, examples, pictures, kind)
        settings = {"seed": seed, "sampling_steps": sampling_steps, "guidance": guidance}
        with (
            trainable(model, clip, vae) as before,
            trainable(erased_model, erased_clip or clip, vae) as after,
        ):
            recogniser = recognisers.recogniser(is_toy(model), clip_vision, clip_judge)
            if examples is None:
                examples = draw_concept(
                    before, concept, kind, recogniser, seed, sampling_steps, guidance, callback=progress()
                )
                before.forget()
            result = attack(
                before, after, concept, kind=kind, attacks=attacks, prompts=prompt_list, images=examples,
                recogniser=recogniser, pictures=pictures, steps=steps, seconds=seconds or None, callback=progress(),
                **settings,
            )  # fmt: skip
        best = result.strongest()
        best_images = best.images.movedim(1, -1).clamp(0, 1)
        conditioning = host_conditioning(_most_adversarial(result, best))
        sheet = to_image(result.picture())
        verdict = result.verdict()
        return io.NodeOutput(sheet, best_images, conditioning, result.as_json(), verdict, ui={"text": (verdict,)})


def _about(attack) -> str:
    return f"{attack.summary}. Needs {attack.knows}."


def _most_adversarial(result, best) -> Conditioning:
    """Return the conditioning of the attack's first picture that shows the concept, or else of its first."""
    recognised = result.shown[result.attempts.index(best)] if result.shown else ()
    place = recognised.index(True) if True in recognised else 0
    return best.conditioning[place : place + 1].to(torch.float32)
