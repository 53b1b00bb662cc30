"""Files that anybody may have written, as erasures and as statistics: read right, or refused in one sentence."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pure.any_tensors import save_file
from pure.fakes import FakeModel
from pure.test_files import FIRST, opened, rewrite, small, two_maps
from safetensors import safe_open
from safetensors.torch import load_file

from erasure_core import Erasure, ErasureFileError, LowRank
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics import Statistics
from erasure_core.closed_form.statistics_file import StatisticsFileError, load_statistics, save_statistics
from erasure_core.erasures import erasure_file
from erasure_core.erasures.erasure_file import MAPS
from erasure_core.erasures.erasure_record import ContextMap
from erasure_core.erasures.file_keys import stem
from erasure_core.files.json_fields import DEEPEST, parsed, twice
from erasure_core.model import CONTEXT

KEY = stem(FIRST)
UP, DOWN, ALPHA = (f"{KEY}.{part}" for part in ("lora_up.weight", "lora_down.weight", "alpha"))
BIAS = "lora_te_text_model_encoder_layers_0_mlp_fc1.diff_b"
MISSING = object()
UNKNOWN = "not a readable safetensors file"  # to an older library, which does not know these numbers
WRONG = [None, True, 3, -1, 0.5, "", "x", [], [3], [None], [[]], {}, {"x": 1}]
Change = Callable[[dict, dict], object]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return small().save(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    return gather_statistics(FakeModel(width=4), "cat -> dog", ["bird"], exactly=["fish"])


@pytest.fixture
def kept(statistics: Statistics, tmp_path: Path) -> Path:
    return save_statistics(statistics, tmp_path / "s.safetensors")


def opened_statistics(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["erasure_statistics"])


def put(holder: dict | list, place: tuple, value: object) -> None:
    *way, last = place
    for step in way:
        holder = holder[step]
    if value is MISSING:
        del holder[last]
    else:
        holder[last] = value


def refused(load: Callable, error: type, path: Path, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load(path)
    told = str(caught.value)
    assert type(caught.value) is error and told.startswith(path.name) and told.isprintable() and len(told) < 700


def refused_erasure(path: Path, place: tuple, value: object, message: str) -> None:
    tensors, header = opened(path)
    put(header, place, value)
    refused(Erasure.load, ErasureFileError, rewrite(path, tensors, header), message)


def test_what_is_read_is_what_was_written(saved: Path) -> None:
    """The file that the others spoil is right itself."""
    made, back = small(), Erasure.load(saved)
    assert back.origins == made.origins and back.error == made.error and list(back.deltas) == list(made.deltas)
    assert all(torch.equal(back.deltas[name].dense(), delta.dense()) for name, delta in made.deltas.items())


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


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (("weights",), [*WRONG, MISSING], "'weights'|not among its low-rank changes"),
        (("weights", 0), [3, None, ["a"], True], "what 'weights' of its header lists is .*, expected text"),
        (("weights", 0), ["vae.conv.weight", "unet", ""], "LoRA files have no name for the weight"),
        (("weights", 0), ["unet.other.weight"], "the change of unet.other.weight is missing"),
        (("weights", 1), [FIRST], f"it lists {FIRST} twice"),
        (("weights", 1), [FIRST.replace("blocks.0", "blocks_0", 1)], "the change of unet.down_blocks_0.* is missing"),
        (("origins",), [None, True, 3, "x", {}, MISSING], "'origins' of its header is|no 'origins'"),
        (("origins", 0), [None, 3, "x", []], "what 'origins' of its header lists is .*, expected an object"),
        (("origins", 0), [{}], "one of 'origins' has no 'method'"),
        (("origins", 0, "method"), [None, 3, ["rece"], MISSING], "'method'"),
        (("origins", 0, "fingerprint"), [None, 3, True, MISSING], "'fingerprint'"),
        (("origins", 0, "version"), [None, 3, {}, MISSING], "'version'"),
        (("origins", 0, "settings"), [None, 3, "x", [], MISSING], "'settings' of one of 'origins'|no 'settings'"),
        (("origins", 0, "losses"), [None, 3, "x", {}, [None], ["1"], [True], [[1.0]]], "'losses' of one of 'origins'"),
        (("origins", 0, "concepts"), [None, 3, "cat", {}, ["cat"], [None], MISSING], "'concepts'"),
        (("origins", 0, "concepts", 0), [{}, {"name": "cat"}], "one of 'concepts' has no"),
        (("origins", 0, "concepts", 0, "name"), [None, 3, ["cat"]], "'name' of one of 'concepts' is .*, expected text"),
        (("origins", 0, "concepts", 0, "name"), ["", " "], "a concept needs a name"),
        (("origins", 0, "concepts", 0, "name"), ["dog"], "maps a concept to itself"),
        (("origins", 0, "concepts", 0, "instead"), [None, 3, MISSING], "'instead'"),
        (("error",), [None, True, "0", [], MISSING, 10**400], "'error' of its header|no 'error'"),
        (("error",), [-1, -1e-9], "its error is -.*, expected 0 or more"),
        (("maps",), [None, 3, "x", [], MISSING], "'maps' of its header|no 'maps'"),
        (("maps", CONTEXT), [None, 3, "x", []], f"'{CONTEXT}' of 'maps' of|'{CONTEXT}' of 'maps' is"),
        (("maps", CONTEXT), [{}], "'context' has no 'weights'"),
        (("maps", CONTEXT, "up"), [3, True, [], {}, MISSING], "'up'"),
        (("maps", CONTEXT, "up"), ["?", "AAA", "é"], "its context map is no text in base64: "),
        (("maps", CONTEXT, "up"), ["", "AAAAAA=="], "context map has . numbers, expected 2 times 2"),
        (("maps", CONTEXT, "up"), ["AADAfwAAwH8AAMB/AADAfw=="], "its context map holds NaN or infinite values"),
        (("maps", CONTEXT, "up"), [None], r"its context maps are missing \(no erasure_maps.dora_scale\)"),
        (("maps", CONTEXT, "weights"), [None, 3, "x", {}, [3], MISSING], "'weights'"),
        (("maps", CONTEXT, "weights"), [[], ["unet.other.weight"], [FIRST, FIRST]], "not among its low-rank changes"),
        (("maps", CONTEXT, "weights"), [["text_encoder.text_model.encoder.layers.0.mlp.fc1.weight"]], "low-rank"),
        (("maps", CONTEXT, "columns"), [3, True, "all", {}, MISSING, [0.0, 1.0], [False, True], ["0", "1"]], "columns"),
        (("maps", CONTEXT, "columns"), [[], [0], [0, 1, 2], [0, 3], [1, 1], [-1, 1]], r"for the columns \[.*\] of 2"),
    ],
)  # fmt: skip
def test_fields_that_do_not_fit(saved: Path, place: tuple, wrong: list, message: str) -> None:
    for value in wrong:
        path = small().save(saved, overwrite=True)
        refused_erasure(path, place, value, message)


def test_what_else_a_header_says_is_passed_over(saved: Path) -> None:
    tensors, header = opened(saved)
    header |= {"more": [1, {"a": None}], "origins": [header["origins"][0] | {"more": 1.5}]}
    assert Erasure.load(rewrite(saved, tensors, header)).concepts == small().concepts


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (UP, None, f"change of {FIRST} is missing"),
        (DOWN, None, f"change of {FIRST} is missing"),
        (UP, torch.ones(3, 3), r"has factors \(3, 3\) and \(2, 2\), expected \[out, rank\] and \[rank, in\]"),
        (UP, torch.ones(2), r"has factors \(2,\) and"),
        (UP, torch.ones(()), r"has factors \(\) and"),
        (UP, torch.ones(3, 2, 1), r"has factors \(3, 2, 1\) and"),
        (DOWN, torch.ones(()), r"has factors \(3, 2\) and \(\)"),
        (DOWN, torch.ones(2), r"has factors \(3, 2\) and \(2,\)"),
        (DOWN, torch.ones(2, 0), r"has factors \(3, 2\) and \(2, 0\)"),
        (UP, torch.ones(0, 2), r"has factors \(0, 2\) and"),
        (UP, torch.full((3, 2), torch.nan), "lora_up.weight holds NaN or infinite values"),
        (DOWN, torch.full((2, 2), -torch.inf), "lora_down.weight holds NaN or infinite values"),
        (UP, torch.full((3, 2), 1e300, dtype=torch.float64), "out of the range of torch.float32"),
        (DOWN, torch.full((2, 2), 1e300, dtype=torch.float64), f"change of {FIRST} is out of the range of torch"),
        (UP, torch.ones(3, 2, dtype=torch.int32), "holds numbers of type torch.int32, expected floats of 16, 32 or 64"),
        (UP, torch.ones(3, 2, dtype=torch.bool), "numbers of type torch.bool"),
        (DOWN, torch.ones(2, 2, dtype=torch.complex64), f"numbers of type torch.complex64|{UNKNOWN}"),
        (DOWN, torch.ones(2, 2).to(torch.float8_e4m3fn), "numbers of type torch.float8_e4m3fn"),
        (BIAS, torch.ones(2, dtype=torch.uint8), "numbers of type torch.uint8"),
        (BIAS, torch.full((2,), 1e300, dtype=torch.float64), "out of the range of torch.float32"),
        (BIAS, torch.ones(2, 1), r"fc1.bias changes as \(2, 1\), which is the shape of no weight"),
        (BIAS, torch.ones(()), r"fc1.bias changes as \(\), which is the shape of no weight"),
        (BIAS, torch.ones(0), r"fc1.bias changes as \(0,\), which is the shape of no weight"),
        (BIAS, None, "change of .*fc1.bias is missing"),
        (BIAS.removesuffix("_b"), torch.ones(2, 0), r"fc1.weight changes as \(2, 0\)"),
        (BIAS.removesuffix("_b"), torch.ones(()), r"fc1.weight changes as \(\)"),
        (ALPHA, torch.ones(2), r"has alpha \[1.0, 1.0\], expected one number above 0"),
        (ALPHA, torch.ones(1), r"has alpha \[1.0\], expected one number above 0"),
        (ALPHA, torch.ones(0), r"has alpha \[\], expected one number above 0"),
        (ALPHA, torch.tensor(0.0), "has alpha 0.0, expected one number above 0"),
        (ALPHA, torch.tensor(-2.0), "has alpha -2.0, expected one number above 0"),
        (ALPHA, torch.tensor(torch.nan), "alpha holds NaN"),
        (ALPHA, torch.tensor(torch.inf), "alpha holds NaN or infinite"),
        (ALPHA, torch.tensor(2), "alpha holds numbers of type torch.int64"),
        (ALPHA, torch.tensor(1e38), "out of the range of torch.float32"),
        (DOWN, torch.full((2, 2), 1e37), f"the change of {FIRST} is out of the range of torch.float32"),
        (f"{KEY}.diff", torch.ones(3, 2), f"tensors that its header does not list, for example {KEY}.diff"),
        (MAPS, torch.ones(4), f"tensors that its header does not list, for example {MAPS}"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(saved: Path, key: str, tensor: torch.Tensor | None, message: str) -> None:
    tensors, header = opened(saved)
    tensors[UP] = tensors[UP] * 10
    put(tensors, (key,), MISSING if tensor is None else tensor)
    refused(Erasure.load, ErasureFileError, rewrite(saved, tensors, header), message)


def test_numbers_end_where_floats_end() -> None:
    most = sys.float_info.max
    assert parsed(json.dumps({"a": most}), "it").get("a", float) == most
    with pytest.raises(ValueError, match="expected a number"):
        parsed(json.dumps({"a": 2 * int(most)}), "it").get("a", float)


def test_layers_of_a_map_share_one_factor(tmp_path: Path) -> None:
    down = torch.tensor([[1.0, 2.0]])
    deltas = {name: LowRank(torch.ones(2, 1), down) for name in ("unet.a.weight", "unet.b.weight")}
    one = ContextMap(LowRank(torch.ones(2, 1), down), tuple(deltas))
    path = Erasure(deltas, (), {CONTEXT: one}).save(tmp_path / "a.safetensors")
    assert Erasure.load(path).maps[CONTEXT].names == tuple(deltas)
    tensors, header = opened(path)
    tensors["lora_unet_b.lora_down.weight"] += 1
    refused(Erasure.load, ErasureFileError, rewrite(path, tensors, header), "its changes do not share one factor")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2), "its context map has 0 numbers, expected 1 times 1"),
        (torch.ones(4), f"{MAPS} holds 1 numbers more than its context maps have"),
        (torch.tensor([1.0, torch.nan, 1.0]), "holds NaN"),
        (torch.tensor([1.0, 1e300, 1.0], dtype=torch.float64), "its context map holds NaN or infinite values"),
        (torch.ones(3, dtype=torch.int8), "numbers of type torch.int8"),
        (None, "its context maps are missing"),
    ],
)
def test_a_tensor_of_maps_that_does_not_fit(tmp_path: Path, monkeypatch, tensor, message: str) -> None:
    monkeypatch.setattr(erasure_file, "MOST_IN_HEADER", 0)
    path = two_maps().save(tmp_path / "a.safetensors")
    tensors, header = opened(path)
    assert tensors[MAPS].tolist() == [5, 6, 7]
    put(tensors, (MAPS,), MISSING if tensor is None else tensor)
    refused(Erasure.load, ErasureFileError, rewrite(path, tensors, header), message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_files_in_another_precision(saved: Path, dtype: torch.dtype) -> None:
    """As programs make them that convert LoRA files. Half of ``up`` stays half: many concepts are kept so."""
    tensors, header = opened(saved)
    for scale in (1, 0.5):
        changed = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        changed[ALPHA] = changed[ALPHA] * scale
        back = Erasure.load(rewrite(saved, changed, header | {"maps": {}}))
        torch.testing.assert_close(back.deltas[FIRST].dense(), scale * small().deltas[FIRST].dense(), rtol=0.01, atol=0)
        found = back.deltas[FIRST]
        assert found.down.dtype == torch.float32
        assert found.up.dtype == (torch.float16 if dtype == torch.float16 else torch.float32)


def test_a_change_of_no_rank(tmp_path: Path) -> None:
    """What compression may leave of nothing; its alpha is 0, and so is its rank."""
    none = LowRank(torch.ones(3, 0), torch.ones(0, 2))
    path = Erasure({FIRST: none}, ()).save(tmp_path / "a.safetensors")
    assert opened(path)[0][ALPHA] == 0 and Erasure.load(path).deltas[FIRST].shape == (3, 2)


def test_a_product_of_terabytes_is_not_formed(tmp_path: Path) -> None:
    path = Erasure({FIRST: LowRank(torch.zeros(2_000_000, 1), torch.zeros(1, 2_000_000))}, ()).save(
        tmp_path / "a.safetensors"
    )
    back = Erasure.load(path)
    with pytest.raises(ValueError, match="it was made for another model"), back.applied_to(FakeModel()):
        pass


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


# What follows spoils right files at random: whatever is in them, a file is read or refused, never anything else.

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
