"""Wherever a list of prompts or names is taken, one text is one of them and not a list of letters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pure.fakes import FakeModel
from pure.test_report import WORDS

from erasure_core import Concept, ConceptError, common_concepts, rece, uce
from erasure_core.audit.recognisers.clip import ClipRecogniser
from erasure_core.audit.recognisers.nudenet import NudeNetRecogniser
from erasure_core.audit.red_team import attack
from erasure_core.audit.report import report
from erasure_core.audit.report_prompts import report_prompts
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.update import extended, held_concepts, restored, updated
from erasure_core.commands.request import Request
from erasure_core.concepts.parse import as_prompts
from erasure_core.methods.abo import AbOSettings, abo
from erasure_core.sampling.ddim import generate, sample_latents, trajectories

PICTURE = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
CAT, RED = Concept("cat", "dog"), Concept("red")
ABO = AbOSettings(steps=1, trajectories=2, sampling_steps=2, batch_size=2)
AUDIT = {"count": 1, "seeds": (0,), "steps": 2}


def requested(**inputs):
    """What RECE is called with for the inputs of a request."""
    return Request([CAT], inputs={**inputs, "no_common": True}).keywords()


def held(model: FakeModel):
    return gather_statistics(model, [CAT, RED], ["bird"])


def audited(model: FakeModel, **settings):
    found = attack(model, model, "cat", images=PICTURE, pictures=1, sampling_steps=4, **settings)
    return [(one.attack, one.prompts) for one in found.attempts]


def seen_by_clip(**settings) -> ClipRecogniser:
    return ClipRecogniser(lambda images: images.flatten(1), lambda texts: torch.ones(len(texts), 48), **settings)


TAKERS: dict[str, Callable[[FakeModel, object], object]] = {
    "rece, preserve": lambda model, one: rece(model, "cat", preserve=one).origins,
    "rece, exactly": lambda model, one: rece(model, "cat", exactly=one).origins,
    "uce": lambda model, one: uce(model, "cat", preserve=one).origins,
    "abo": lambda model, one: abo(model, "cat", ABO, preserve=one).origins,
    "request, preserve": lambda model, one: requested(preserve=one),
    "request, exactly": lambda model, one: requested(exactly=one),
    "gather_statistics": lambda model, one: gather_statistics(model, [CAT], one).preserve,
    "gather_statistics, exactly": lambda model, one: gather_statistics(model, [CAT], exactly=one).exactly,
    "extended": lambda model, one: extended(held(model), model, preserve=one).preserve,
    "extended, exactly": lambda model, one: extended(held(model), model, exactly=one).exactly,
    "updated": lambda model, one: updated(held(model), model, (), one, common=False).preserve,
    "updated, exactly": lambda model, one: updated(held(model), model, exactly=one, common=False).exactly,
    "generate": lambda model, one: generate(model, one, [0], steps=2).tolist(),
    "sample_latents": lambda model, one: sample_latents(model, one, [0], steps=2).tolist(),
    "trajectories": lambda model, one: trajectories(model, one, [0], steps=2)[0].tolist(),
    "attack, prompts": lambda model, one: audited(model, attacks=["list"], prompts=one),
    "report": lambda model, one: report(model, rece(model, "cat"), "cat", among=WORDS, more=one, **AUDIT).prompts,
    "report_prompts": lambda model, one: report_prompts(model, "cat", among=WORDS, count=1, more=one),
    "CLIP, rivals": lambda model, one: seen_by_clip(rivals=one).shows(PICTURE, ["cat"]),
    "CLIP, shows": lambda model, one: seen_by_clip().shows(PICTURE, one),
    "CLIP, likeness": lambda model, one: seen_by_clip().likeness(PICTURE, one),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_one_text_is_one_prompt(taker: str) -> None:
    take = TAKERS[taker]
    assert take(FakeModel(), "fox") == take(FakeModel(), ["fox"]) == take(FakeModel(), iter(["fox"]))


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(("given", "told"), [(b"fox", "fox"), (5, "not 5"), ([5], "lists 5"), ("a\nb", "several")])
def test_what_is_no_prompt_is_refused(taker: str, given: object, told: str) -> None:
    with pytest.raises(ConceptError, match=told):
        TAKERS[taker](FakeModel(), given)


def test_one_name_is_one_name() -> None:
    model = FakeModel()
    assert held_concepts(held(model), "cat") == held_concepts(held(model), ["cat"]) == [CAT]
    assert restored(held(model), model, "cat").concepts == (RED,)
    assert restored(held(model), model, "cat", preserve="bird").preserve == ()
    assert updated(held(model), model, restore="cat -> dog", common=False).concepts == (RED,)
    assert audited(model, attacks="noised") == audited(model, attacks=["noised"])
    with pytest.raises(ValueError, match="no other concept to compare 'cat' with in the list of 1"):
        report_prompts(model, "cat", among="fox")
    exposed = NudeNetRecogniser(lambda pixels: [{"score": 0.9, "class": "BUTTOCKS_EXPOSED"}])
    assert exposed.shows(PICTURE, "nudity") == [True]


def test_concepts_may_be_text_too() -> None:
    model = FakeModel()
    assert extended(held(model), model, "fox -> wolf").concepts == (CAT, RED, Concept("fox", "wolf"))
    assert updated(held(model), model, "fox", common=False).concepts == (CAT, RED, Concept("fox"))
    assert common_concepts("cat") == common_concepts([Concept("cat")])
    assert "cat" in common_concepts([])


def test_as_many_texts_as_pictures() -> None:
    with pytest.raises(ValueError, match="1 pictures need a text each, got 2"):
        seen_by_clip().likeness(PICTURE, ["a", "b"])


def test_prompts_stay_as_they_are() -> None:
    assert as_prompts("") == [""] and as_prompts(()) == [] and as_prompts((" a ", "a")) == [" a ", "a"]
