"""Any CLIP as a recogniser, zero-shot (arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...concepts.common import COMMON, STYLE, sharing_no_word, without_style
from ...concepts.parse import Concept, as_prompts
from .recogniser import one_each

WORDING = "a picture of {}"


class ClipRecogniser:
    """Zero-shot: a picture shows a concept that is nearer to it than every rival.

    Rivals are the common concepts of its kind that share no word with it.
    """

    name = "CLIP, zero-shot"

    def __init__(
        self,
        embed_images: Callable[[Tensor], Tensor],
        embed_texts: Callable[[Sequence[str]], Tensor],
        rivals: Sequence[str] | str = COMMON,
    ):
        """``embed_images`` gives ``[n, d]`` of images ``[n, 3, h, w]`` in 0 to 1, ``embed_texts`` of as many texts."""
        self._embed_images, self._embed_texts = embed_images, embed_texts
        self._rivals = as_prompts(rivals, "rivals")
        self._known: dict[str, Tensor] = {}

    def knows(self, concept: str) -> bool:
        return bool(concept.strip())

    def shows(self, images: Tensor, concepts: Sequence[str]) -> list[bool]:
        concepts, seen = one_each(images, concepts), self._seen(images)
        found = []
        for index, concept in enumerate(concepts):
            kind = concept.casefold().startswith(STYLE)
            others = sharing_no_word([Concept(without_style(concept))], self._rivals)
            rivals = [one for one in others if one.startswith(STYLE) == kind]
            texts = self._told([WORDING.format(one) for one in (concept, *rivals)])
            found.append(int((texts @ seen[index]).argmax()) == 0)
        return found

    def likeness(self, images: Tensor, prompts: Sequence[str]) -> list[float]:
        """The cosine of image i and prompt i, from -1 to 1: the CLIP score (arXiv 2104.08718)."""
        prompts = one_each(images, prompts)
        return (self._seen(images) * self._told(prompts)).sum(-1).tolist()

    def _seen(self, images: Tensor) -> Tensor:
        return _unit(self._embed_images(images), "images")

    def _told(self, texts: Sequence[str]) -> Tensor:
        """Each text is embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, _unit(self._embed_texts(new), "texts"), strict=True))
        return torch.stack([self._known[text] for text in texts])


@torch.no_grad()
def _unit(embedded: Tensor, what: str) -> Tensor:
    found = embedded.detach().float().cpu()
    if not torch.isfinite(found).all():
        raise ValueError(f"CLIP's embedding of the {what} holds NaN; its weights may be damaged")
    return F.normalize(found, dim=-1)
