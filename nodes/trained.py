"""The nodes whose methods train: few-shot, DoCo and AbO."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..erasure_core.concepts.name_lists import kind_of
from ..erasure_core.concepts.parse import parse_concepts
from ..erasure_core.concepts.templates import wordings
from ..erasure_core.drawing.loss_curve import loss_curve
from ..erasure_core.methods import METHODS
from ..erasure_core.methods.abo import SCOPES, abo
from ..erasure_core.methods.doco import doco
from ..erasure_core.methods.few_shot import few_shot
from ..erasure_core.methods.inputs import DRAWN, TEXT_ENCODERS, GradientCheckpointing
from ..erasure_core.toy.captions import STYLES
from .comfy_host.images import to_image, to_pictures
from .comfy_host.patches import apply_erasure
from .comfy_host.toy import is_toy
from .comfy_host.trainable_model import trainable
from .comfy_host.training_progress import TrainingProgress
from .input_checks import checked
from .inputs import (
    ERASE,
    MODELS,
    NO_LIST,
    Erasure,
    concepts_verdict,
    preserve_common_input,
    preserve_input,
    preserve_list_input,
    preserved,
    seed_input,
    setting_input,
    strength_input,
)
from .schema import BY_TRAINING, Choices, advanced, completed, schema

AUTO = "auto"
TOY = " (toy)"  # the end of presets in earlier versions, which had own ones for the toy model
MOST_SEEDS = 0xFFFFFFFF


class ErasureFewShot(io.ComfyNode):
    """Trains the text encoder with ``few_shot``, and applies the result to clones of MODEL and CLIP."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureFewShot",
            display_name="Erase a Concept (Few-Shot)",
            category=ERASE,
            is_experimental=True,  # never run on weights of Stable Diffusion
            search_aliases=(*BY_TRAINING, "few-shot", "fine-tune", "train", "ESD"),
            description="Trains the text encoder until prompts that name a concept give what prompts with its "
            f"replacement gave, or without a replacement something else, on a few pictures of it. {MODELS}",
            inputs=[
                *_model_and_clip("read"),
                _concept(
                    "For example: van gogh -> monet",
                    "What to erase; after '->' what prompts should give instead, without it something else. The "
                    "published presets take no '->'.",
                ),
                *_training("few_shot"),
                advanced(
                    io.Float.Input(
                        "growth",
                        default=0.0,
                        min=0.0,
                        max=1e6,
                        step=0.1,
                        tooltip="Training ends early once the model's error on the pictures has grown so many times; 0 "
                        "for the preset's. Higher erases more and harms more.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "towers",
                        options=list(TEXT_ENCODERS),
                        optional=True,
                        tooltip="Which text encoder to train where the model has two (SDXL), by its name in diffusers: "
                        "text_encoder is CLIP-L, text_encoder_2 is the larger one.",
                    )
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="The model's autoencoder; needed when pictures are connected."
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Pictures of the concept, as a batch, in the size that the model draws. Without them the "
                    f"model draws {DRAWN} itself, each with its caption. Only with a published preset noise takes "
                    "their place.",
                ),
                io.String.Input(
                    "captions",
                    multiline=True,
                    default="",
                    placeholder="What each picture shows, one a line",
                    optional=True,
                    tooltip="What each picture shows, one a line, in their order, with the concept's name in it. "
                    "Without pictures: what the model draws of the concept, in turn.",
                ),
                preserve_input(optional=True),
                preserve_common_input(optional=True),
                preserve_list_input(),
            ],
            outputs=_outputs("The model; few-shot does not change it.", "A copy of the text encoder that lost it."),
        )

    @classmethod
    def validate_inputs(cls, concept=None):
        return concepts_verdict(concept, "concept")

    @classmethod
    @checked
    def execute(
        cls, model, clip, concept, preset, steps, learning_rate, growth=0.0, towers=TEXT_ENCODERS[0], vae=None,
        images=None, captions="", preserve="", preserve_common=True, preserve_list=NO_LIST, **training,
    ):  # fmt: skip
        parsed = parse_concepts(concept, "concept")
        settings = _settings("few_shot", preset, parsed, model, steps=steps, learning_rate=learning_rate, growth=growth)
        prompts = preserved(parsed, preserve, preserve_common, preserve_list)
        texts = _lines(captions)

        def learn(training_model, **more):
            drawn = None if settings.objective == "ascent" and not texts else max(DRAWN, len(texts))
            pictures = drawn if images is None else to_pictures(images)
            return few_shot(
                training_model, parsed, settings, images=pictures, captions=texts, preserve=prompts, towers=towers,
                **more,
            )  # fmt: skip

        return _train_and_apply(learn, parsed, settings, model, clip, vae, **training)


