"""A diffusers folder: what it is and how its weights are stored, checked before anything of it is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model import UnsupportedModelError

NEEDED = "a pipeline of Stable Diffusion 1.x, 2.x or XL is needed"
INDEX = "model_index.json"
MOST_JSON = 2**20  # bytes; a real one has a few thousand
_OWN = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
)
_TASKS = ("", "Img2Img", "Inpaint")
PIPELINES: Mapping[str, str] = {
    **{kind: kind for kind in _OWN},
    **{f"StableDiffusionControlNet{task}Pipeline": f"StableDiffusion{task}Pipeline" for task in _TASKS},
    **{f"StableDiffusionXLControlNet{task}Pipeline": f"StableDiffusionXL{task}Pipeline" for task in _TASKS},
    **{f"StableDiffusionXLControlNetUnion{task}Pipeline": f"StableDiffusionXL{task}Pipeline" for task in _TASKS},
    "LatentConsistencyModelPipeline": "StableDiffusionPipeline",
    "LatentConsistencyModelImg2ImgPipeline": "StableDiffusionImg2ImgPipeline",
}
"""The pipelines that a folder may hold, and the class that each is loaded as: the edited parts are the same in all."""
MODELS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL", "AsymmetricAutoencoderKL", "AutoencoderTiny")),
    "text_encoder": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection")),
    "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
}
LOADED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    **MODELS,
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "tokenizer_2": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
}
PASSED_BY = {("stable_diffusion", "StableDiffusionSafetyChecker"), ("controlnet", "MultiControlNetModel")}
"""Components that diffusers names by the folder of a pipeline; they are not loaded."""
WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack")


@dataclass(frozen=True)
class Folder:
    """``kind`` is the class of diffusers to load it as; ``variant`` of the weights ``None`` for those without one.

    ``weights`` are the files of each part in that variant.
    """

    kind: str
    variant: str | None
    weights: Mapping[str, tuple[Path, ...]]


def read_folder(path: Path) -> Folder:
    """Raises ``UnsupportedModelError`` for what is no Stable Diffusion or brings code, ``ValueError`` for the rest."""
    if not (path / INDEX).is_file():
        raise ValueError(f"{path} is not a diffusers folder: it has no {INDEX}")
    index = _read_json(path / INDEX)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise UnsupportedModelError(f"{path} is a {_told(kind).removeprefix('a ')}; {NEEDED}")
    named = [name for name, value in index.items() if not name.startswith("_") and isinstance(value, list)]
    parts = [name for name in named if _checked(path, name, index[name])]
    models = [part for part in MODELS if part in parts]
    files = {part: _weights(path / part) for part in models}
    variant = _variant({part: set(found) for part, found in files.items()}, path)
    chosen = {part: tuple(found.get(variant or "") or found[""]) for part, found in files.items()}
    return Folder(PIPELINES[kind], variant, chosen)


def _checked(path: Path, name: str, value: list[Any]) -> bool:
    """Return whether a component is there. Raises an error for one of another library, which would run its own code."""
    if value == [None, None]:
        return False
    if len(value) != 2 or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{path / INDEX}: '{_told(name)}' is not a library and a class, two words in a list")
    library, kind = value
    if (library, kind) in PASSED_BY:
        return True
    if library not in ("diffusers", "transformers"):
        raise UnsupportedModelError(
            f"{path / INDEX}: '{_told(name)}' is of '{_told(library)}', which would run code of its own; only classes "
            "of diffusers and transformers are loaded"
        )
    wanted, kinds = LOADED.get(name, (library, (kind,)))
    if library != wanted or kind not in kinds or (name == "scheduler" and not _is_scheduler(library, kind)):
        needed = " or ".join(kinds) if name in LOADED else "scheduler of diffusers"
        raise UnsupportedModelError(f"{path / INDEX}: '{_told(name)}' is a {_told(kind)}, a {needed} is needed")
    return True


def _is_scheduler(library: str, kind: str) -> bool:
    import diffusers

    return library == "diffusers" and kind.endswith("Scheduler") and isinstance(getattr(diffusers, kind, None), type)


def _weights(folder: Path) -> dict[str, list[Path]]:
    """The files in a component's folder by variant, ``""`` for none; its configuration is checked too."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing, though {INDEX} names it; download the whole model")
    if "quantization_config" in _read_json(folder / "config.json"):
        raise UnsupportedModelError(f"{folder} is quantised, which cannot be edited; give the model as it was before")
    names = [file.name for file in folder.iterdir()]
    found: dict[str, list[Path]] = {}
    for name in names:
        if match := WEIGHTS.fullmatch(name):
            found.setdefault(match[1] or "", []).append(folder / name)
    pickles = [name for name in names if name.endswith(PICKLED)]
    if not found and pickles:
        raise ValueError(
            f"{folder} holds only {sorted(pickles)[0]}, a pickle, which can run any code when it is read; convert the "
            "model where you trust it: DiffusionPipeline.from_pretrained(folder).save_pretrained(new_folder)"
        )
    if not found:
        raise ValueError(f"{folder} has no weights in .safetensors; download the whole model")
    return found


def _variant(each: Mapping[str, set[str]], path: Path) -> str | None:
    """The one in which all weights are to be had, where some are in no other."""
    if all("" in found for found in each.values()):
        return None
    for variant in sorted(set().union(*each.values()) - {""}, key=lambda one: (one != "fp16", one)):
        if all(found & {"", variant} for found in each.values()):
            return variant
    raise ValueError(f"{path} has its weights in variants of which none is whole; download the whole model")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_JSON:
            raise ValueError(f"larger than {MOST_JSON} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing; download the whole model") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no configuration in JSON: {_told(error)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} is no configuration in JSON: it holds {_told(found)}, not an object")
    return found


def _told(value: Any) -> str:
    """What is quoted, in one short line."""
    text = f"a {type(value).__name__}" if isinstance(value, (list, dict)) else str(value)
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", " ")
    return text if len(text) <= 80 else f"{text[:80]}..."
