"""A CLIP of transformers as a recogniser, from a folder on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .clip import ClipRecogniser


def load_clip(folder: str | Path) -> ClipRecogniser:
    """Read a CLIP with its processor, as ``save_pretrained`` writes them. Raises ``ValueError`` if there is none."""
    from transformers import CLIPModel, CLIPProcessor

    if Path(folder).is_file():
        raise ValueError(f"clip: {folder} is a file; name a folder as save_pretrained writes it")
    if not Path(folder).is_dir():
        raise ValueError(f"clip: there is no folder {folder}")
    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"clip: {folder} holds no CLIP with its processor in safetensors: {first}") from error
    return from_transformers(model, processor)


def from_transformers(model, processor) -> ClipRecogniser:
    """A ``CLIPModel`` and ``CLIPProcessor`` that are loaded already."""

    @torch.no_grad()
    def embed_images(images: Tensor) -> Tensor:
        pixels = processor.image_processor(list(images.clamp(0, 1)), do_rescale=False, return_tensors="pt")
        seen = model.vision_model(pixel_values=pixels["pixel_values"].to(model.device, model.dtype))
        return model.visual_projection(seen.pooler_output)

    @torch.no_grad()
    def embed_texts(texts: Sequence[str]) -> Tensor:
        tokens = processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(model.device)
        return model.text_projection(model.text_model(**tokens).pooler_output)

    return ClipRecogniser(embed_images, embed_texts)