class ErasureDoCo(io.ComfyNode):
    """Trains cross-attention with ``doco``, and applies the result to clones of MODEL and CLIP."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureDoCo",
            display_name="Erase a Concept (DoCo)",
            category=ERASE,
            is_experimental=True,  # never run on weights of Stable Diffusion
            search_aliases=(*BY_TRAINING, "DoCo", "fine-tune", "train", "ESD", "LECO", "concept ablation", "anchor"),
            description="Trains cross-attention against a discriminator until prompts of a concept pass for an "
            f"anchor's, a harmless class, while the anchor itself and preserved prompts are held. {MODELS}",
            inputs=[
                *_model_and_clip("changed"),
                _concept(
                    "For example: parachute -> airplane",
                    "What to erase, '->', and the anchor that its prompts should give. A style may have no anchor: "
                    "its prompts then give what they would without the style's name.",
                ),
                *_training("doco"),
                io.Latent.Input(
                    "anchors",
                    optional=True,
                    tooltip="Pictures of the anchor, as latents, a batch of some dozens. Without them the model draws "
                    "them itself before it trains.",
                ),
                io.String.Input(
                    "captions",
                    multiline=True,
                    default="",
                    placeholder="a parachute over a lake",
                    optional=True,
                    tooltip="What each of the anchor's pictures shows, one a line, in their order, with the name of "
                    "the concept in place of the anchor's. Without pictures: what the model draws, in turn.",
                ),
                preserve_input(optional=True),
                preserve_common_input(optional=True),
                preserve_list_input(),
            ],
            outputs=_outputs("A copy of the model without it.", "The text encoder; DoCo does not change it."),
        )

    @classmethod
    def validate_inputs(cls, concept=None):
        return concepts_verdict(concept, "concept")

    @classmethod
    @checked
    def execute(
        cls, model, clip, concept, preset, steps, learning_rate, anchors=None, captions="", preserve="",
        preserve_common=True, preserve_list=NO_LIST, **training,
    ):  # fmt: skip
        parsed = parse_concepts(concept, "concept")
        settings = _settings("doco", preset, parsed, model, steps=steps, learning_rate=learning_rate)
        prompts = preserved(parsed, preserve, preserve_common, preserve_list)

        def learn(training_model, **more):
            latents = None if anchors is None else _anchor_latents(training_model, anchors["samples"])
            return doco(
                training_model, parsed, settings, anchor_latents=latents, captions=_lines(captions), preserve=prompts,
                **more,
            )  # fmt: skip

        return _train_and_apply(learn, parsed, settings, model, clip, **training)


class ErasureAbO(io.ComfyNode):
    """Trains the weights of a scope with ``abo``, and applies the result to clones of MODEL and CLIP."""

    @classmethod
    def define_schema(cls):
        default = METHODS["abo"].presets["object"]
        return schema(
            node_id="ErasureAbO",
            display_name="Erase a Concept (AbO)",
            category=ERASE,
            is_experimental=True,  # never run on weights of Stable Diffusion
            search_aliases=(*BY_TRAINING, "AbO", "fine-tune", "train", "ESD", "LECO", "negative prompt"),
            description="Trains cross-attention until a concept guides as an alternative does, or not at all; the "
            "layout of pictures mostly stays. Reconstructed from the abstract of the paper 'All but One' (AAAI 2024), "
            f"whose code was never published. {MODELS}",
            inputs=[
                *_model_and_clip("changed"),
                _concept(
                    "For example: pig -> cow",
                    "What to erase; after '->' what should guide instead, without it nothing.",
                ),
                preserve_input(),
                preserve_common_input(),
                advanced(setting_input(default, "unconditional_weight", step=0.1, round=False)),
                advanced(setting_input(default, "preserve_weight", step=0.1, round=False)),
                advanced(
                    io.Combo.Input(
                        "scope",
                        options=list(SCOPES),
                        tooltip="What is trained. More of the model erases more and needs more memory.",
                    )
                ),
                *_training("abo"),
                preserve_list_input(),
            ],
            outputs=_outputs("A copy of the model without it.", "The text encoder; AbO does not change it."),
        )

    @classmethod
    def validate_inputs(cls, concept=None):
        return concepts_verdict(concept, "concept")

    @classmethod
    @checked
    def execute(
        cls, model, clip, concept, preserve, preserve_common, unconditional_weight, preserve_weight, scope, preset,
        steps, learning_rate, preserve_list=NO_LIST, **training,
    ):  # fmt: skip
        weights = {"unconditional_weight": unconditional_weight, "preserve_weight": preserve_weight}
        parsed = parse_concepts(concept, "concept")
        settings = _settings("abo", preset, parsed, model, steps=steps, learning_rate=learning_rate)
        settings = replace(settings, **weights)
        prompts = preserved(parsed, preserve, preserve_common, preserve_list)

        def learn(training_model, **more):
            return abo(training_model, parsed, settings, preserve=prompts, scope=scope, **more)

        return _train_and_apply(learn, parsed, settings, model, clip, **training)


def _train_and_apply(
    learn, concepts, settings, model, clip, vae=None, *, seconds, rank, seed, strength, **memory
) -> io.NodeOutput:
    """Train with ``learn(training_model, ...)``, which returns an erasure, apply it, and return the node's output."""
    prompt = wordings(settings.kind, concepts[0].name)[1]
    budget = {"seconds": seconds or None, "rank": rank or None, "seed": seed}
    with trainable(model, clip, vae) as training_model:
        shown = TrainingProgress(training_model, prompt, seed)
        erasure = learn(training_model, **budget, **memory, callback=shown.callback, preview=shown.preview)
    erasure = erasure.scaled(strength)
    (origin,) = erasure.origins
    curve = to_image(loss_curve(origin.losses, f"{origin.method}: {origin.concepts[0]}"))
    outcome = _outcome(origin, settings)
    return io.NodeOutput(*apply_erasure(model, clip, erasure), erasure, curve, ui={"text": (outcome,)})


