"""What the header of a file says, of an erasure or of statistics: what can be read and written, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pure.any_tensors import save_file
from pure.broken_files import MISSING, opened_statistics, put, refused, refused_erasure
from pure.erasure_files import opened, rewrite, small

from erasure_core import Erasure, ErasureFileError
from erasure_core.closed_form.statistics import Statistics
from erasure_core.closed_form.statistics_file import StatisticsFileError, load_statistics, save_statistics
from erasure_core.files.json_fields import DEEPEST, parsed, twice


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "its header cannot be read: Expecting value"),
        ("{", "its header cannot be read: Expecting property name"),
        ("[]", r"its header is \[\], expected an object"),
        ("null", "its header is None, expected an object"),
        ("3", "its header is 3, expected an object"),
        ("{}", "its header has no 'format'"),
        ('{"format": 1}', "its header has no 'weights'"),
        ("[" * 100_000, "its header is nested too deeply"),
        ('{"a":' * 100_000, "its header is nested too deeply"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "it is nested too deeply"),
        ("[" * DEEPEST + "]" * DEEPEST, r"its header is \[\["),
        ('{"format": 3, "format": 3}', "it has 'format' twice"),
        ('{"format": 3, "a": [{"b": 1, "c": 2, "b": 3}]}', "it has 'b' twice"),
        ('{"format": NaN}', "it has nan, which is not finite"),
        ('{"a": [1e999]}', "it has inf, which is not finite"),
        ('{"a": -Infinity}', "it has -inf, which is not finite"),
        ('{"a": "\\ud83d"}', r"it has '\\ud83d', which is not text"),
        ('{"\\u0000": 1}', r"it has '\\x00', which is not text"),
        ('{"a": ' + "9" * 5000 + "}", "its header"),
    ],
    ids=range(19),
)  # fmt: skip
def test_a_broken_header(saved: Path, kept: Path, header: str, message: str) -> None:
    refused(Erasure.load, ErasureFileError, rewrite(saved, opened(saved)[0], header), message)
    save_file(opened_statistics(kept)[0], kept, metadata={"erasure_statistics": header})
    refused(load_statistics, StatisticsFileError, kept, message.replace("weights", "entries"))


@pytest.mark.parametrize("found", ["3", 3.0, True, None, 0, -1, 4, MISSING])
def test_formats_that_there_are_not(saved: Path, kept: Path, found: object) -> None:
    whole = isinstance(found, int) and not isinstance(found, bool)
    message = f"has format {found}, this version reads 1 to %d; update the pack" if whole else "'format'"
    refused_erasure(saved, ("format",), found, message % 3 if whole else message)
    tensors, header = opened_statistics(kept)
    put(header, ("format",), 2 if found == 4 else found)
    save_file(tensors, kept, metadata={"erasure_statistics": json.dumps(header)})
    refused(load_statistics, StatisticsFileError, kept, "has format .* reads 1 to 1" if whole else "'format'")


def test_numbers_end_where_floats_end() -> None:
    most = sys.float_info.max
    assert parsed(json.dumps({"a": most}), "it").get("a", float) == most
    with pytest.raises(ValueError, match="expected a number"):
        parsed(json.dumps({"a": 2 * int(most)}), "it").get("a", float)


def nested(levels: int) -> list:
    return [nested(levels - 1)] if levels else []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "cannot be kept in a file: Object of type object"),
        (float("nan"), "cannot be kept in a file: "),
        ("half \ud83d", r"it has '\\ud83d', which is not text"),
        (nested(DEEPEST), "nested too deeply"),
    ],
    ids=range(4),
)
def test_what_could_not_be_read_is_not_written(statistics: Statistics, tmp_path: Path, value, message: str) -> None:
    with pytest.raises(ValueError, match=f"what is known of the erasure .*{message}"):
        small(settings={"a": value}).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"what the statistics are of .*{message}"):
        save_statistics(replace(statistics, preserve=(value,)), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_fields() -> None:
    fields = parsed('{"a": 1, "b": {"c": [1, 2.5]}, "d": null, "e": true, "f": [{"g": 1}]}', "it")
    assert fields.get("a", int) == fields.get("a", float) == 1 and fields.get("e", bool) is True
    assert fields.object("b").all("c", float) == [1, 2.5] and fields.objects("f")[0].get("g", int) == 1
    assert fields.null("d") and not fields.null("a") and not fields.null("z") and "a" in fields and "z" not in fields
    for name, kind in (("e", int), ("e", float), ("a", bool), ("d", str), ("z", int)):
        with pytest.raises(ValueError, match=f"'{name}'"):
            fields.get(name, kind)
    assert twice(["a", "b", "a"]) == "a" and twice(["a", "b"]) is twice([]) is None


@pytest.mark.parametrize("load", [Erasure.load, load_statistics])
def test_files_that_hold_nothing_of_ours(tmp_path: Path, load: Callable) -> None:
    error = ErasureFileError if load is Erasure.load else StatisticsFileError
    for content in (b"", b"{}", b"\x00" * 8, b"\xff" * 16, (2).to_bytes(8, "little") + b"{}", b"PK\x03\x04"):
        path = tmp_path / "a.safetensors"
        path.write_bytes(content)
        with pytest.raises(error):
            load(path)
    for name in ("none.safetensors", "a\0b.safetensors", "a\ud83d.safetensors", "a" * 300, ""):
        with pytest.raises(OSError):
            load(tmp_path / name)


def test_each_kind_of_file_names_the_other(saved: Path, kept: Path) -> None:
    refused(Erasure.load, ErasureFileError, kept, "holds statistics, not an erasure; give it to Load Statistics")
    refused(load_statistics, StatisticsFileError, saved, "holds an erasure, not statistics; apply it with Load Erasure")
    save_file({"a": torch.ones(1)}, saved, metadata={"format": "pt"})
    refused(Erasure.load, ErasureFileError, saved, "was not written by this pack")
    refused(load_statistics, StatisticsFileError, saved, "holds no statistics of this pack")
