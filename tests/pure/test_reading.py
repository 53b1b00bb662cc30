"""Concepts of which a text encoder makes nothing, or the same as of their targets, and edits that change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pure.fakes import FakeModel

from erasure_core import Concept, ConceptError, rece, uce
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.update import updated
from erasure_core.methods.abo import AbOSettings, abo
from erasure_core.methods.doco import DoCoSettings, doco
from erasure_core.methods.few_shot import FewShotSettings, few_shot
from erasure_core.methods.rece import RECE, ReceSettings, erase_statistics, rece_with_statistics


class Deaf(FakeModel):
    """Passes over embeddings, as ComfyUI does where there is none of that name, and hears kittens as cats.

    What it makes of words differs a little from batch to batch.
    """

    def _context(self, words):
        heard = ["cat" if word == "kitten" else word for word in words if not word.startswith("embedding:")]
        context = super()._context(heard)
        return context * (1 + 1e-4 * torch.randn(context.shape))

    def encoded(self, prompts):
        encoded = super().encoded(prompts)
        last = [len([word for word in prompt.split() if not word.startswith("embedding:")]) for prompt in prompts]
        return type(encoded)(encoded.conditioning, tuple(last))


METHODS: dict[str, Callable] = {
    "rece": rece,
    "uce": uce,
    "few_shot": lambda model, concept: few_shot(
        model, concept, FewShotSettings(steps=1, learning_rate=1e-3), images=None
    ),
    "doco": lambda model, concept: doco(
        model,
        concept,
        DoCoSettings(steps=1, batch_size=2, warm_up=0.0, learning_rate=1e-3),
        anchor="dog",
        anchor_latents=torch.zeros(2, 4, 4, 4),
    ),
    "abo": lambda model, concept: abo(
        model, concept, AbOSettings(steps=1, trajectories=1, sampling_steps=1, learning_rate=1e-3)
    ),
}
each = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@each
def test_a_name_that_reads_like_nothing(method: Callable) -> None:
    with pytest.raises(ConceptError, match="the text encoder reads nothing in 'embedding:gone'"):
        method(Deaf(), "embedding:gone")
    method(Deaf(), "cat")


@pytest.mark.parametrize("method", [METHODS[name] for name in ("rece", "uce", "abo")])
def test_a_target_that_reads_like_nothing_or_like_the_name(method: Callable) -> None:
    with pytest.raises(ConceptError, match="reads nothing in 'embedding:gone'"):
        method(Deaf(), "cat -> embedding:gone")
    with pytest.raises(ConceptError, match="reads 'cat' and 'kitten' alike, so there is nothing to change"):
        method(Deaf(), "cat -> kitten")
    method(Deaf(), "cat -> dog")


def test_among_others_and_in_statistics() -> None:
    model = Deaf()
    with pytest.raises(ConceptError, match="embedding:gone"):
        rece(model, "cat\nembedding:gone\ndog")
    known = gather_statistics(model, "cat", [""])
    with pytest.raises(ConceptError, match="embedding:gone"):
        updated(known, model, [Concept("embedding:gone")])


@each
def test_words_that_the_model_has_not_learned_are_warned_of(method: Callable, caplog) -> None:
    """Where the model tells its words, which most do not; the words between are not counted."""
    model = FakeModel()
    method(model, "a kat")
    assert not caplog.records
    model.vocabulary = frozenset(("cat", "dog"))
    method(model, "a cat")
    assert not caplog.records
    method(model, "a kat")
    assert caplog.messages == [
        "the model has not learned 'kat' (did you mean 'cat'?); erasing words that it does not know may harm what it "
        "knows"
    ]


def test_unknown_words_of_several_concepts_are_one_warning(caplog) -> None:
    model = FakeModel()
    model.vocabulary = frozenset(("cat", "dog"))
    known = rece_with_statistics(model, [Concept("dogs"), Concept("cat"), Concept("old zebra")], RECE["general"])[1]
    (warning,) = caplog.messages
    assert "learned 'dogs' (did you mean 'dog'?), 'old', 'zebra'; " in warning
    caplog.clear()
    rece_with_statistics(model, [Concept("dog")], RECE["general"], statistics=known)
    assert not caplog.records, "what statistics hold has been warned of"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"erase_scale": 1e-300}, "nothing would be erased; raise erase_scale"),
        ({"ridge": 1e30}, "nothing would be erased"),
        ({"amplification": 1e-30}, "nothing would be erased"),
        ({"amplification": 1e20}, "would ruin the model; lower amplification"),
        ({"amplification": 50.0}, "would ruin the model; lower amplification"),
        ({"preserve_scale": 1e300}, "singular"),
        ({"erase_scale": 1e300}, "singular"),
    ],
)
def test_settings_that_erase_nothing_or_ruin_the_model(settings: dict, message: str) -> None:
    model = FakeModel()
    with pytest.raises(ValueError, match=message):
        rece(model, "cat", ReceSettings(**settings))
    many = gather_statistics(model, [f"thing{number}" for number in range(40)], [""])  # sums in place of rows
    with pytest.raises(ValueError, match=message):
        erase_statistics(model, many, ReceSettings(**settings))


@pytest.mark.parametrize("preset", RECE)
def test_presets_erase(preset: str) -> None:
    assert rece(FakeModel(), "cat", RECE[preset]).rank
