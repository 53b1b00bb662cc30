"""What is done again and again with a real model leaves no tensor behind."""

from __future__ import annotations

import pytest
from pure.live import leaves_nothing, small_run

from erasure_core import Erasure, rece
from erasure_core.audit.attacks import ATTACKS
from erasure_core.audit.compare import compare
from erasure_core.audit.recognisers.toy import ToyRecogniser
from erasure_core.audit.red_team import attack
from erasure_core.audit.report import report
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.update import updated
from erasure_core.methods import METHODS
from erasure_core.sampling.purify import purify
from erasure_core.toy.evaluation import evaluate_erasure, pictures_of, subject_of

IMAGES = pictures_of(subject_of("cat"), 2)
REPEATS = 2


@pytest.fixture(scope="module")
def without_cats(toy) -> Erasure:
    return rece(toy, "cat -> dog")


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, toy) -> None:
    more = {"anchors": 2} if method == "doco" else {}
    leaves_nothing(lambda: small_run(method, toy, IMAGES, **more), REPEATS)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack(name: str, toy, without_cats: Erasure) -> None:
    settings = {"attacks": [name], "prompts": ["a kitten"], "images": IMAGES, "pictures": 2, "sampling_steps": 2}

    def act() -> None:
        found = attack(toy, without_cats.over(toy), "cat", recogniser=ToyRecogniser(), steps=3, **settings)
        found.picture()

    leaves_nothing(act, REPEATS)


def test_audits(toy, without_cats: Erasure) -> None:
    def act() -> None:
        report(toy, without_cats, "cat", count=1, seeds=(0,), steps=2, recogniser=ToyRecogniser())
        compare(toy, {"one": without_cats}, ["a cat"], steps=2, difference=True)
        purify(toy, without_cats, IMAGES, steps=2)

    leaves_nothing(act, REPEATS)


def test_statistics(toy) -> None:
    def act() -> None:
        updated(gather_statistics(toy, "cat -> dog", ["bird"]), toy, "fox", restore="cat", common=False)

    leaves_nothing(act, REPEATS)


def test_evaluation(toy, judge, without_cats: Erasure) -> None:
    leaves_nothing(lambda: evaluate_erasure(toy, judge, "cat", without_cats, erased=1, others=1), REPEATS)
