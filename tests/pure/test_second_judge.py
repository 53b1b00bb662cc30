"""The second judge of the results: the nearest object, without the renders of a picture's own style."""

from __future__ import annotations

import torch
from results.second_judge import SETTINGS, jobs, nearest, section

from erasure_core.toy.captions import OBJECTS, STYLES, Caption

CAPTIONS = [Caption(name, style) for name in OBJECTS for style in STYLES]


def known(away: float = 0.0) -> torch.Tensor:
    """Features of all objects in all styles: an axis for each object, one for each style and one that all share."""
    rows = torch.zeros(len(CAPTIONS), len(OBJECTS) + len(STYLES) + 1)
    for row, caption in zip(rows, CAPTIONS, strict=True):
        row[OBJECTS.index(caption.object)] = 1.0
        row[len(OBJECTS) + STYLES.index(caption.style)] = away
        row[-1] = 50.0
    return rows


def test_the_nearest_object_is_named() -> None:
    names = nearest(known(), [caption.style for caption in CAPTIONS], known(), CAPTIONS)
    assert names == [caption.object for caption in CAPTIONS]


def test_the_renders_of_its_own_style_say_nothing() -> None:
    """They are swapped, cats for dogs, and the answer is the same; with another style left out it is wrong."""
    features = known()
    cat, dog = (CAPTIONS.index(Caption(name, "noto")) for name in ("cat", "dog"))
    features[[cat, dog]] = features[[dog, cat]]
    picture = known()[[cat]]
    assert nearest(picture, ["noto"], features, CAPTIONS) == ["cat"]
    features[[place for place, one in enumerate(CAPTIONS) if one.object == "cat" and one.style != "noto"]] = 0.0
    assert nearest(picture, ["twemoji"], features, CAPTIONS) != ["cat"]


def test_what_all_features_share_does_not_count() -> None:
    picture = known()[[0]] * torch.tensor([1.0] * (len(OBJECTS) + len(STYLES)) + [1.02])
    assert nearest(picture, [STYLES[0]], known(), CAPTIONS) == [OBJECTS[0]]


def test_the_table_has_both_judges_and_where_they_disagree() -> None:
    shares = {f"{what}, {group}": 0.5 for what in ("first", "second") for group in ("erased", "others")}
    rows = [{**job, "renders": 0.8, **shares, "agree, erased": 0.9, "agree, others": 0.75} for job in jobs()]
    text = section(rows)
    lines = [line for line in text.splitlines() if line.startswith("| dog")]
    assert len(lines) == len(SETTINGS) and "it names 80 % of the real" in text
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["dog, unedited", "50", "50", "10", "50", "50", "25"]
