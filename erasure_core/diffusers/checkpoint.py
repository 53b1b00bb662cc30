"""Loading Stable Diffusion from a diffusers folder or a ``.safetensors`` file, without network and without pickles."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..erasures.baked import carried_by
from ..families.family import Config, Family
from ..files.missing_model import no_model_at
from ..files.pickles import check_no_pickle
from ..model import UnsupportedModelError
from ..quoting import excerpt
from .detection import configs, encoders_of, family_of_checkpoint, index
from .folder import read_folder
from .model import DiffusersModel, from_diffusers

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
OF_WEIGHTS = (".weight", ".bias", "proj_weight", "proj_bias", "text_projection", "positional_embedding")
SCALES = ("scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant")


def load_checkpoint(path: str | Path, dtype: torch.dtype = torch.float32, clip_skip: int = 0) -> DiffusersModel:
    """Return the model at ``path`` on the CPU: SD 1.x, 2.x, XL, its refiner, or what was fine-tuned from them.

    ``path`` is a diffusers folder or a ``.safetensors`` file, and ``dtype`` the precision of the weights in memory:
    float16 and bfloat16 take half as much of it. ``clip_skip`` is that of ``from_diffusers``, by default no layer of
    CLIP. Raises ``FileNotFoundError``, ``UnsupportedModelError`` for another
    family, and ``ValueError`` for a pickle and what cannot be read. A model into which this package has baked erasures
    carries them (``erasures``), so that these concepts are not erased again. Needs diffusers and transformers.
    """
    path = Path(path)
    if path.is_dir():
        return _with_erasures(from_diffusers(_from_folder(path, dtype), clip_skip), _files_in(path))
    if not path.is_file():
        raise FileNotFoundError(no_model_at(path, toy=True))
    check_no_pickle(path)
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{path.name} is not a model file: a single file has to be a .safetensors")
    return _with_erasures(from_diffusers(_from_file(path, dtype), clip_skip), [path])


def _with_erasures(model: DiffusersModel, files: Iterable[Path]) -> DiffusersModel:
    model.erasures = carried_by(files)
    return model


def _files_in(folder: Path) -> list[Path]:
    return [file for files in read_folder(folder).weights.values() for file in files]


def shapes_in(path: Path) -> dict[str, list[int]]:
    """Return the shape of every tensor in the safetensors file at ``path``, by name; only its header is read.

    Raises ``UnsupportedModelError`` for a quantised model and for a weight that is not of floating point, and
    ``ValueError`` for a file that cannot be read.
    """
    try:
        with safe_open(str(path), "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            for name, one in slices.items():
                _check_plain(path.name, name, one.get_dtype())
            return {name: one.get_shape() for name, one in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is not a readable safetensors file: {error}") from error


def _check_plain(file: str, name: str, dtype: str) -> None:
    if name.endswith(SCALES):
        raise UnsupportedModelError(f"{file} is quantised ({name}), which cannot be edited; give the model in float16")
    if dtype not in FLOATS and name.endswith(OF_WEIGHTS):
        raise UnsupportedModelError(
            f"{file} has {name} in {dtype}, which is no floating point; give the model in float16, unquantised"
        )


def _from_folder(path: Path, dtype: torch.dtype):
    folder = read_folder(path)
    shapes = {part: _shapes_of(files) for part, files in folder.weights.items()}
    pipe = _loaded(
        path,
        folder.pipeline,
        dtype,
        lambda pipeline, **options: pipeline.from_pretrained(
            path, local_files_only=True, use_safetensors=True, variant=folder.variant, **options
        ),
        **folder.options,
        **dict.fromkeys(("feature_extractor", "image_encoder")),
    )
    for part, counts in shapes.items():
        missing = Counter(tuple(weight.shape) for weight in getattr(pipe, part).parameters()) - counts
        if missing:
            raise ValueError(f"{path / part} lacks a weight of shape {next(iter(missing))}; download the whole model")
    for part in encoders_of(pipe):
        _check_numbers(path / part / "config.json", getattr(pipe, part).config)
    return pipe


def _check_numbers(file: Path, config: Any) -> None:
    """Raise ``ValueError`` for a setting that is a number by default and is none here, or counts less than one.

    transformers 4 takes anything, and transformers 5 any number.
    """
    for name, default in type(config)().to_dict().items():
        value = getattr(config, name, default)
        if type(default) not in (int, float):
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (name.startswith("num_") and value < 1):
            raise ValueError(f"{file} has {name} {excerpt(value)}, expected a number such as {default}")


def _shapes_of(files: Sequence[Path]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(shape) for file in files for shape in shapes_in(file).values())


def _from_file(path: Path, dtype: torch.dtype):
    shapes = shapes_in(path)
    family = family_of_checkpoint(path.name, shapes)
    with tempfile.TemporaryDirectory() as folder:
        _write_configs(Path(folder), family, configs(family, shapes))
        return _loaded(
            path,
            family.pipeline,
            dtype,
            lambda pipeline, **options: pipeline.from_single_file(
                str(path), config=folder, local_files_only=True, **_tokenizers(family), **options
            ),
            **family.options,
        )


def _tokenizers(family: Family) -> dict[str, Any]:
    from .clip_tokenizer import clip_tokenizer

    tokenizers = {}
    for encoder in family.encoders:
        tokenizers[encoder.tokenizer] = clip_tokenizer()
        tokenizers[encoder.tokenizer].pad_token = encoder.padding
    return tokenizers


def _write_configs(folder: Path, family: Family, parts: dict[str, Config]) -> None:
    (folder / "model_index.json").write_text(json.dumps(index(family)))
    for part, config in parts.items():
        (folder / part).mkdir()
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / name).write_text(json.dumps(config))


def _loaded(path: Path, kind: str, dtype: torch.dtype, load: Callable, **options: Any):
    """Return the pipeline that ``load`` makes of the class ``kind`` of diffusers, called with ``options``.

    Every error of diffusers becomes a ``ValueError`` of one sentence.
    """
    import diffusers
    from diffusers.utils import logging

    logging.disable_progress_bar()
    try:
        pipe = load(getattr(diffusers, kind), torch_dtype=dtype, **options)
        if any(weight.is_meta for weight in pipe.vae.parameters()):
            raise ValueError("weights of its autoencoder are missing")
        return pipe
    except Exception as error:  # diffusers and transformers have no common class of errors
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        line = "weights are missing from it" if "meta tensor" in line else line
        raise ValueError(f"{path} could not be loaded as Stable Diffusion: {line}") from error
