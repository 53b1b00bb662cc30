"""The node that erases concepts with RECE."""

from comfy_api.latest import io

from ..erasure_core import common_concepts, parse_concepts, rece
from ..erasure_core.concepts import parse_prompts
from ..erasure_core.methods.rece import PRESETS, RecePreset
from . import host
from .sockets import CATEGORY, Erasure, chosen, preserve_common_input, preserve_input, strength_input

CUSTOM = "custom"
DEFAULT = next(iter(PRESETS.values()))


class ErasureRECE(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ErasureRECE",
            display_name="Erase Concepts (RECE)",
            category=CATEGORY,
            description="Erases concepts from a model's cross-attention in closed form: no training, no images. "
            "SD 1.x, SD 2.x and this pack's toy model.",
            inputs=[
                io.Model.Input("model", tooltip="The model to erase from. LoRAs and erasures before this node count."),
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                io.String.Input(
                    "concepts",
                    multiline=True,
                    default="",
                    placeholder="van gogh -> art",
                    tooltip="What to erase, one concept a line. After '->' what its prompts should give instead; "
                    "without it, nothing in particular. Lines that start with # are passed over.",
                ),
                preserve_input(),
                preserve_common_input(),
                io.Combo.Input(
                    "preset",
                    options=[*PRESETS, CUSTOM],
                    tooltip="The settings for a kind of concept. Only 'custom' uses the six numbers below.",
                ),
                *_custom_inputs(),
                strength_input(),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="A copy of the model without the concepts."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder; RECE does not change it."),
                Erasure.Output(display_name="ERASURE", tooltip="The change itself, to save, combine or apply."),
            ],
        )

    @classmethod
    def execute(cls, model, clip, concepts, preserve, preserve_common, preset, strength, **custom) -> io.NodeOutput:
        parsed = parse_concepts(concepts)
        prompts = [*(common_concepts(parsed) if preserve_common else []), *parse_prompts(preserve, "preserve")]
        settings = chosen({**PRESETS, CUSTOM: RecePreset(**custom)}, preset)
        seen = host.ComfyModel(model, clip)
        erasure = rece(seen, parsed, preserve=prompts, callback=host.progress(), **vars(settings)).scaled(strength)
        return io.NodeOutput(*host.apply_erasure(model, clip, erasure), erasure)


def _custom_inputs() -> list:
    """The fields of ``RecePreset``, by their names."""
    loops = io.Int.Input(
        "loops",
        default=DEFAULT.loops,
        min=0,
        max=20,
        tooltip="Used with preset 'custom'. How often what would bring the concept back is found and erased too; "
        "0 is plain UCE.",
    )
    tooltips = {
        "regularization": "How small those contexts are kept; smaller erases more and harms more.",
        "erase_scale": "The weight of what is erased.",
        "preserve_scale": "The weight of what is preserved.",
        "ridge": "How firmly the weights are held where nothing else holds them; raise it if the system is singular.",
        "amplification": "How far to go along the change that was found; 1 is as published. More erases more surely "
        "inside long prompts and harms more.",
    }
    return [loops] + [
        io.Float.Input(
            name,
            default=getattr(DEFAULT, name),
            min=1e-6,
            max=1e4,
            step=0.001,
            round=False,
            tooltip=f"Used with preset 'custom'. {text}",
        )
        for name, text in tooltips.items()
    ]
