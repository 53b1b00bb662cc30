"""The embedded model ("toy" in code): a real latent text-to-image diffusion model of 12 MB; see CARD.md."""

from __future__ import annotations

from .captions import COLOURS, OBJECTS, STYLES, Caption, sample_captions
from .judge import Judge, Verdict
from .pipeline import load_pipeline, load_toy

__all__ = [
    "COLOURS",
    "OBJECTS",
    "STYLES",
    "Caption",
    "Judge",
    "Verdict",
    "load_pipeline",
    "load_toy",
    "sample_captions",
]
