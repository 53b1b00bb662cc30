"""The node that suggests other names of concepts."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ..erasure_core import aliases_of, parse_concepts, suggest
from ..erasure_core.concepts.aliases import LIMIT, MINIMUM, with_aliases
from .comfy_host.open_model import reader
from .input_checks import checked
from .inputs import MANY
from .schema import completed, schema


class ErasureSuggestNames(io.ComfyNode):
    """Lists other names by ``aliases_of``, or with a MODEL by ``suggest``, and adds them to the concepts."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="ErasureSuggestNames",
            display_name="Suggest Names (Erasure)",
            category=MANY,
            search_aliases=("aliases", "synonyms", "other names", "similar words"),
            description="Lists other names that reach the same concepts, to connect to 'concepts' of 'Erase Concepts "
            "(RECE)': a cat also goes by kitty, feline and gato.",
            inputs=[
                completed(
                    io.String.Input(
                        "concepts",
                        multiline=True,
                        default="",
                        placeholder="What you want to erase, one concept a line. For example: van gogh -> art",
                        tooltip="What you want to erase, one concept a line, as in 'Erase Concepts (RECE)'.",
                    ),
                    listing=True,
                ),
                io.Boolean.Input(
                    "erase_aliases",
                    default=True,
                    tooltip="Add the other names to the concepts, each with the same replacement. Switched off, the "
                    "concepts stay as they are, and the names are only shown.",
                ),
                io.Float.Input(
                    "minimum",
                    default=MINIMUM,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The least similarity of another name; 1 is the same to the text encoder.",
                ),
                io.Int.Input("limit", default=LIMIT, min=1, max=100, tooltip="The most other names of a concept."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="With clip: this model measures the names. Without, they come from a table that was made "
                    "with Stable Diffusion 1.4.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="The text encoder that belongs to the model."),
            ],
            outputs=[
                io.String.Output(display_name="concepts", tooltip="One concept a line, for 'concepts' of other nodes."),
                io.String.Output(display_name="names", tooltip="Each concept's other names with their similarity."),
            ],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(cls, concepts, erase_aliases, minimum, limit, model=None, clip=None) -> io.NodeOutput:
        if (model is None) != (clip is None):
            raise ValueError("model and clip belong together: connect both, or neither to use the table")
        parsed = parse_concepts(concepts)
        near_to = aliases_of if model is None else partial(suggest, reader(model, clip))
        near = {concept.name: near_to(concept.name, minimum=minimum, limit=limit) for concept in parsed}
        names = "\n".join(f"{name}: {_listed(aliases)}" for name, aliases in near.items())
        listed = with_aliases(parsed, near.__getitem__) if erase_aliases else parsed
        return io.NodeOutput("\n".join(map(str, listed)), names, ui={"text": (names,)})


def _listed(aliases) -> str:
    return ", ".join(f"{alias} {similarity:.2f}" for alias, similarity in aliases) or "no other name"
