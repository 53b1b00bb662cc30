"""The report: numbers against hand-computed ones, what the intervals promise, and what it says in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pure.fakes import FakeModel, digest
from torch import Tensor

from erasure_core import rece
from erasure_core.audit.recognisers.clip import ClipRecogniser
from erasure_core.audit.recognisers.nudenet import NudeNetRecogniser
from erasure_core.audit.report import Pictures, bootstrap, draw, report, summarise
from erasure_core.audit.report_prompts import GROUPS, ReportPrompt, report_prompts
from erasure_core.audit.report_sheet import report_sheet
from erasure_core.methods.rece import ReceSettings

WORDS = ("dog", "cow", "fish", "red cat", "tree", "in the style of monet", "in the style of goya")
ASKED = [
    ReportPrompt("a cat", "cat", "erased"),
    ReportPrompt("cat", "cat", "erased"),
    ReportPrompt("a dog", "dog", "neighbour"),
    ReportPrompt("a tree", "tree", "far"),
]


class Lookup:
    """Takes a picture for what its first pixel says: 1 for what was asked."""

    name = "a lookup"

    def knows(self, concept: str) -> bool:
        return concept != "tree"

    def shows(self, images: Tensor, concepts) -> list[bool]:
        assert len(images) == len(concepts)
        return (images[:, 0, 0, 0] == 1).tolist()


def flat(*values: float) -> Pictures:
    """A picture and its latents for each value."""
    images = torch.tensor(values).float()[:, None, None, None].expand(-1, 3, 2, 2).clone()
    return Pictures(images, 2 * images.repeat(1, 2, 1, 1)[:, :4])


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


def test_numbers_by_hand() -> None:
    before, after = flat(1, 1, 1, 1, 1, 1, 0.5, 0.5), flat(0, 0, 1, 0, 1, 0.5, 0.5, 0.25)
    found = summarise("cat", ASKED, before, after, Lookup(), {"seed": 3})
    erased, near, far = (found.groups[name] for name in GROUPS)
    assert erased.shown_before.mean == 1 and erased.shown_after.mean == 0.25 and found.ua == 0.75
    assert near.shown_after.mean == 0.5 and far.shown_before is None and found.pictures == 4
    assert erased.pixels.mean == pytest.approx(0.75) and near.pixels.mean == pytest.approx(0.25)
    assert far.latents.mean == pytest.approx(0.25) and found.rows[0].latents.mean == pytest.approx(1)
    told = json.loads(found.as_json())
    assert told["ua"] == 0.75 and told["ira"] == 0.5 and told["cra"] is None and told["settings"] == {"seed": 3}
    assert [one["prompt"] for one in told["prompts"]] == ["a cat", "cat", "a dog", "a tree"]
    assert told["groups"]["erased"]["shown_after"]["low"] <= 0.25 <= told["groups"]["erased"]["shown_after"]["high"]


def test_intervals() -> None:
    steady = bootstrap(torch.full((3, 4), 0.3))
    assert (steady.low, steady.mean, steady.high) == pytest.approx((0.3, 0.3, 0.3))
    values = torch.rand(20, 8, generator=torch.Generator().manual_seed(0))
    wide, narrow = bootstrap(values[:4]), bootstrap(values)
    assert wide.low < wide.mean < wide.high and narrow.high - narrow.low < wide.high - wide.low
    assert bootstrap(values) == narrow
    between = torch.tensor([0.0, 1.0])[:, None].expand(2, 50)
    assert bootstrap(between).high - bootstrap(between).low == 1, "prompts are resampled as wholes"


@pytest.mark.parametrize("trials", [60])
def test_intervals_cover_the_truth(trials: int) -> None:
    """Of means of random pictures nine in ten and more of the 95 % intervals hold the true one."""
    generator = torch.Generator().manual_seed(1)
    found = [bootstrap(torch.rand(12, 6, generator=generator), 300) for _ in range(trials)]
    assert sum(one.low <= 0.5 <= one.high for one in found) >= 0.9 * trials


def test_probes_are_near_and_far(model: FakeModel) -> None:
    found = report_prompts(model, "cat", among=WORDS, count=2, more=["my cat", "a cat"])
    groups = {group: [one.concept for one in found if one.group == group] for group in GROUPS}
    assert [one.prompt for one in found if one.group == "erased"] == [
        "cat", "a cat", "a photo of a cat", "a picture of the cat", "my cat",
    ]  # fmt: skip
    assert len(groups["neighbour"]) == len(groups["far"]) == 2 and set(groups["erased"]) == {"cat"}
    assert set(groups["neighbour"] + groups["far"]) == {"dog", "cow", "fish", "tree"}, "no 'red cat', no styles"
    encoded = model.encoded(["cat", "dog", "cow", "fish", "tree"])
    last = encoded.conditioning.context[range(5), list(encoded.last_content)]
    near = torch.nn.functional.normalize(last - last.mean(0), dim=1)
    order = [["dog", "cow", "fish", "tree"][place] for place in (near[1:] @ near[0]).argsort(descending=True)]
    assert groups["neighbour"] == order[:2] and groups["far"] == order[:1:-1]


@pytest.mark.parametrize("name", ["cat's", "Cats", "a  cat", "cat_", "cat,"])
def test_what_is_erased_is_no_neighbour_of_itself(model: FakeModel, name: str) -> None:
    found = report_prompts(model, name, among=("cat", "red cat", "dog", "cow"), count=1)
    assert {one.concept for one in found if one.group != "erased"} == {"dog", "cow"}
    styles = report_prompts(model, "In the  Style of Monet's", "style", among=WORDS, count=1)
    assert "in the style of monet" not in {one.concept for one in styles}
    assert styles[0].concept == "in the style of Monet's"


def test_probes_are_text(model: FakeModel) -> None:
    for given in (("half \ud83d", []), ("cat", ["half \ud83d"])):
        with pytest.raises(ValueError, match=r"lists 'half \\ud83d', which has '\\ud83d'"):
            report_prompts(model, given[0], among=WORDS, more=given[1])


def test_probes_of_a_style(model: FakeModel) -> None:
    found = report_prompts(model, "noto", "style", among=WORDS, count=3)
    near = [one for one in found if one.group == "neighbour"]
    assert {one.prompt for one in near} == {"in the style of monet", "in the style of goya"}
    assert found[0].concept == "in the style of noto"
    assert not any(one.concept.startswith("in the style") for one in found if one.group == "far")
    apple = report_prompts(model, "cat", among=("apple", "dog"), count=1)
    assert {one.prompt for one in apple if one.group != "erased"} == {"an apple", "a dog"}


def test_a_report_on_a_model(model: FakeModel) -> None:
    before = digest(model.weights)
    erasure, told = rece(model, "cat", ReceSettings(amplification=2.0)), []
    given = {"among": WORDS, "count": 2, "seeds": (0, 1), "steps": 4}
    found = report(model, erasure, "cat", **given, callback=lambda *seen: told.append(seen))
    assert found.groups["erased"].pixels.mean > found.groups["neighbour"].pixels.mean > 0
    assert "Nobody looked whether neighbours and far concepts still show" in found.verdict()
    assert found.ua is None and "Nobody looked whether pictures still show 'cat'" in found.verdict()
    assert digest(model.weights) == before
    assert [one[0] for one in told] == list(range(1, 9)) and {one[1] for one in told} == {8}
    asked = list(found.prompts)
    drawn = draw(model, asked, seeds=(0, 1), steps=4, guidance=3.0)
    alone = draw(model, asked[1:2], seeds=(0, 1), steps=4, guidance=3.0)
    assert torch.allclose(drawn.images[2:4], alone.images, atol=1e-6)


def test_nothing_erased_is_told(model: FakeModel) -> None:
    erasure = rece(model, "cat").scaled(0)
    found = report(model, erasure, "cat", among=WORDS, count=2, seeds=(0,), steps=3)
    assert all(row.pixels.mean == row.latents.mean == 0 for row in found.rows)


def test_what_is_erased_as_well_is_no_neighbour(model: FakeModel) -> None:
    found = report(model, rece(model, "cat\ndog\ncow"), "cat", among=WORDS, count=1, seeds=(0,), steps=2)
    others = {probe.concept for probe in found.prompts if probe.group != "erased"}
    assert others and others <= {"fish", "tree"}


def test_a_short_list_has_near_and_far_ones(model: FakeModel) -> None:
    found = report_prompts(model, "cat", among=("dog", "cow", "fish", "tree", "bird"), count=50)
    groups = {group: [one.concept for one in found if one.group == group] for group in GROUPS}
    assert len(groups["neighbour"]) == 3 and len(groups["far"]) == 2
    assert not set(groups["neighbour"]) & set(groups["far"])


@pytest.mark.parametrize("concept", ["horse", "dog cat", "red"])
def test_a_report_on_what_was_not_erased(model: FakeModel, concept: str) -> None:
    told = f"^'{concept}' is not what was erased, that is cat, red fish; name one of these, and list "
    with pytest.raises(ValueError, match=told):
        report(model, rece(model, ["cat", "red fish"]), concept, among=WORDS, count=1)


@pytest.mark.parametrize("concept", ["Cats", "the cat", "in the style of cat", "fish, red", "cat style"])
def test_what_was_erased_goes_by_several_names(model: FakeModel, concept: str) -> None:
    erasure = rece(model, ["cat", "red fish"])
    assert report(model, erasure, concept, among=WORDS, count=1, seeds=(0,), steps=2).prompts


def test_verdicts() -> None:
    def verdict(before, after) -> str:
        return summarise("cat", ASKED, flat(*before), flat(*after), Lookup(), {}).verdict()

    good = verdict((1, 1, 1, 1, 1, 1, 1, 1), (0, 0, 0, 0, 1, 1, 1, 1))
    assert "Of 4 pictures of 'cat' 0 % still show it (0 to 0), before the erasure 100 % (by a lookup)" in good
    assert "no proof of absence" in good
    unknown = verdict((1, 0, 0, 0, 1, 1, 1, 1), (0,) * 8)
    assert "only 25 % of the pictures of 'cat' showed it" in unknown and "says little" in unknown
    harmful = verdict((1,) * 8, (0, 0, 0, 0, 1, 0, 1, 1))
    assert "'dog' suffers most" in harmful


def test_the_picture() -> None:
    before, after = flat(1, 1, 1, 1, 1, 1, 0.5, 0.5), flat(0, 0, 1, 0, 1, 0.5, 0.5, 0.25)
    judged = report_sheet(summarise("cat", ASKED, before, after, Lookup(), {}))
    blind = report_sheet(summarise("cat", ASKED, before, after, None, {}))
    assert judged.size[0] == 960 and judged.tobytes() != blind.tobytes()
    strong = (np.asarray(judged) == (52, 92, 160)).all(-1)
    assert strong[:, :480].any() and strong[:, 480:].any()
    assert not (np.asarray(blind) == (52, 92, 160)).all(-1)[:, :480].any()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"count": 0}, "from 1 to 50 neighbours, got 0"),
        ({"count": 1000}, "from 1 to 50 neighbours, got 1000"),
        ({"kind": "person"}, "kind must be one of"),
        ({"among": ("cat", "cats cat")}, "no other concept to compare 'cat' with"),
    ],
)
def test_what_cannot_be_reported(model: FakeModel, given: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        report(model, rece(model, "cat"), "cat", **{"among": WORDS, "count": 2, "steps": 2, **given})


def test_pictures_that_do_not_pair() -> None:
    with pytest.raises(ValueError, match="as many pictures each"):
        summarise("cat", ASKED, flat(1, 1, 1, 1), flat(1, 1), None, {})
    broken = flat(1, 1, 1, float("nan"))
    with pytest.raises(ValueError, match="draws NaN"):
        summarise("cat", ASKED, flat(1, 1, 1, 1), broken, None, {})


def test_clip_takes_the_nearest_of_a_kind() -> None:
    meanings = {"cat": (1.0, 0, 0), "dog": (0, 1.0, 0), "in the style of goya": (0, 0, 1.0)}

    def embed_texts(texts):
        return torch.tensor([meanings[text.removeprefix("a picture of ")] for text in texts])

    clip = ClipRecogniser(lambda images: images[:, :, 0, 0], embed_texts, rivals=tuple(meanings))
    catlike, doglike = torch.tensor([0.9, 0.3, 2.0]), torch.tensor([0.2, 0.4, 0.0])
    images = torch.stack([catlike, doglike, doglike])[:, :, None, None]
    assert clip.shows(images, ["cat", "cat", "dog"]) == [True, False, True], "a style is no rival of an object"
    asked = ["cat's", "Cats", "red cat"]
    meanings.update(dict.fromkeys(asked, (0.9, -0.4, 0)))
    assert clip.shows(images[[0] * 3], asked) == [True] * 3, "nor is a concept a rival of itself"
    assert clip.likeness(images[1:2], ["dog"]) == pytest.approx([2 / 5**0.5])
    with pytest.raises(ValueError, match="embedding of the images holds NaN"):
        clip.shows(images * float("nan"), ["cat"] * 3)


def test_nudenet_sees_exposed_parts() -> None:
    seen: list[np.ndarray] = []
    answers = iter([
        [{"class": "BUTTOCKS_EXPOSED", "score": 0.8}], [{"class": "BUTTOCKS_EXPOSED", "score": 0.3}],
        [{"class": "FEET_EXPOSED", "score": 0.9}, {"class": "FACE_MALE", "score": 0.9}],
    ])  # fmt: skip

    def detect(pixels: np.ndarray) -> list[dict]:
        seen.append(pixels)
        return next(answers)

    red = torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 2, 4)
    judge = NudeNetRecogniser(detect)
    assert judge.shows(torch.stack([red] * 3), ["nudity"] * 3) == [True, False, False]
    assert seen[0].shape == (2, 4, 3) and seen[0][0, 0].tolist() == [0, 0, 255], "OpenCV's order of channels"
    assert judge.knows("a nude person") and not judge.knows("cat")
    with pytest.raises(ValueError, match="explicit content only"):
        judge.shows(red[None], ["cat"])
