"""What the benchmark of RECE does with what it measures; its models are too large for tests."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import measure
from benchmarks.cases import CASES, Case
from benchmarks.plot import COLOURS, beside, log_chart
from benchmarks.rece_page import exponent, page, panels, ratio
from erasure_core.concepts.common import EVERYDAY_CAPTIONS
from erasure_core.methods.rece import RECE

TITLES = {"one": "One", "sd15": "SD 1.5", "sdxl": "SDXL"}


def row(family: str = "one", concepts: int = 10, encode: float = 2.0, megabytes: float = 100.0, **more) -> dict:
    run = {
        "rece": {"encode": encode, "Gram": 1.0, "maps": 0.5, "deltas": 0.5},
        "floor": {"encode": encode, "Gram": 0.5, "deltas": 0.5},
    }
    return {
        "case": f"{family}-{concepts}", "family": family, "concepts": concepts, "common": False,
        "published": False, "loops": 3,
        "prompts": concepts + 1, "layers": 32, "repeats": 0, "first": 9.0, "megabytes": megabytes, "rank": 768,
        "result": 40.0, "error": 0.0, "weights": 1400.0, "machine": "a machine", "revision": "abc",
        "clock": "processor", "runs": [run], **more,
    }  # fmt: skip


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    assert exponent([(n, 7 * n**power) for n in (10, 100, 1000)]) == pytest.approx(power, abs=1e-12)


def test_the_exponent_is_the_slope_of_the_best_line() -> None:
    """The middle one of three evenly spaced points does not tilt it."""
    assert exponent([(10, 10), (100, 9999), (1000, 1000)]) == pytest.approx(1)
    assert exponent([(10, 3)]) is None


def test_the_ratio_is_of_each_run() -> None:
    runs = [{"rece": {"encode": ours}, "floor": {"encode": 1.0}} for ours in (1.0, 2.0, 9.0)]
    assert ratio(row(runs=runs)) == 2


def test_the_page_tells_growth_without_the_first_concept() -> None:
    rows = [row(concepts=1, encode=1e6), row(concepts=10, encode=2.0), row(concepts=100, encode=20.0)]
    text = page(rows, TITLES, missing=[])
    assert "| One, 10 to 100 concepts |     1.00 |     0.00 |   0.00 |" in text
    assert "Every case was measured." in text


@pytest.mark.parametrize(("megabytes", "verdict"), [(1500, "met"), (1501, "missed")])
def test_the_worst_number_of_concepts_decides_on_memory(megabytes: float, verdict: str) -> None:
    rows = [row("sdxl", 1, megabytes=9), row("sdxl", 10, megabytes=megabytes), row("sdxl", 100, megabytes=5)]
    told = f"1,500 MB beyond the weights: **{verdict}** ({megabytes:,} with 10; measured with 1, 10, 100)."
    assert told in page(rows, TITLES, [])


def test_a_target_is_met_only_so_far_while_cases_are_missing() -> None:
    rows = [row("sdxl", 1), row("sdxl", 10)]
    assert "**met so far** (100 with 1; measured with 1, 10)." in page(rows, TITLES, ["sdxl-100"])
    assert "**met** (100 with 1; measured with 1, 10)." in page(rows, TITLES, ["sd15-100"])


def test_the_page_says_what_was_not_measured() -> None:
    text = page([row()], TITLES, missing=["sdxl-100", "sdxl-1000"])
    assert "Not measured: sdxl-100, sdxl-1000." in text
    assert "- SDXL, any number of concepts: at most 1,500 MB beyond the weights: not measured." in text


def test_common_concepts_and_published_settings_have_a_row_but_no_point() -> None:
    rows = [row(), row(common=True, prompts=30), row(published=True)]
    text = page(rows, TITLES, [])
    assert "One, 10 concepts, common concepts preserved" in text and "One, 10 concepts, as published" in text
    assert panels(rows, TITLES)["encoding, seconds"] == {"One": [(10, 2.0)]}


def test_a_chart_has_a_power_as_a_straight_line() -> None:
    """Its middle point is half-way in both directions; the size is that of pictures side by side."""
    chart = log_chart({"One": [(1, 1), (10, 10), (100, 100)]}, "seconds", "concepts")
    below_the_name = np.asarray(chart)[60:]
    y, x = np.nonzero((below_the_name == COLOURS[0]).all(-1))
    heights = [y[abs(x - at) <= 1].mean() for at in (x.min(), (x.min() + x.max()) / 2, x.max())]
    assert heights[0] > heights[1] + 50 > heights[2] + 100
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=2)
    assert beside([chart, chart]).size == (2 * chart.width, chart.height)


@pytest.mark.parametrize("lines", [{}, {"One": [(1, 0.0)]}, {"One": [(1, float("nan"))]}])
def test_a_chart_refuses_what_has_no_logarithm(lines: dict) -> None:
    with pytest.raises(ValueError, match="points above 0"):
        log_chart(lines, "", "")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that goes on when it is told to."""
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(measure, "now", lambda: clock.seconds)
    return clock


def test_phases_are_known_by_what_rece_reports(clock: SimpleNamespace) -> None:
    """What belongs to none counts to the phase before, and after the end nothing counts."""
    told = {
        "encoding prompts": 1, "gathering weights": 2, "erasing": 4, "erasing what would bring it back, loop 1": 8,
        "something new": 16, "forming the changes": 32, "done": 64,
    }  # fmt: skip
    phases = measure.Phases()
    for what, seconds in told.items():
        phases(0, 1, what)
        clock.seconds += seconds
    assert phases.seconds == {"encode": 1, "Gram": 2, "maps": 4 + 8 + 16, "deltas": 32}


def test_a_row_through_both_encoders_is_counted_once(clock: SimpleNamespace) -> None:
    class Slow(torch.nn.Module):
        def forward(self, ids):
            clock.seconds += 1
            return (ids,)

    pipe = SimpleNamespace(text_encoder=Slow(), text_encoder_2=Slow())
    with measure.EncoderPasses(pipe) as passes:
        for ids in (torch.zeros(3, 77), torch.zeros(2, 77)):
            pipe.text_encoder(ids)
            pipe.text_encoder_2(ids)
            clock.seconds += 100
    pipe.text_encoder(torch.zeros(9, 77))
    assert (passes.rows, passes.seconds) == (5, 4)


def test_a_thousand_concepts_differ_and_begin_as_fewer_do() -> None:
    names = [concept.name for concept in CASES["sdxl-1000"].concepts()]
    assert len(set(names)) == len(names) == 1000
    assert [concept.name for concept in Case("sd15", 10).concepts()] == names[:10]


def test_the_default_is_measured_with_its_captions() -> None:
    case = CASES["sd15-1"]
    assert case.settings == next(iter(RECE.values())) and case.settings.everyday_captions
    assert set(case.prompts()) == {"old person", " ", "", *EVERYDAY_CAPTIONS}
    assert CASES["sd15-1-published"].prompts() == ["old person", " "]


def test_common_concepts_are_encoded_too() -> None:
    case = CASES["sd15-1-common"]
    assert case.prompts() == ["old person", " ", *case.preserve(), "", *EVERYDAY_CAPTIONS]
    assert "person" not in case.preserve() and "cat" in case.preserve()
