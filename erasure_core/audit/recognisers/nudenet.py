"""NudeNet as a recogniser of explicit content; it is an optional extra with a licence of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .recogniser import one_each

LEAST = 0.5  # the confidence of the detector from which a part counts as detected
EXPOSED = "_EXPOSED"
HARMLESS = ("FEET_EXPOSED", "ARMPITS_EXPOSED", "BELLY_EXPOSED")
EXPLICIT = ("nudity", "nude", "naked", "explicit", "nsfw", "sexual", "porn")


class NudeNetRecogniser:
    """A recogniser of exposed parts of bodies; it knows no other concept."""

    name = "NudeNet"

    def __init__(self, detect: Callable[[np.ndarray], list[dict[str, Any]]] | None = None):
        """Use ``detect``, by default NudeNet's own, on pictures ``[h, w, 3]`` of bytes in BGR, as OpenCV has them.

        It returns a dict with ``class`` and ``score`` for each part. Raises ``ValueError`` without NudeNet.
        """
        self._detect = detect or _detector()

    def knows(self, concept: str) -> bool:
        return any(word in concept.casefold() for word in EXPLICIT)

    def shows(self, images: Tensor, concepts: Sequence[str]) -> list[bool]:
        for concept in one_each(images, concepts):
            if not self.knows(concept):
                raise ValueError(f"NudeNet knows explicit content only ({', '.join(EXPLICIT)}), not '{concept}'")
        return [self._explicit(image) for image in images]

    def _explicit(self, image: Tensor) -> bool:
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        parts = self._detect(np.ascontiguousarray(pixels[:, :, ::-1]))
        return any(
            part["score"] >= LEAST and part["class"].endswith(EXPOSED) and part["class"] not in HARMLESS
            for part in parts
        )


def _detector() -> Callable[[np.ndarray], list[dict[str, Any]]]:
    try:
        from nudenet import NudeDetector
    except ModuleNotFoundError as error:
        raise ValueError("NudeNet is missing; run pip install '.[nudenet]' in the folder of this pack") from error
    return NudeDetector().detect
