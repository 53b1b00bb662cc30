"""Erase concepts from text-to-image models: pure PyTorch, without ComfyUI.

>>> from erasure_core import common_concepts, from_diffusers, parse_concepts, rece
>>> from erasure_core.methods.rece import PRESETS
>>> model = from_diffusers(pipe)                                        # doctest: +SKIP
>>> concepts = parse_concepts("van gogh -> art")
>>> kept = common_concepts(concepts)
>>> erasure = rece(model, concepts, preserve=kept, **vars(PRESETS["style"]))  # doctest: +SKIP
"""

from .closed_form import derived_context, edit_map
from .concepts import Concept, ConceptError, parse_concepts
from .erasure import Dense, Erasure, LowRank, Origin, __version__
from .files import ErasureFileError
from .methods.rece import rece, uce
from .model import EncodedPrompts, TextToImageModel, UnsupportedModelError
from .vocabulary import common_concepts


def from_diffusers(pipe):
    """See ``adapters.diffusers.from_diffusers``; diffusers itself is needed only by the pipeline."""
    from .adapters.diffusers import from_diffusers

    return from_diffusers(pipe)


__all__ = [
    "Concept",
    "ConceptError",
    "Dense",
    "EncodedPrompts",
    "Erasure",
    "ErasureFileError",
    "LowRank",
    "Origin",
    "TextToImageModel",
    "UnsupportedModelError",
    "__version__",
    "common_concepts",
    "derived_context",
    "edit_map",
    "from_diffusers",
    "parse_concepts",
    "rece",
    "uce",
]
