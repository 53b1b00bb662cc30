"""A diffusers folder: what it is and how its weights are stored, checked before anything of it is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..families.family import Config
from ..families.unets import FAMILIES, text_parts
from ..model import UnsupportedModelError
from .detection import NEEDED

INDEX = "model_index.json"
MOST_JSON = 2**20  # bytes; a real one has a few thousand
MODELS: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AsymmetricAutoencoderKL", "AutoencoderTiny"),
}
"""The models that are loaded beside text encoders, and their classes in diffusers."""
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
PASSED_BY = {("stable_diffusion", "StableDiffusionSafetyChecker"), ("controlnet", "MultiControlNetModel")}
"""Components that diffusers names by the folder of a pipeline; they are not loaded."""
WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack")


@dataclass(frozen=True)
class Folder:
    """What a diffusers folder holds and how to load it."""

    pipeline: str
    """The class of diffusers to load it as."""
    options: Config
    """What this class is called with beside the parts."""
    variant: str | None
    """The variant of the weights that is loaded, such as ``fp16``, or ``None`` for those without one."""
    weights: Mapping[str, tuple[Path, ...]]
    """The files of each part in that variant."""


def read_folder(path: Path) -> Folder:
    """Return what the diffusers folder at ``path`` holds; none of its weights are read.

    Raises ``UnsupportedModelError`` for a pipeline of another family, for quantised weights, and for components of
    other libraries, which would run code of their own. Raises ``ValueError`` for what is missing or cannot be read.
    """
    if not (path / INDEX).is_file():
        raise ValueError(f"{path} is not a diffusers folder: it has no {INDEX}")
    index = _read_json(path / INDEX)
    kind: Any = index.get("_class_name")
    family = next((one for one in FAMILIES.values() if isinstance(kind, str) and kind in one.pipelines), None)
    if family is None:
        raise UnsupportedModelError(f"{path} is a {_one_line(kind).removeprefix('a ')}; {NEEDED}")
    names = [name for name, value in index.items() if not name.startswith("_") and isinstance(value, list)]
    parts = [name for name in names if _is_there(path, name, index[name])]
    variants = {part: _weights(path / part) for part in (*MODELS, *text_parts()) if part in parts}
    variant = _variant({part: set(files) for part, files in variants.items()}, path)
    weights = {part: tuple(files.get(variant or "") or files[""]) for part, files in variants.items()}
    return Folder(family.pipelines[kind], family.options, variant, weights)


def _classes() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the library and the classes that each component may have which is loaded, by its name."""
    known = {part: ("diffusers", classes) for part, classes in MODELS.items()}
    for encoder in (encoder for family in FAMILIES.values() for encoder in family.encoders):
        _, classes = known.get(encoder.part, ("", ()))
        known[encoder.part] = "transformers", tuple(dict.fromkeys((*classes, *encoder.classes)))
        known[encoder.tokenizer] = "transformers", TOKENIZERS
    return known


def _is_there(path: Path, name: str, value: list[Any]) -> bool:
    """Return whether a component is there. Raises an error for one of another library, which would run its own code."""
    if value == [None, None]:
        return False
    if len(value) != 2 or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{path / INDEX}: '{_one_line(name)}' is not a library and a class, two words in a list")
    library, kind = value
    if (library, kind) in PASSED_BY:
        return True
    if library not in ("diffusers", "transformers"):
        raise UnsupportedModelError(
            f"{path / INDEX}: '{_one_line(name)}' is of '{_one_line(library)}', which would run code of its own; "
            "only classes of diffusers and transformers are loaded"
        )
    known = _classes()
    home, classes = known.get(name, (library, (kind,)))
    if library != home or kind not in classes or (name == "scheduler" and not _is_scheduler(library, kind)):
        needed = " or ".join(classes) if name in known else "scheduler of diffusers"
        raise UnsupportedModelError(f"{path / INDEX}: '{_one_line(name)}' is a {_one_line(kind)}, a {needed} is needed")
    return True


def _is_scheduler(library: str, kind: str) -> bool:
    import diffusers

    return library == "diffusers" and kind.endswith("Scheduler") and isinstance(getattr(diffusers, kind, None), type)


def _weights(folder: Path) -> dict[str, list[Path]]:
    """Return the files in a component's folder by variant, ``""`` for none; its configuration is checked too."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing, though {INDEX} names it; download the whole model")
    if "quantization_config" in _read_json(folder / "config.json"):
        raise UnsupportedModelError(f"{folder} is quantised, which cannot be edited; give the model as it was before")
    names = [file.name for file in folder.iterdir()]
    variants: dict[str, list[Path]] = {}
    for name in names:
        if match := WEIGHTS.fullmatch(name):
            variants.setdefault(match[1] or "", []).append(folder / name)
    pickles = [name for name in names if name.endswith(PICKLED)]
    if not variants and pickles:
        raise ValueError(
            f"{folder} holds only {sorted(pickles)[0]}, a pickle, which can run any code when it is read; convert the "
            "model where you trust it: DiffusionPipeline.from_pretrained(folder).save_pretrained(new_folder)"
        )
    if not variants:
        raise ValueError(f"{folder} has no weights in .safetensors; download the whole model")
    return variants


def _variant(each: Mapping[str, set[str]], path: Path) -> str | None:
    """Return a variant in which the weights of each part are to be had, or ``None`` if all are without one."""
    if all("" in variants for variants in each.values()):
        return None
    for variant in sorted(set().union(*each.values()) - {""}, key=lambda one: (one != "fp16", one)):
        if all(variants & {"", variant} for variants in each.values()):
            return variant
    raise ValueError(f"{path} has its weights in variants of which none is whole; download the whole model")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_JSON:
            raise ValueError(f"larger than {MOST_JSON} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing; download the whole model") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no configuration in JSON: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no configuration in JSON: it holds {_one_line(content)}, not an object")
    return content


def _one_line(value: Any) -> str:
    """Return a value as a message quotes it: in ASCII, on one short line."""
    text = f"a {type(value).__name__}" if isinstance(value, (list, dict)) else str(value)
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", " ")
    return text if len(text) <= 80 else f"{text[:80]}..."
