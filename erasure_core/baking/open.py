"""Opening a checkpoint to read its weights one at a time: a ``.safetensors`` file or a diffusers folder."""

from __future__ import annotations

from pathlib import Path

from ..erasures.erasure_file import KEY, STATISTICS_KEY
from ..files.missing_model import no_model_at
from ..files.pickles import check_no_pickle
from ..files.tensor_file import TensorFile, open_tensor_file
from ..model import UnsupportedModelError
from ..quoting import excerpt
from .folder import checkpoint_folder
from .places import Checkpoint

TOY = "toy"  # what other commands call the embedded model
EMBEDDED = (
    "toy, the embedded model, is no file; give a diffusers folder or a .safetensors file. "
    "load_pipeline().save_pretrained('toy-folder') of erasure_core.toy writes the embedded model as a folder"
)


def open_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint at ``path``; only headers are read.

    Raises ``FileNotFoundError``, ``ValueError`` for what is no checkpoint in safetensors, and ``UnsupportedModelError``
    for GGUF.
    """
    if path.is_dir():
        return checkpoint_folder(path)
    (file,) = files_of(path)
    if KEY in file.metadata or STATISTICS_KEY in file.metadata:
        kind = "an erasure" if KEY in file.metadata else "statistics"
        raise ValueError(f"{excerpt(path.name)} holds {kind}, not a model; give the checkpoint that is to change")
    return Checkpoint(path, {"": [file]})


def files_of(path: Path) -> list[TensorFile]:
    """Return the files of a checkpoint, or any other file in safetensors; raise the errors of ``open_checkpoint``."""
    name = excerpt(path.name)
    if path.is_dir():
        return checkpoint_folder(path).files
    if not path.exists():
        raise FileNotFoundError(EMBEDDED if str(path) == TOY else no_model_at(path, toy=False))
    if path.suffix.lower() == ".gguf":
        raise UnsupportedModelError(
            f"{name} is GGUF, whose weights are quantised in blocks: bake into the .safetensors that it was made of "
            "and convert what comes out, or load it with ComfyUI-GGUF and put the erasure on it with Apply Erasure"
        )
    check_no_pickle(path)
    return [open_tensor_file(path)]
