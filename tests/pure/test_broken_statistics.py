"""Files that anybody may have written, as statistics: read right, or refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pure.any_tensors import save_file
from pure.broken_files import MISSING, UNKNOWN, opened_statistics, put, refused

from erasure_core.closed_form.statistics import Statistics
from erasure_core.closed_form.statistics_file import StatisticsFileError, load_statistics, save_statistics
from erasure_core.model import CONTEXT


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (("entries",), [None, 3, "context", {}, [3], MISSING], "'entries'"),
        (("entries",), [[]], "tensors that its header does not list|lists no entries"),
        (("entries",), [["pooled"], ["context", "context"]], "edited.concepts is missing"),
        (("concepts",), [None, 3, "cat", {}, ["cat"], MISSING], "'concepts'"),
        (("concepts", 0, "name"), [None, 3, MISSING], "'name'"),
        (("concepts", 0, "name"), ["", "dog"], "a concept needs a name|maps a concept to itself"),
        (("concepts",), [[{"name": "cat", "instead": "dog"}] * 2], "it lists 'cat -> dog' twice"),
        (("preserve",), [None, 3, "bird", {}, [3], MISSING], "'preserve'"),
        (("exactly",), [None, 3, "fish", {}, [None], MISSING], "'exactly'"),
        (("name_only",), [None, 0, 1, "true", MISSING], "'name_only'"),
    ],
)  # fmt: skip
def test_fields_of_statistics_that_do_not_fit(
    statistics: Statistics, kept: Path, place: tuple, wrong: list, message: str
) -> None:
    for value in wrong:
        tensors, header = opened_statistics(save_statistics(statistics, kept, overwrite=True))
        put(header, place, value)
        save_file(tensors, kept, metadata={"erasure_statistics": json.dumps(header)})
        refused(load_statistics, StatisticsFileError, kept, message)


def double(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("probe", None, "context/probe is missing"),
        ("probe", torch.full((4,), torch.nan), r"\(4,\) in torch.float32, or not finite; expected a row of finite"),
        ("probe", torch.tensor([1.0, 2.0, torch.inf, 0.0]), "context/probe .* or not finite"),
        ("probe", double(4), r"context/probe is \(4,\) in torch.float64"),
        ("probe", torch.ones(4, dtype=torch.int32), "in torch.int32"),
        ("probe", torch.ones(4).half(), "in torch.float16"),
        ("probe", torch.ones(4).to(torch.float8_e5m2), "in torch.float8_e5m2"),
        ("probe", torch.ones(4, 1), r"context/probe is \(4, 1\)"),
        ("probe", torch.ones(()), r"context/probe is \(\)"),
        ("probe", torch.ones(0), r"context/probe is \(0,\)"),
        ("kept", None, "context/kept is missing"),
        ("exempt", double(3, 3), r"context/exempt is \(3, 3\) in torch.float64, or not finite; expected 4 times 4"),
        ("kept", double(4), r"context/kept is \(4,\)"),
        ("kept", double(4, 4) * torch.nan, "context/kept .* or not finite"),
        ("derived.crossed", torch.ones(4, 4), r"context/derived.crossed is \(4, 4\) in torch.float32"),
        ("derived.concepts", torch.ones(4, 4, dtype=torch.complex64), f"in torch.complex64|{UNKNOWN}"),
        ("edited.concepts", double(()), r"context/edited.concepts is \(\)"),
        ("edited.concepts", double(0, 0), r"context/edited.concepts is \(0, 0\)"),
        ("edited.concepts", double(2, 4), r"context/edited.concepts is \(2, 4\)"),
        ("edited.concepts", double(4, 4, 4), r"context/edited.concepts is \(4, 4, 4\)"),
        ("more", double(4, 4), "tensors that its header does not list, for example context/more"),
    ],
)  # fmt: skip
def test_tensors_of_statistics_that_do_not_fit(kept: Path, key: str, tensor, message: str) -> None:
    tensors, header = opened_statistics(kept)
    put(tensors, (f"context/{key}",), MISSING if tensor is None else tensor)
    save_file(tensors, kept, metadata={"erasure_statistics": json.dumps(header)})
    refused(load_statistics, StatisticsFileError, kept, message)


def test_statistics_of_no_entries(kept: Path) -> None:
    _, header = opened_statistics(kept)
    save_file({}, kept, metadata={"erasure_statistics": json.dumps(header | {"entries": []})})
    refused(load_statistics, StatisticsFileError, kept, "it lists no entries")


def test_the_same_statistics_are_the_same_bytes(statistics: Statistics, kept: Path) -> None:
    seen = {save_statistics(load_statistics(kept), kept, overwrite=True).read_bytes() for _ in range(8)}
    assert len(seen) == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", ["kept", "read"])
def test_a_probe_that_is_not_finite_is_of_no_encoder(statistics: Statistics, side: str, value: float) -> None:
    """It is the same as nothing, where a comparison with NaN once was never false."""
    (entry,) = statistics.entries.values()
    statistics.check_encoder({CONTEXT: entry.reference_row.clone()})
    broken = entry.reference_row.clone()
    broken[0] = value
    if side == "kept":
        read = entry.reference_row
        statistics = replace(statistics, entries={CONTEXT: replace(entry, reference_row=broken)})
    else:
        read = broken
    with pytest.raises(ValueError, match="of another text encoder"):
        statistics.check_encoder({CONTEXT: read})


def test_probes_are_compared_in_full_precision(statistics: Statistics) -> None:
    """A reference row of whole numbers would make whole numbers of what a model reads."""
    (entry,) = statistics.entries.values()
    whole = replace(statistics, entries={CONTEXT: replace(entry, reference_row=torch.ones(4, dtype=torch.int32))})
    with pytest.raises(ValueError, match="of another text encoder"):
        whole.check_encoder({CONTEXT: torch.full((4,), 1.9)})
