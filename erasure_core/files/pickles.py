"""Refusing pickles, which can run any code when they are read."""

from __future__ import annotations

from pathlib import Path

from ..quoting import excerpt

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def check_no_pickle(path: Path) -> None:
    """Raise ``ValueError`` for a file whose ending is that of a pickle."""
    if path.suffix.lower() in PICKLES:
        name = excerpt(path.name)
        raise ValueError(
            f"{name} is a pickle, which can run any code when it is read; convert it to .safetensors first"
        )
