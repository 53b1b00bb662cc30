"""Erasures as files: round trips, stock names, and everything that can be wrong with a file or a folder."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pure.any_tensors import save_file
from pure.erasure_files import FIRST, opened, rewrite, small, two_maps
from pure.fakes import LAYERS, FakeModel
from pure.test_erasure import dense, mixed, same
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save_file as save_by_the_library

from erasure_core import Concept, Dense, Erasure, ErasureFileError, LowRank, Origin, rece
from erasure_core.erasures import erasure_file
from erasure_core.erasures.erasure_file import MAPS, MOST_IN_HEADER, _maps, _metadata, check_target
from erasure_core.erasures.erasure_record import ContextMap
from erasure_core.erasures.file_keys import stem, stems
from erasure_core.files import safetensors_files
from erasure_core.files.safetensors_files import MOST_HEADER, read, write
from erasure_core.methods.rece import ReceSettings
from erasure_core.model import CONTEXT

BYTES = "8f57d3efde29ca33bdc054865438cdf5cba5028347e662167a2082a1c9948008"  # of ``small`` as a file


@pytest.fixture(scope="module")
def erasure() -> Erasure:
    return rece(FakeModel(), "cat -> dog", ReceSettings(loops=2), preserve=["", "bird"])


@pytest.fixture
def saved(erasure: Erasure, tmp_path: Path) -> Path:
    return erasure.save(tmp_path / "cat.safetensors")


def test_round_trip(erasure: Erasure, saved: Path) -> None:
    back = Erasure.load(saved)
    same(dense(back), dense(erasure), 0)
    assert back.origins == erasure.origins and back.error == erasure.error
    assert torch.equal(back.maps[CONTEXT].change.up, erasure.maps[CONTEXT].change.up)
    assert torch.equal(back.maps[CONTEXT].change.down, erasure.maps[CONTEXT].change.down)
    other = FakeModel(seed=5)
    same(dense(back.rebased_on(other)), dense(erasure.rebased_on(other)), 0)


@pytest.mark.parametrize("change", ["scaled", "added", "compressed", "mixed", "nothing"])
def test_round_trip_of_what_is_made_from_erasures(erasure: Erasure, change: str, tmp_path: Path) -> None:
    made = {
        "scaled": lambda: erasure.scaled(0.7),
        "added": lambda: erasure + rece(FakeModel(), "red fish"),
        "compressed": lambda: erasure.compressed(max_rank=4),
        "mixed": mixed,
        "nothing": lambda: rece(FakeModel(), "cat").scaled(0).compressed(tolerance=0.1),
    }[change]()
    back = Erasure.load(made.save(tmp_path / "a.safetensors"))
    same(dense(back), dense(made), 0)
    assert back.error == made.error and set(back.maps) == set(made.maps)


def test_names_are_kohyas(saved: Path, erasure: Erasure) -> None:
    tensors, header = opened(saved)
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    assert stem(FIRST) == key
    assert {
        f"{stem(name)}.{part}" for name in LAYERS for part in ("lora_up.weight", "lora_down.weight", "alpha")
    } == set(tensors)
    delta = tensors[f"{key}.lora_up.weight"] @ tensors[f"{key}.lora_down.weight"]
    assert tensors[f"{key}.alpha"] == erasure.rank == tensors[f"{key}.lora_down.weight"].shape[0]
    torch.testing.assert_close(delta, erasure.deltas[FIRST].dense())
    assert header["weights"] == list(LAYERS)


def test_names_of_the_other_parts() -> None:
    assert stem("text_encoder.a.b.bias") == "lora_te_a_b" and stem("text_encoder_2.a.weight") == "lora_te2_a"
    for name in ("vae.a.weight", "unet.weight", "unet.a.buffer", "a"):
        with pytest.raises(ValueError, match="no name for the weight"):
            stem(name)


def test_names_in_files_for_sdxl() -> None:
    """The first of two text encoders has a number; the layer of the pooled vector its name in original checkpoints."""
    label, first, second = "unet.add_embedding.linear_1.weight", "text_encoder.a.weight", "text_encoder_2.a.weight"
    numbered = {label: "lora_unet_label_emb_0_0", first: "lora_te1_a", second: "lora_te2_a"}
    for names in ([label, first], [first, second], [label, first, second]):
        assert stems(names) == {name: numbered[name] for name in names}
    assert stems([first, FIRST]) == {first: "lora_te_a", FIRST: stem(FIRST)}


def test_a_file_rescaled_by_its_alpha(saved: Path, erasure: Erasure) -> None:
    tensors, header = opened(saved)
    tensors[f"{stem(FIRST)}.alpha"] *= 0.5
    header["maps"] = {}
    back = Erasure.load(rewrite(saved, tensors, header))
    torch.testing.assert_close(back.deltas[FIRST].dense(), 0.5 * erasure.deltas[FIRST].dense())


@pytest.mark.parametrize(
    ("alpha", "told"),
    [
        ([1.0, 2.0], "has alpha .*, expected one number above 0"),
        (0.0, "has alpha .*, expected one number above 0"),
        (3e38, "is out of the range of torch.float32"),
    ],
)
def test_an_alpha_that_cannot_be_is_told_by_its_layer(alpha, told: str, saved: Path) -> None:
    tensors, header = opened(saved)
    tensors[f"{stem(FIRST)}.lora_up.weight"] *= 1e6
    tensors[f"{stem(FIRST)}.alpha"] = torch.tensor(alpha)
    with pytest.raises(ValueError, match=f"{FIRST} {told}"):
        Erasure.load(rewrite(saved, tensors, header))


def test_never_overwrites_unless_asked(erasure: Erasure, saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(FileExistsError, match=f"{saved} is already there"):
        erasure.scaled(2).save(saved)
    assert saved.read_bytes() == before
    erasure.scaled(2).save(saved, overwrite=True)
    assert saved.read_bytes() != before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_another_ending(erasure: Erasure, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"saved as \.safetensors, got 'a\.ckpt'"):
        erasure.save(tmp_path / "a.ckpt")


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_folder_that_cannot_be_written(erasure: Erasure, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=f"cannot write into {tmp_path / place}: ") as caught:
        erasure.save(tmp_path / place / "a.safetensors")
    assert ".partial" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_saved(tmp_path: Path, bad: float) -> None:
    erasure = Erasure({FIRST: Dense(torch.full((2, 2), bad))}, ())
    with pytest.raises(ValueError, match="holds NaN or infinite values; nothing was saved"):
        erasure.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_factors_whose_product_is_not_finite_are_not_saved(tmp_path: Path) -> None:
    erasure = Erasure({FIRST: LowRank(torch.full((3, 2), 1e20), torch.full((2, 4), -1e20))}, ())
    with pytest.raises(ValueError, match=f"the change of {FIRST} is out of the range of .*; nothing was saved"):
        erasure.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_header_is_utf_8_and_as_long_as_programs_read(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    write(file, {}, {"told": "caf\u00e9"})
    length = int.from_bytes(file.getvalue()[:8], "little")
    assert "caf\u00e9".encode() in file.getvalue() and length % 8 == 0 and len(file.getvalue()) == 8 + length
    monkeypatch.setattr(safetensors_files, "MOST_HEADER", length)
    write(io.BytesIO(), {}, {"told": "caf\u00e9"})
    monkeypatch.setattr(safetensors_files, "MOST_HEADER", length - 1)
    with pytest.raises(ValueError, match=f"is {length} bytes, at most {length - 1} can be read"):
        write(io.BytesIO(), {}, {"told": "caf\u00e9"})


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Erasure.load(tmp_path / "a.safetensors")
    with pytest.raises(IsADirectoryError, match="is a folder; name a .safetensors file"):
        Erasure.load(tmp_path)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_truncated_file(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    cut = saved.with_name("cut.safetensors")
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ErasureFileError, match=r"cut\.safetensors is not a readable safetensors file"):
        Erasure.load(cut)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(ErasureFileError, match="not a readable safetensors file"):
        Erasure.load(path)


def test_a_foreign_lora(saved: Path) -> None:
    tensors, _ = opened(saved)
    save_file(tensors, saved, metadata={"ss_network_dim": "4"})
    with pytest.raises(ErasureFileError, match="was not written by this pack.*LoRA loader"):
        Erasure.load(saved)
    save_file(tensors, saved)
    with pytest.raises(ErasureFileError, match="was not written by this pack"):
        Erasure.load(saved)


def test_a_later_format(saved: Path) -> None:
    tensors, header = opened(saved)
    with pytest.raises(ErasureFileError, match="has format 9, this version reads 1 to 3; update the pack"):
        Erasure.load(rewrite(saved, tensors, {**header, "format": 9}))


def test_the_same_erasure_is_the_same_bytes(tmp_path: Path) -> None:
    """Whichever process writes it, and in whatever order its settings were given."""
    path, files_seen = tmp_path / "a.safetensors", set()
    for _ in range(12):
        for chosen in ({"loops": 2, "exact_error": {"context": 0.5}}, {"exact_error": {"context": 0.5}, "loops": 2}):
            small(settings=chosen).save(path, overwrite=True)
            files_seen.add(path.read_bytes())
    (only,) = files_seen
    assert hashlib.sha256(only).hexdigest() == BYTES
    assert small([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]).save(path, overwrite=True).read_bytes() != only


def test_files_are_laid_out_as_safetensors_lays_them_out(saved: Path) -> None:
    """Its own writer makes the same file, but for the order of what the header says besides."""
    ours = saved.read_bytes()
    with safe_open(saved, "pt") as file:
        told = file.metadata()
    size = int.from_bytes(ours[:8], "little")
    header = json.loads(ours[8 : 8 + size])
    assert list(header)[0] == "__metadata__" and list(header["__metadata__"]) == sorted(told) and size % 8 == 0
    other = saved.with_name("other.safetensors")
    save_by_the_library(load_file(saved), other, metadata=told)
    theirs = other.read_bytes()
    assert len(theirs) == len(ours) and theirs[8 + size :] == ours[8 + size :] and theirs[:8] == ours[:8]
    assert json.loads(theirs[8 : 8 + size]) == header
    assert told["ss_training_comment"] == "erases: cat -> dog"


def test_numbers_of_every_precision_are_aligned(tmp_path: Path) -> None:
    """Those of one size follow those of the larger: some programs read them in place."""
    values = {"b": torch.ones(3).half(), "a": torch.ones(()), "c": torch.ones(2, 0), "d": torch.ones(1).double()}
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        write(file, values, {"é": "\n\x00é"})
    metadata, back = read(path)
    assert metadata == {"é": "\n\x00é"} and set(back) == set(values)
    for name, value in values.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    assert [name for name in header if name != "__metadata__"] == ["d", "a", "c", "b"]


def test_parts_of_tensors_are_written_as_they_are_read(tmp_path: Path) -> None:
    """Not as they lie in memory: a column of a matrix, what is shared, what is transposed, what learns."""
    whole = torch.arange(12.0).reshape(3, 4)
    values = {"a": whole.T, "b": whole[:, 1], "c": whole, "d": torch.ones(1).expand(5)}
    values["e"] = whole.clone().requires_grad_()
    with (tmp_path / "a.safetensors").open("wb") as file:
        write(file, values, {})
    back = load_file(tmp_path / "a.safetensors")
    for name, value in values.items():
        assert torch.equal(back[name], value)


def test_a_header_that_nobody_could_read_is_not_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(safetensors_files, "MOST_HEADER", 500)
    with pytest.raises(ValueError, match=r"says of itself is \d,\d\d\d bytes, at most 500 can be read"):
        small().save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_context_maps_of_wide_encoders_do_not_fill_the_header() -> None:
    """Two that are 4,096 wide, of many concepts: in the header they would be 107 MB, and none can be over 100 MB."""
    rank, width = 2450, 4096
    down = torch.zeros(1).expand(rank, width)
    change = LowRank(torch.ones(1).expand(width, rank), down)
    layers = {entry: f"unet.{entry}.weight" for entry in ("context", "second")}
    deltas = {name: LowRank(torch.zeros(1, rank), down) for name in layers.values()}
    maps = {entry: ContextMap(change, (name,)) for entry, name in layers.items()}
    erasure = Erasure(deltas, (), maps)
    told, apart = _maps(erasure)
    assert 4 / 3 * 4 * 2 * rank * width > MOST_HEADER
    assert sum(map(len, _metadata(erasure, told).values())) < 1000
    assert {name: tensor.shape for name, tensor in apart.items()} == {MAPS: (2 * rank * width,)}


@pytest.mark.parametrize("most", [0, 11, 12])
def test_context_maps_that_are_a_tensor(tmp_path: Path, monkeypatch, most: int) -> None:
    """Where they are more than what may be in the header."""
    monkeypatch.setattr(erasure_file, "MOST_IN_HEADER", most)
    made = two_maps()
    tensors, header = opened(made.save(tmp_path / "a.safetensors"))
    monkeypatch.undo()
    assert (MAPS in tensors) == (most < 12) == all(one["up"] is None for one in header["maps"].values())
    back = Erasure.load(tmp_path / "a.safetensors")
    assert list(back.maps) == ["context", "pooled"]
    for entry, one in made.maps.items():
        found = back.maps[entry]
        assert torch.equal(found.change.up, one.change.up) and torch.equal(found.change.down, one.change.down)
        assert (found.names, found.columns) == (one.names, one.columns)


def test_sdxls_context_maps_are_always_in_the_header() -> None:
    """Stock loaders are silent about them there."""
    assert MOST_IN_HEADER >= 4 * (2048**2 + 1280**2)
    assert 4 / 3 * MOST_IN_HEADER < MOST_HEADER / 2


def test_files_of_format_2(tmp_path: Path) -> None:
    """Written by hand, as this pack wrote them: every map's factor is text in the header."""
    up, down = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0.5, 0.25]])
    key = "lora_unet_a_attn2_to_k"
    tensors = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(1.0)}
    origin = {
        "method": "rece", "concepts": [{"name": "cat", "instead": ""}], "settings": {"loops": 3},
        "fingerprint": "0123456789abcdef", "version": "0.1.0", "losses": [],
    }  # fmt: skip
    name, packed = "unet.a.attn2.to_k.weight", base64.b64encode(struct.pack("<2f", 4.0, -8.0)).decode()
    header = {
        "format": 2, "weights": [name], "origins": [origin], "error": 0.5,
        "maps": {"context": {"up": packed, "weights": [name], "columns": None}},
    }  # fmt: skip
    erasure = Erasure.load(rewrite(tmp_path / "a.safetensors", tensors, header))
    assert torch.equal(erasure.deltas[name].dense(), up @ down) and erasure.error == 0.5
    assert torch.equal(erasure.maps["context"].change.dense(), torch.tensor([[4.0], [-8.0]]) @ down)
    assert erasure.origins == (Origin("rece", (Concept("cat"),), {"loops": 3}, "0123456789abcdef", "0.1.0"),)


