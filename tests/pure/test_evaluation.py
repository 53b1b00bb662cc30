"""Captions, counting, tables, sheets and bars; what the judge sees is made up."""

from __future__ import annotations

import io
import math
from collections import Counter

import pytest
import torch
from PIL import Image
from pure.fakes import FakeModel

from erasure_core import Concept, rece
from erasure_core.commands.progress import Progress
from erasure_core.drawing.contact_sheet import Section, contact_sheet
from erasure_core.drawing.table import percent, table
from erasure_core.files.images import save_image, to_image
from erasure_core.toy import evaluation
from erasure_core.toy.captions import COLOURS, OBJECTS, STYLES, Caption
from erasure_core.toy.evaluation import (
    NAMES,
    Gallery,
    Subject,
    captions_for,
    check_erased,
    drift_outside,
    evaluate_erasure,
    pictures_of,
    score,
    subject_of,
)
from erasure_core.toy.judge import Verdict
from erasure_core.toy.renders import load_renders


def gallery(*seen: tuple[str, str, str], asked: list[Caption]) -> Gallery:
    return Gallery(tuple(asked), torch.zeros(len(asked), 3, 2, 2), Verdict(*map(list, zip(*seen, strict=True))))


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("cat", "object", "cat"), (" Kitten ", "object", "cat"), ("in the style of noto", "style", "noto"),
        ("noto style", "style", "noto"), ("blue background", "colour", "blue"), ("blue", "colour", "blue"),
        ("cat's", "object", "cat"), ("the Kittens", "object", "cat"), ("In the  style of Noto", "style", "noto"),
        ("cherry", "object", "cherries"), ("cat_", "object", "cat"),
    ],
)  # fmt: skip
def test_what_kind_a_concept_is(text: str, kind: str, name: str) -> None:
    assert subject_of(text) == subject_of(Concept(text, "x")) == Subject(kind, name)


def test_what_the_toy_does_not_draw() -> None:
    with pytest.raises(ValueError, match="does not draw 'wolf'.*objects: cat, dog"):
        subject_of("wolf")


@pytest.mark.parametrize("subject", [Subject("object", "cat"), Subject("style", "noto"), Subject("colour", "red")])
def test_captions_are_complete_and_even(subject: Subject) -> None:
    captions = captions_for(subject, 24, 96, seed=1)
    named = [getattr(caption, subject.kind) == subject.name for caption in captions]
    assert named == [True] * 24 + [False] * 96
    for kind, names in (("object", OBJECTS), ("style", STYLES), ("colour", tuple(COLOURS))):
        counts = Counter(getattr(caption, kind) for caption in captions[24:])
        expected = set(names) - ({subject.name} if kind == subject.kind else set())
        assert set(counts) == expected and max(counts.values()) - min(counts.values()) <= 1
    assert captions == captions_for(subject, 24, 96, seed=1) != captions_for(subject, 24, 96, seed=2)


def test_drift_is_counted_where_there_was_background() -> None:
    """A cat of one black pixel on red that moves by a pixel; what happens to the dog and to the cat's place is not
    counted."""
    red = torch.tensor(COLOURS["red"]) / 255
    images = red[:, None, None].expand(2, 3, 2, 2).clone()
    images[:, :, 0, 0] = 0
    moved = images.clone()
    moved[0, :, 0, 0], moved[0, :, 0, 1] = red, 0
    moved[1] = 0.5
    asked = (Caption("cat", "noto", "red"), Caption("dog", "noto", "red"))
    before, after = (Gallery(asked, shown, Verdict([], [], [])) for shown in (images, moved))
    expected = float((red.square().mean() / 3).sqrt())
    assert drift_outside(before, after, Subject("object", "cat")) == pytest.approx(expected)
    assert drift_outside(before, before, Subject("object", "cat")) == 0


def test_drift_needs_captions_that_name_a_background() -> None:
    gallery = Gallery((Caption("cat"),), torch.zeros(1, 3, 2, 2), Verdict([], [], []))
    with pytest.raises(ValueError, match="'a cat' names no background"):
        drift_outside(gallery, gallery, Subject("object", "cat"))


