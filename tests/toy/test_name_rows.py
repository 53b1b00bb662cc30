"""Names in short windows: the rows of CLIP that do not depend on what is behind them."""

from __future__ import annotations

import pytest
import torch
from toy import tiny

from erasure_core import from_diffusers
from erasure_core.diffusers.text_encoders import BATCH_ON_CPU
from erasure_core.model import NameReader

NAMES = ["cat", "an old striped cat", "dog", " ", "a photo of a very small dog beside a house", "<|endoftext|>", "cat"]


@pytest.fixture(scope="module", params=[tiny.plain, tiny.sdxl, tiny.refiner])
def model(request):
    return from_diffusers(request.param())


def test_names_are_read_as_in_a_whole_window(model) -> None:
    assert isinstance(model, NameReader)
    with torch.no_grad():
        short, whole = model.name_rows(NAMES), model.text_rows(NAMES)
    for one, other in zip(short, whole, strict=True):
        assert set(one) == set(other)
        for name, parts in other.items():
            for mine, theirs in zip(one[name], parts, strict=True):
                assert mine.last_content == theirs.last_content
                assert len(mine.rows) == min(len(theirs.rows), theirs.last_content + 2)
                torch.testing.assert_close(mine.rows, theirs.rows[: len(mine.rows)], rtol=1e-5, atol=1e-5)


def test_a_batch_is_as_long_as_its_longest_prompt(model) -> None:
    lengths: list[int] = []

    def note(module, given) -> None:
        lengths.append(given[0].shape[1])

    hook = getattr(model.pipe, model.family.parts[0]).register_forward_pre_hook(note)
    model._text.names(NAMES, batch=2)
    hook.remove()
    assert lengths == sorted(lengths) and lengths[0] == 3 and lengths[-1] < model.tokens


def test_a_cpu_encodes_few_whole_windows_together(model) -> None:
    """What a pass takes stays in the heap: half a gigabyte for SDXL and sixteen windows."""
    counts: list[int] = []
    hook = getattr(model.pipe, model.family.parts[0]).register_forward_pre_hook(
        lambda module, given: counts.append(len(given[0]))
    )
    prompts = [f"a picture of {number} cats" for number in range(2 * BATCH_ON_CPU + 1)]
    model.text_rows(prompts)
    hook.remove()
    assert counts == [BATCH_ON_CPU, BATCH_ON_CPU, 1]