@pytest.mark.parametrize("with_map", [True, False])
def test_files_of_format_1(tmp_path: Path, with_map: bool) -> None:
    """By hand too: one map, of all weights, and no losses."""
    up, down = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0.5, 0.25]])
    tensors = {}
    for key in ("lora_unet_a_to_k", "lora_unet_a_to_v"):
        tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(1.0)}
    origin = {"method": "uce", "concepts": [{"name": "cat", "instead": "dog"}], "settings": {}, "fingerprint": "0"}
    header = {"format": 1, "weights": ["unet.a.to_k.weight", "unet.a.to_v.weight"], "error": 0}
    header["origins"] = [origin | {"version": "0.1.0"}]
    if with_map:
        header["context_map_up"] = base64.b64encode(struct.pack("<2f", 4.0, -8.0)).decode()
    erasure = Erasure.load(rewrite(tmp_path / "a.safetensors", tensors, header))
    assert erasure.concepts == (Concept("cat", "dog"),) and list(erasure.maps) == (["context"] if with_map else [])
    if with_map:
        assert erasure.maps["context"].names == tuple(header["weights"])
        assert torch.equal(erasure.maps["context"].change.dense(), torch.tensor([[4.0], [-8.0]]) @ down)


def test_a_layer_whose_weight_and_bias_change(tmp_path: Path) -> None:
    """They have one name in LoRA files, and what is the weight's is not the bias's, as in a compressed few-shot."""
    weight, bias = "text_encoder.a.weight", "text_encoder.a.bias"
    deltas = {bias: Dense(torch.tensor([1.0, 2.0])), weight: LowRank(torch.ones(2, 1), torch.ones(1, 3))}
    for order in ([bias, weight], [weight, bias]):
        made = Erasure({name: deltas[name] for name in order}, ())
        back = Erasure.load(made.save(tmp_path / f"{order[0]}.safetensors"))
        assert isinstance(back.deltas[bias], Dense) and torch.equal(back.deltas[bias].change, deltas[bias].change)
        assert torch.equal(back.deltas[weight].dense(), torch.ones(2, 3))


