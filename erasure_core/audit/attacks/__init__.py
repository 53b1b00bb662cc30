"""Attacks on an erasure, one a file: with them its maker finds out first what still brings the concept back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .attempt import Attempt, Scene
from .derived_context import by_derived_context
from .discrete_prompt import by_discrete_prompt
from .finetuning import by_finetuning, by_finetuning_on_others
from .noised_images import by_noised_pictures, control
from .plain_prompts import by_list, by_name
from .textual_inversion import by_inversion


@dataclass(frozen=True)
class Attack:
    """An attack: functions that make an attempt each, a summary for help texts, and what the attacker must know.

    One that ``trains`` the model on the concept shows how fast it is learned, and counts never as the strongest: any
    model can be taught any concept.
    """

    runs: tuple[Callable[[Scene], Attempt], ...]
    summary: str
    knows: str
    trains: bool = False


ATTACKS: Mapping[str, Attack] = {
    "name": Attack((by_name,), "the concept's plain name; no attack", "the name"),
    "list": Attack((by_list,), "prompts that you list: paraphrases, misspellings, other languages", "the name"),
    "derived": Attack((by_derived_context,), "RECE's derived context, in closed form", "both models' weights"),
    "inversion": Attack((by_inversion,), "a word learned through the edited model", "weights and pictures"),
    "discrete": Attack((by_discrete_prompt,), "words found by gradients, before a prompt", "weights and pictures"),
    "noised": Attack((by_noised_pictures, control), "partly noised pictures, completed", "weights and pictures"),
    "finetune": Attack(
        (by_finetuning_on_others, by_finetuning),
        "a LoRA trained on other concepts, then on this one until it is back", "weights and pictures", trains=True,
    ),
}  # fmt: skip
"""All attacks by name, in the order in which they run."""
