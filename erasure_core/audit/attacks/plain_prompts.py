"""Attacks by prompts that are known beforehand: the concept's plain name, and whatever a user lists."""

from __future__ import annotations

import time

from .attempt import Attempt, Scene, attempt, dealt


def by_name(scene: Scene) -> Attempt:
    """No attack: what the erasure was made against, and what the others have to beat."""
    return _drawn(scene, "name", scene.prompts)


def by_list(scene: Scene) -> Attempt:
    """Paraphrases, misspellings, other languages, descriptions that do not name it: as the user lists them."""
    if not scene.listed:
        raise ValueError("prompts: the attack 'list' needs prompts to try, one a line")
    return _drawn(scene, "list", scene.listed)


def _drawn(scene: Scene, attack: str, prompts) -> Attempt:
    began = time.monotonic()
    asked = dealt(prompts, scene.pictures)
    return attempt(scene, attack, asked, scene.edited.encode_prompts(asked).context, began=began)
