"""A second copy of the pack in custom_nodes, which ComfyUI loads over the first without a word."""

from __future__ import annotations

import inspect
import logging
import sys
from pathlib import Path

from ...erasure_core.files.atomic import quoted_path

log = logging.getLogger(__name__)
OURS = "ErasureRECE"  # a node that every version of the pack has


def warn_of_another_copy() -> None:
    """Log a warning that names both folders if ComfyUI has loaded the nodes of another copy of this pack already."""
    registered = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})  # ComfyUI's own module
    if OURS in registered:
        first, second = Path(inspect.getfile(registered[OURS])).parents[1], Path(__file__).parents[2]
        log.warning(
            f"Concept Erasure is there twice: {quoted_path(first)} and {quoted_path(second)}. ComfyUI uses the second; "
            "delete one of the two folders and restart ComfyUI"
        )