def test_two_weights_of_one_name_are_not_saved(tmp_path: Path) -> None:
    one = LowRank(torch.ones(2, 1), torch.ones(1, 3))
    with pytest.raises(ValueError, match="unet.a_b.weight has the name of another weight in LoRA files, lora_unet_a_b"):
        Erasure({"unet.a.b.weight": one, "unet.a_b.weight": one}, ()).save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.safetensors", "folder.safetensors: it is a folder"),
        ("a\0b.safetensors", "no file can have this name"),
        (f"{'a' * 300}.safetensors", "File name too long"),
        ("missing/a.safetensors", "there is no such folder"),
        ("a.ckpt", r"an erasure is saved as .safetensors, got 'a.ckpt'"),
        ("a\ud83d.ckpt", r"got 'a\\ud83d.ckpt'"),
    ],
)
def test_targets_are_refused_before_anything_is_computed(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises((OSError, ValueError), match=message):
        check_target(tmp_path / name, True)
    with pytest.raises((OSError, ValueError), match=message):
        small().save(tmp_path / name, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


def test_a_file_that_is_written_can_be_written_over(erasure: Erasure, saved: Path) -> None:
    with pytest.raises(FileExistsError, match="is already there"):
        check_target(saved, False)
    check_target(saved, True)


def huge() -> LowRank:
    """Two million numbers whose product has four million millions: 16 TB."""
    return LowRank(torch.zeros(2_000_000, 1), torch.zeros(1, 2_000_000))


def test_changes_of_another_shape_are_refused_by_their_shape() -> None:
    """Without the product of their factors, which may be larger than any memory."""
    erasure, model = Erasure({FIRST: huge()}, ()), FakeModel()
    fitting = Erasure({FIRST: LowRank(torch.ones(12, 1), torch.ones(1, 24))}, ())
    shown = r"\(2000000, 2000000\)"
    other = f"changes {FIRST} as {shown}; it was made for another model"
    with pytest.raises(ValueError, match=other):
        erasure.over(model)
    with pytest.raises(ValueError, match=other), erasure.applied_to(model):
        pass
    assert model.erasures == ()
    with pytest.raises(ValueError, match=rf"for different models: {FIRST} is {shown} in one, \(12, 24\) in the other"):
        erasure + fitting
    with pytest.raises(ValueError, match=rf"{FIRST} is \(3,\) in one, {shown} in the other"):
        Erasure({FIRST: Dense(torch.ones(3))}, ()) + erasure


def test_what_compression_loses_is_told_without_the_whole_product(monkeypatch) -> None:
    torch.manual_seed(0)
    deltas = {"unet.a.weight": LowRank(torch.randn(7, 3), torch.randn(3, 5)), "unet.b.weight": Dense(torch.randn(9, 5))}
    erasure = Erasure(deltas, ())
    whole = erasure.compressed(max_rank=1)
    formed, dense = [], LowRank.dense
    monkeypatch.setattr("erasure_core.erasures.erasure.AT_ONCE", 10)
    monkeypatch.setattr(LowRank, "dense", lambda self: formed.append(self.shape) or dense(self))
    again = erasure.compressed(max_rank=1)
    assert max(rows * columns for rows, columns in formed) == 10
    assert again.error == pytest.approx(whole.error, rel=1e-6)
    lost = sum(float((whole.deltas[n].dense() - d.dense()).square().sum()) for n, d in deltas.items())
    size = sum(float(d.dense().square().sum()) for d in deltas.values())
    assert whole.error == pytest.approx((lost / size) ** 0.5, rel=1e-5) and 0.1 < whole.error < 1
