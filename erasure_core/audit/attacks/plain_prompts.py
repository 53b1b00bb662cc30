"""The attacks "name" and "list": prompts with the concept's plain name, and prompts that the user lists."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .attempt import Attempt, Scene, attempt, in_turn


def by_name(scene: Scene) -> Attempt:
    """Draw with the concept's plain name: no attack, but the baseline for all others."""
    return _attempt(scene, "name", scene.prompts)


def by_list(scene: Scene) -> Attempt:
    """Draw with the user's prompts: paraphrases, misspellings, other languages, descriptions without the name.

    Raises ``ValueError`` when there are none.
    """
    if not scene.user_prompts:
        raise ValueError("prompts: the attack 'list' needs prompts to try, one a line")
    return _attempt(scene, "list", scene.user_prompts)


def _attempt(scene: Scene, attack: str, prompts: Sequence[str]) -> Attempt:
    began = time.monotonic()
    prompts = in_turn(prompts, scene.pictures)
    return attempt(scene, attack, prompts, scene.edited.encode_prompts(prompts), began=began)
