"""The sentence for a model that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from ..quoting import excerpt

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def no_model_at(path: Path, *, toy: bool) -> str:
    """Return the sentence for a path where nothing is; for what looks like the id of a hub it says what to do.

    ``toy`` says whether the embedded model could be named in its place.
    """
    name = path.as_posix()
    if HUB_ID.fullmatch(name) and not path.parent.exists():
        return (
            f"there is no model at {excerpt(name)}; if that is an id on Hugging Face: nothing is downloaded here, so "
            f"download it first (hf download {name} --local-dir {path.name}) and give the folder"
        )
    return (
        f"there is no model at {excerpt(path, 300)}; give a diffusers folder or a .safetensors file"
        f"{', or on the command line toy' if toy else ''}"
    )
