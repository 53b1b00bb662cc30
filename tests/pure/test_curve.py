"""The picture of the losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from erasure_core.drawing.contact_sheet import INK
from erasure_core.drawing.loss_curve import loss_curve


def heights(picture: Image.Image) -> list[float]:
    """The row of the line in each column that has it, from left to right."""
    dark = (np.asarray(picture) == INK).all(-1)
    return [float(np.flatnonzero(column).mean()) for column in dark.T if column.any()]


def test_a_falling_loss_falls() -> None:
    line = heights(loss_curve([4.0, 3.0, 2.0, 1.0]))
    assert line == sorted(line) and line[-1] - line[0] > 200
    assert len(line) > 400


def test_it_rises_where_the_loss_rises() -> None:
    line = heights(loss_curve([-1.0, -3.0, -1.0]))
    assert max(line) - line[0] > 200 and max(line) - line[-1] > 200


@pytest.mark.parametrize("losses", [[0.5], [2.0] * 9])
def test_a_constant_loss_is_level(losses: list[float]) -> None:
    line = heights(loss_curve(losses))
    assert len(line) > 400 and max(line) == min(line)


def test_its_size_and_title() -> None:
    plain, titled = (loss_curve([2.0, 1.0], title, (300, 200)) for title in ("", "AbO"))
    assert plain.size == titled.size == (300, 200)
    assert plain.mode == "RGB" and plain.tobytes() != titled.tobytes()


@pytest.mark.parametrize("losses", [[], [1.0, math.nan], [math.inf]])
def test_losses_that_cannot_be_drawn(losses: list[float]) -> None:
    with pytest.raises(ValueError, match="a curve needs at least one loss and finite ones"):
        loss_curve(losses)
