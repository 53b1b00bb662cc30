"""Recognisers in ComfyUI: its CLIP vision and text models, or the judge of the embedded model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...erasure_core.audit.recognisers.clip import ClipRecogniser
from ...erasure_core.audit.recognisers.recogniser import Recogniser
from ...erasure_core.audit.recognisers.toy import ToyRecogniser
from .text_encoders import tokenized

NO_PROJECTION = (
    "clip_judge has no text projection, so its texts cannot be compared with pictures; load a CLIP text encoder "
    "that has one with 'Load CLIP'"
)


def recogniser(toy: bool, clip_vision=None, clip_judge=None) -> Recogniser | None:
    """Return what recognises concepts in pictures: the CLIP that is connected, or else the judge of the embedded model.

    ``toy`` says that the pictures are of the embedded model, whose judge knows no others; without a CLIP the result
    for them is ``None``. ``clip_vision`` and ``clip_judge`` are a CLIP_VISION and the CLIP that belongs to it. Raises
    ``ValueError`` where only one of them is connected, and for a text encoder that has no projection.
    """
    if bool(clip_vision) != bool(clip_judge):
        missing = "clip_judge" if clip_vision else "clip_vision"
        raise ValueError(f"{missing} is missing: clip_vision and clip_judge belong together, as halves of one CLIP")
    if clip_vision:
        return _Clip(clip_vision, clip_judge)
    return ToyRecogniser() if toy else None


class _Clip(ClipRecogniser):
    def __init__(self, clip_vision, clip_judge):
        projection = _projection(clip_judge)

        def embed_images(images: Tensor) -> Tensor:
            return clip_vision.encode_image(images.movedim(1, -1)).image_embeds

        def embed_texts(texts: Sequence[str]) -> Tensor:
            tokens = [tokenized(clip_judge, text) for text in texts]
            pooled = [clip_judge.encode_from_tokens(one, return_pooled=True)[1] for one in tokens]
            return torch.cat(pooled).float().cpu() @ projection.T

        super().__init__(embed_images, embed_texts)


def _projection(clip) -> Tensor:
    """Return the matrix that maps CLIP's pooled text to the space that it shares with pictures.

    Raises ``ValueError`` for a text encoder without such a matrix, or with the unit matrix in its place.
    """
    stage = clip.cond_stage_model
    encoder = getattr(stage, getattr(stage, "clip", ""), None)
    weight = getattr(getattr(encoder, "transformer", None), "text_projection", None)
    if encoder is None or weight is None:
        raise ValueError(NO_PROJECTION)
    weight = weight.weight.detach().float().cpu().clone()
    same = torch.eye(*weight.shape)
    if torch.equal(weight, same):
        raise ValueError(NO_PROJECTION)
    return same if encoder.return_projected_pooled else weight
