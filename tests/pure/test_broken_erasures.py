"""Files that anybody may have written, as erasures: read right, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pure.broken_files import MISSING, UNKNOWN, put, refused, refused_erasure
from pure.erasure_files import FIRST, opened, rewrite, small, two_maps
from pure.fakes import FakeModel

from erasure_core import Erasure, ErasureFileError, LowRank
from erasure_core.erasures import erasure_file
from erasure_core.erasures.erasure_file import MAPS
from erasure_core.erasures.erasure_record import ContextMap
from erasure_core.erasures.file_keys import stem
from erasure_core.model import CONTEXT

KEY = stem(FIRST)
UP, DOWN, ALPHA = (f"{KEY}.{part}" for part in ("lora_up.weight", "lora_down.weight", "alpha"))
BIAS = "lora_te_text_model_encoder_layers_0_mlp_fc1.diff_b"
WRONG = [None, True, 3, -1, 0.5, "", "x", [], [3], [None], [[]], {}, {"x": 1}]


def test_what_is_read_is_what_was_written(saved: Path) -> None:
    """The file that the others spoil is right itself."""
    made, back = small(), Erasure.load(saved)
    assert back.origins == made.origins and back.error == made.error and list(back.deltas) == list(made.deltas)
    assert all(torch.equal(back.deltas[name].dense(), delta.dense()) for name, delta in made.deltas.items())


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