def _outcome(origin, settings) -> str:
    """Return a sentence on what a node has done, to show at it."""
    done, first, last = len(origin.losses), origin.losses[0], origin.losses[-1]
    steps = f"{done} steps" if done == settings.steps else f"{done} of {settings.steps} steps"
    return (
        f"Erased {origin.concepts[0]} in {steps} as {settings.kind}, learning rate {settings.learning_rate:g}; "
        f"the loss went from {first:.3g} to {last:.3g}."
    )


def _lines(texts: str) -> list[str]:
    return [line.strip() for line in texts.splitlines() if line.strip()]


def _anchor_latents(training_model, samples):
    channels, shape = training_model.latent_shape()[0], tuple(samples.shape)
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(f"anchors must be latents [n, {channels}, height, width], got {shape}; encode with this VAE")
    return training_model.scaled_latents(samples)


def _settings(method: str, preset: str, concepts, model, **own):
    """Return a preset with the numbers that a user set in place of its own; 0 stands for the preset's.

    The toy model has presets of its own, since those for Stable Diffusion hardly train it. Raises ``ValueError`` for a
    preset of an earlier version that was for the toy alone, where the model is another.
    """
    toy = is_toy(model)
    if preset.endswith(TOY) and not toy:
        raise ValueError(f"preset '{preset}' is for the toy model and would ruin this one; choose '{AUTO}'")
    name = preset.removesuffix(TOY)
    name = kind_of(concepts[0].name, STYLES if toy else ()) if name == AUTO else name
    presets = METHODS[method].toy_presets if toy else METHODS[method].presets
    return replace(presets[name], **{name: value for name, value in own.items() if value})


def _model_and_clip(use: str) -> list:
    return [
        io.Model.Input("model", tooltip=f"The model, {use} in training. LoRAs and erasures before this node count."),
        io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
    ]


def _concept(placeholder: str, tooltip: str):
    return completed(io.String.Input("concept", default="", placeholder=placeholder, tooltip=tooltip), erases=True)


def _training(method: str) -> list:
    """Return the inputs of every method that trains."""
    presets = METHODS[method].presets
    return [
        io.Combo.Input(
            "preset",
            options=Choices([AUTO, *presets], earlier=[name + TOY for name in METHODS[method].toy_presets]),
            tooltip="The settings for a kind of concept. 'auto' takes 'style' for what is in the pack's lists of "
            "artists, movements and mediums, and 'object' for all else. The toy model has settings of its own.",
        ),
        *map(advanced, _numbers()),
        *([advanced(_checkpointing())] if GradientCheckpointing in METHODS[method].takes else []),
        seed_input(
            MOST_SEEDS, "Of all that is drawn in training. The same seed gives the same erasure on the same machine."
        ),
        strength_input(),
    ]


def _numbers() -> list:
    """Return the inputs for how long and how much is trained; 0 stands for the preset's, or for no limit."""
    return [
        io.Int.Input("steps", default=0, min=0, max=100_000, tooltip="How many updates; 0 for the preset's number."),
        io.Float.Input(
            "learning_rate",
            default=0.0,
            min=0.0,
            max=1.0,
            step=1e-6,
            round=False,
            tooltip="How far each update goes; 0 for the preset's. Lower it when the loss explodes.",
        ),
        io.Float.Input(
            "seconds",
            default=0.0,
            min=0.0,
            max=1e6,
            step=1.0,
            tooltip="Training ends after so many seconds, finished or not; 0 for no limit. With a limit the result "
            "depends on the machine's speed.",
        ),
        io.Int.Input(
            "rank",
            default=0,
            min=0,
            max=1024,
            tooltip="Train changes of this rank, as a LoRA: less memory and a smaller file. 0 trains whole weights.",
        ),
    ]


def _checkpointing():
    return io.Boolean.Input(
        "gradient_checkpointing",
        default=False,
        tooltip="Trains in less memory and up to twice the time: switch it on when memory runs out.",
    )


def _outputs(model: str, clip: str) -> list:
    return [
        io.Model.Output(display_name="MODEL", tooltip=model),
        io.Clip.Output(display_name="CLIP", tooltip=clip),
        Erasure.Output(display_name="ERASURE", tooltip="The change itself, to save, combine or apply."),
        io.Image.Output(display_name="loss", tooltip="The loss of every step, as a curve."),
    ]
