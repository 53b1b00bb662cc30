"""Right files spoiled at random: whatever is in them, a file is read or refused, never anything else."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pure.any_tensors import save_file
from pure.broken_files import MISSING, opened_statistics, put
from pure.erasure_files import opened, rewrite, small

from erasure_core import Erasure, ErasureFileError
from erasure_core.closed_form.statistics import Statistics
from erasure_core.closed_form.statistics_file import StatisticsFileError, load_statistics, save_statistics
from erasure_core.files.json_fields import Fields

few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
texts = st.text(max_size=2)
values = st.recursive(scalars, lambda one: st.lists(one, max_size=2) | st.dictionaries(texts, one), max_leaves=3)
dtypes = st.sampled_from([
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e5m2,
])  # fmt: skip
shapes = st.lists(st.integers(0, 4), max_size=3)


def places(value: object, above: tuple = ()) -> list[tuple]:
    """The way to each part of what JSON holds."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in inner for place in [(*above, key), *places(part, (*above, key))]]


@st.composite
def spoiled(draw, tensors: dict, header: dict) -> tuple[dict, dict]:
    """Some of what is in a file, dropped, replaced or of another type."""
    tensors, header = dict(tensors), copy.deepcopy(header)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()) and tensors:
            key = draw(st.sampled_from(sorted(tensors)))
            shape, dtype = draw(shapes | st.just(list(tensors[key].shape))), draw(dtypes | st.just(tensors[key].dtype))
            number = draw(st.sampled_from([0.0, 1.0, -1.0, 3e38, 1e300, float("nan"), float("inf")]))
            new = torch.full(shape, number, dtype=torch.float64).to(dtype)
            put(tensors, (key,), draw(st.sampled_from([MISSING, new])))
        elif places(header):
            place = draw(st.sampled_from(places(header)))
            put(header, place, draw(st.just(MISSING) | values))
    return tensors, header


def test_a_name_that_cannot_be_printed_is_an_escape() -> None:
    fields = Fields({"\ud7fc": None}, "'maps'")
    for name, sentence in (
        ("\ud7fc", "'\\ud7fc' of 'maps' is None, expected an object"),
        ("\n", "'maps' has no '\\n'"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            fields.get(name, dict)


def read_or_refused(load: Callable, path: Path, error: type) -> object:
    try:
        return load(path)
    except error as refusal:
        assert type(refusal) is error and str(refusal).startswith(path.name) and str(refusal).isprintable()
        return None


@few
@given(data=st.data())
def test_a_spoiled_erasure_is_read_or_refused(saved: Path, data) -> None:
    small().save(saved, overwrite=True)
    tensors, header = data.draw(spoiled(*opened(saved)))
    found = read_or_refused(Erasure.load, rewrite(saved, tensors, header), ErasureFileError)
    if found is not None:
        for delta in found.deltas.values():
            assert torch.isfinite(delta.dense()).all() and delta.dense().shape == delta.shape
        assert found.error >= 0 and repr(found).isprintable()
        Erasure.load(found.save(saved, overwrite=True))


@few
@given(data=st.data())
def test_spoiled_statistics_are_read_or_refused(statistics: Statistics, kept: Path, data) -> None:
    save_statistics(statistics, kept, overwrite=True)
    tensors, header = data.draw(spoiled(*opened_statistics(kept)))
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors, kept, metadata={"erasure_statistics": json.dumps(header)})
    found = read_or_refused(load_statistics, kept, StatisticsFileError)
    if found is not None:
        load_statistics(save_statistics(found, kept, overwrite=True))
        found.check_encoder({name: entry.reference_row for name, entry in found.entries.items()})


@few
@given(data=st.data())
def test_bytes_that_are_not_what_they_were(statistics: Statistics, tmp_path: Path, data) -> None:
    """A bit turned, some bytes in another's place, an end that is missing."""
    path = tmp_path / "a.safetensors"
    load, error = data.draw(st.sampled_from([(Erasure.load, ErasureFileError), (load_statistics, StatisticsFileError)]))
    if load is load_statistics:
        save_statistics(statistics, path, overwrite=True)
    else:
        small().save(path, overwrite=True)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            whole[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            whole[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    read_or_refused(load, path, error)
