"""Loading a CLIP of the library transformers from a local folder as a recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .clip import ClipRecogniser


def load_clip(folder: str | Path) -> ClipRecogniser:
    """Load a CLIP and its processor from a folder that ``save_pretrained`` wrote.

    Raises ``ValueError`` when there is no such folder or it holds no CLIP in safetensors.
    """
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


def from_transformers(model: Any, processor: Any) -> ClipRecogniser:
    """Make a recogniser of a loaded ``CLIPModel`` and ``CLIPProcessor``."""

    @torch.no_grad()
    def embed_images(images: Tensor) -> Tensor:
        pixels = processor.image_processor(list(images.clamp(0, 1)), do_rescale=False, return_tensors="pt")
        output = model.vision_model(pixel_values=pixels["pixel_values"].to(model.device, model.dtype))
        return model.visual_projection(output.pooler_output)

    @torch.no_grad()
    def embed_texts(texts: Sequence[str]) -> Tensor:
        tokens = processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(model.device)
        return model.text_projection(model.text_model(**tokens).pooler_output)

    return ClipRecogniser(embed_images, embed_texts)
