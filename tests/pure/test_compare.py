"""Grids: what stands where, and the same pictures as sampling gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pure.fakes import FakeModel, digest

from erasure_core import rece
from erasure_core.audit import compare as compare_module
from erasure_core.audit.compare import compare, grid, heat
from erasure_core.sampling.ddim import generate


def flat(*colours: tuple[float, float, float]) -> torch.Tensor:
    """One picture of 64 x 64 for each colour."""
    return torch.tensor(colours).float()[:, :, None, None].expand(-1, -1, 64, 64).clone()


def colours_in(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(sheet).reshape(-1, 3)}


def where(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[float, float]:
    """The middle of all pixels of a colour: x, y."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(-1))
    assert len(rows), colour
    return float(columns.mean()), float(rows.mean())


RED, GREEN, BLUE, PINK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)
COLUMNS = {"before": flat((1, 0, 0), (0, 1, 0)), "after": flat((0, 0, 1), (1, 0, 1))}


def test_rows_are_prompts_and_columns_are_models() -> None:
    sheet = grid(["a cat", "a dog"], COLUMNS)
    (red, green, blue, pink) = (where(sheet, colour) for colour in (RED, GREEN, BLUE, PINK))
    assert red[0] == green[0] < blue[0] == pink[0]
    assert red[1] == blue[1] < green[1] == pink[1]


def test_the_difference_stands_beside_its_column() -> None:
    sheet = grid(["a", "b"], {"before": COLUMNS["before"], "after": COLUMNS["before"]}, difference=True)
    assert sheet.width > grid(["a", "b"], {"before": COLUMNS["before"], "after": COLUMNS["before"]}).width
    assert where(sheet, (0, 0, 0))[0] > where(sheet, RED)[0]


def test_heat_is_black_where_nothing_changed_and_white_where_all_did() -> None:
    before, after = torch.zeros(3, 1, 4), torch.zeros(3, 1, 4)
    after[:, 0, 1:] = torch.tensor([0.5 / 3, 1 / 3, 1.0])
    found = heat(before, after)[:, 0].T
    expected = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_large_pictures_are_shrunk_and_small_ones_enlarged() -> None:
    large = grid(["a"], {"before": torch.rand(1, 3, 512, 512), "after": torch.rand(1, 3, 512, 512)})
    assert 512 < large.width < 700 and 256 < large.height < 400
    small = grid(["a"], {"before": torch.rand(1, 3, 8, 8)})
    assert small.height < 150


def test_a_long_prompt_is_wrapped() -> None:
    short, long = (grid([text], {"before": torch.rand(1, 3, 64, 64)}) for text in ("word", "word " * 60))
    assert long.width < short.width + 300


def test_columns_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'after' has pictures of shape \(1, 3, 64, 64\), not \(2, 3, 64, 64\)"):
        grid(["a", "b"], {"before": flat(RED, RED), "after": flat(RED)})


def test_compare_draws_what_sampling_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = FakeModel(), {}
    erasures = {"mild": rece(model, "cat -> dog"), "strong": rece(model, "cat -> dog").scaled(2)}
    before, told = digest(model.weights), []

    def record(rows, columns, *, difference):
        seen.update(rows=rows, columns=columns, difference=difference)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(compare_module, "grid", record)
    compare(
        model, erasures, ["cat", "dog"], seeds=[3, 4], steps=2, difference=True,
        callback=lambda done, total, what: told.append((done, total)),
    )  # fmt: skip
    assert digest(model.weights) == before
    assert seen["rows"] == ["cat (3)", "cat (4)", "dog (3)", "dog (4)"] and seen["difference"]
    asked = ["cat", "cat", "dog", "dog"], [3, 4, 3, 4]
    assert list(seen["columns"]) == ["before", "mild", "strong"]
    assert torch.equal(seen["columns"]["before"], generate(model, *asked, steps=2))
    with erasures["strong"].applied_to(model):
        assert torch.equal(seen["columns"]["strong"], generate(model, *asked, steps=2))
    assert told == [(done, 6) for done in range(1, 7)]


def test_what_cannot_be_compared() -> None:
    model = FakeModel()
    erasure = rece(model, "cat -> dog")
    for prompts, seeds in (([], [0]), (["cat"], [])):
        with pytest.raises(ValueError, match="needs a prompt and a seed"):
            compare(model, {"a": erasure}, prompts, seeds=seeds)
    with pytest.raises(ValueError, match="cannot be called 'before'"):
        compare(model, {"before": erasure}, ["cat"])


def test_cancelling_leaves_the_model() -> None:
    model = FakeModel()
    erasure = rece(model, "cat -> dog")
    before = digest(model.weights)

    def cancel(done: int, total: int, what: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(model, {"a": erasure}, ["cat"], steps=4, callback=cancel)
    assert digest(model.weights) == before