@pytest.mark.parametrize("subject", [Subject("object", "cat"), Subject("style", "noto")])
def test_real_pictures_of_a_subject(subject: Subject) -> None:
    captions, images = load_renders()
    pictures = pictures_of(subject)
    assert pictures.shape == (4, 3, 64, 64) and len(pictures.flatten(1).unique(dim=0)) == 4
    pairs = zip(captions, images, strict=True)
    own = [image for caption, image in pairs if subject.name in (caption.object, caption.style)]
    assert all(any(torch.equal(picture, image) for image in own) for picture in pictures)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "subject", [Subject("object", "cat"), *(Subject("style", name) for name in STYLES), Subject("colour", "red")]
)
def test_pictures_share_nothing_but_their_subject(subject: Subject, seed: int) -> None:
    captions, images = load_renders()
    places = [[torch.equal(one, image) for image in images].index(True) for one in pictures_of(subject, seed=seed)]
    for kind in NAMES:
        names = {getattr(captions[place], kind) for place in places}
        assert names == {subject.name} if kind == subject.kind else len(names) == 4, f"they share a {kind}"


def test_pictures_of_a_subject_differ_by_seed() -> None:
    one, same, other = (pictures_of(Subject("style", "noto"), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert len(pictures_of(Subject("object", "cat"), 8)) == 4


def test_counting_an_erased_object() -> None:
    asked = [Caption("cat", "noto", "red")] * 4 + [Caption("dog", "blob", "blue")] * 4
    seen = [("dog", "noto", "red")] * 3 + [("cat", "noto", "red")]
    seen += [("dog", "blob", "blue"), ("dog", "noto", "red"), ("dog", "blob", "red"), ("cat", "noto", "red")]
    found = score(gallery(*seen, asked=asked), Subject("object", "cat"))
    assert (found.ua, found.ira, found.cra, found.colour) == (0.75, 0.75, 0.5, 0.25)
    assert (found.erased, found.others) == (4, 4)


def test_counting_an_erased_style() -> None:
    asked = [Caption("cat", "noto", "red")] * 2 + [Caption("dog", "blob", "blue")] * 2
    seen = [("cat", "noto", "red"), ("dog", "blob", "red"), ("dog", "noto", "blue"), ("cat", "blob", "red")]
    found = score(gallery(*seen, asked=asked), Subject("style", "noto"))
    assert (found.ua, found.ira, found.cra, found.colour) == (0.5, 0.5, 0.5, 0.5)


def test_counting_an_erased_colour() -> None:
    asked = [Caption("cat", "noto", "red"), Caption("dog", "blob", "blue")]
    found = score(gallery(("cat", "noto", "red"), ("dog", "noto", "blue"), asked=asked), Subject("colour", "red"))
    assert (found.ua, found.ira, found.cra, found.colour) == (0.0, 1.0, 1.0, 1.0)


def test_counting_nothing() -> None:
    asked = [Caption("cat", "noto", "red")]
    found = score(gallery(("cat", "noto", "red"), asked=asked), Subject("object", "cat"))
    assert found.ua == 0 and math.isnan(found.ira) and percent(found.ira) == "-"


def test_a_table_lines_up() -> None:
    text = table(("concept", "UA"), [["cat", "100"], ["noto -> fluent", percent(0.954)]])
    assert text.splitlines() == [
        "| concept        |  UA |",
        "| -------------- | --: |",
        "| cat            | 100 |",
        "| noto -> fluent |  95 |",
    ]
    with pytest.raises(ValueError, match="a row has 1 cells, the header 2"):
        table(("a", "b"), [["c"]])


def section(**changes) -> Section:
    rows = [("before", torch.zeros(3, 3, 64, 64)), ("after", torch.full((3, 3, 64, 64), 0.5))]
    values = {"title": "erase cat", "captions": ["cat", "a dog in the style of noto", "c"], "rows": rows}
    return Section(**{**values, **changes})


def test_a_sheet_shows_every_picture_at_twice_its_size() -> None:
    sheet = contact_sheet([section(), section(groups=(("concept", 1), ("others", 2)))])
    colours = dict((colour, count) for count, colour in sheet.getcolors(1 << 20))
    assert colours[(128, 128, 128)] >= 2 * 3 * 128 * 128 <= colours[(0, 0, 0)]
    wider = contact_sheet([section(rows=[("row", torch.zeros(3, 3, 64, 64))])], scale=3)
    assert wider.width > 3 * 3 * 64


def test_a_sheet_needs_a_caption_a_picture() -> None:
    with pytest.raises(ValueError, match="row 'before' has 3 pictures for 1 captions"):
        contact_sheet([section(captions=["cat"])])


def test_pictures_are_clamped() -> None:
    image = to_image(torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(3, 2, 2))
    assert image.getpixel((0, 0)) == (0, 128, 255)


def test_a_sheet_is_saved_whole(tmp_path, monkeypatch) -> None:
    path = save_image(contact_sheet([section()]), tmp_path / "a.png")
    assert Image.open(path).format == "PNG" and [p.name for p in tmp_path.iterdir()] == ["a.png"]
    before = path.read_bytes()

    def fail(self, target, **_) -> None:
        target.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_image(contact_sheet([section()]), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_and_wiped() -> None:
    stream = Terminal()
    with Progress("erase", stream, patience=0) as bar:
        bar(1, 4, "encoding")
    text = stream.getvalue()
    assert "erase: encoding [########......................]  25 %" in text and text.endswith("\r")


def test_a_bar_waits_for_a_second_and_stays_out_of_files() -> None:
    patient, file = Terminal(), io.StringIO()
    with Progress("erase", patient) as bar, Progress("erase", file, patience=0) as other:
        bar(1, 4, "encoding")
        other(1, 4, "encoding")
    assert patient.getvalue() == file.getvalue() == ""


def test_what_is_erased_as_well_is_no_damage() -> None:
    """Neither the others of its kind nor styles and colours that are erased too are counted on."""
    subject, apart = Subject("object", "cat"), [Concept("puppies"), Concept("in the style of noto"), Concept("wolf")]
    captions = captions_for(subject, 24, 96, 1, apart)
    assert [one.object == "cat" for one in captions] == [True] * 24 + [False] * 96
    assert {one.object for one in captions[24:]} == set(OBJECTS) - {"cat", "dog"}
    assert {one.style for one in captions} == set(STYLES) - {"noto"}
    assert {one.colour for one in captions} == set(COLOURS)
    assert captions_for(subject, 24, 96, 1, [Concept("cat"), Concept("wolf")]) == captions_for(subject, 24, 96, 1)
    with pytest.raises(ValueError, match="every style that the embedded model draws is erased; none is left"):
        captions_for(subject, 1, 1, 1, [Concept(style) for style in STYLES])


def test_captions_keep_apart_what_an_erasure_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = FakeModel(), []
    erasure = rece(model, ["cat", "dog"])
    monkeypatch.setattr(evaluation, "draw", lambda model, judge, captions, **given: asked.append(captions))
    monkeypatch.setattr(evaluation, "score", lambda gallery, subject: None)
    evaluate_erasure(model, None, "cat", erasure, seed=2)
    evaluate_erasure(model, None, "cat", apart=erasure.concepts, seed=2)
    assert asked[0] == asked[1] == captions_for(Subject("object", "cat"), 24, 64, 2, [Concept("dog")])
    with pytest.raises(ValueError, match="'cow' is not what was erased, that is cat, dog; name one of these"):
        evaluate_erasure(model, None, "cow", erasure)


def test_what_is_judged_was_erased() -> None:
    for name in ("kitten", "Cat", "the cats"):
        check_erased(name, [Concept("cat"), Concept("noto style")])
    check_erased("in the style of noto", [Concept("noto")])
    check_erased("cat", [Concept("kitten")])
    with pytest.raises(ValueError, match="'dog' is not what was erased, that is cat; name one of these"):
        check_erased("dog", [Concept("cat")])
