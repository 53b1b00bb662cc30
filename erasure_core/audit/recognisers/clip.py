"""A recogniser that uses any CLIP as a zero-shot classifier (arXiv 2103.00020)."""

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
    """A zero-shot classifier: a picture shows the concept if it is nearer to it than to every rival.

    Rivals are those names that are of the concept's kind, object or style, and share no word with it.
    """

    name = "CLIP, zero-shot"

    def __init__(
        self,
        embed_images: Callable[[Tensor], Tensor],
        embed_texts: Callable[[Sequence[str]], Tensor],
        rivals: Sequence[str] | str = COMMON,
    ):
        """Use two functions that embed pictures and texts.

        ``embed_images`` maps images ``[n, 3, h, w]`` with values from 0 to 1 to ``[n, d]``, and ``embed_texts`` maps n
        texts to ``[n, d]``. ``rivals`` are names, by default the built-in list of everyday concepts.
        """
        self._embed_images, self._embed_texts = embed_images, embed_texts
        self._rivals = as_prompts(rivals, "rivals")
        self._known: dict[str, Tensor] = {}

    def knows(self, concept: str) -> bool:
        return bool(concept.strip())

    def shows(self, images: Tensor, concepts: Sequence[str]) -> list[bool]:
        concepts, embedded = one_each(images, concepts), self._image_embeddings(images)
        answers = []
        for index, concept in enumerate(concepts):
            kind = concept.casefold().startswith(STYLE)
            others = sharing_no_word([Concept(without_style(concept))], self._rivals)
            rivals = [one for one in others if one.startswith(STYLE) == kind]
            texts = self._text_embeddings([WORDING.format(one) for one in (concept, *rivals)])
            answers.append(int((texts @ embedded[index]).argmax()) == 0)
        return answers

    def likeness(self, images: Tensor, prompts: Sequence[str]) -> list[float]:
        """Return the cosine of each image and its prompt, from -1 to 1: the CLIP score (arXiv 2104.08718)."""
        prompts = one_each(images, prompts)
        return (self._image_embeddings(images) * self._text_embeddings(prompts)).sum(-1).tolist()

    def _image_embeddings(self, images: Tensor) -> Tensor:
        return _unit(self._embed_images(images), "images")

    def _text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Return the unit vectors of texts; each text is embedded only once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, _unit(self._embed_texts(new), "texts"), strict=True))
        return torch.stack([self._known[text] for text in texts])


@torch.no_grad()
def _unit(embedded: Tensor, what: str) -> Tensor:
    """Return embeddings ``[n, d]`` as unit vectors in float32; ``what`` is what the error calls them."""
    vectors = embedded.detach().float().cpu()
    if not torch.isfinite(vectors).all():
        raise ValueError(f"CLIP's embedding of the {what} holds NaN; its weights may be damaged")
    return F.normalize(vectors, dim=-1)
