"""Erasures as files: round trips, stock names, and everything that can be wrong with a file or a folder."""

from __future__ import annotations

import base64
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pure.fakes import LAYERS, FakeModel
from pure.test_erasure import dense, mixed, same
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from erasure_core import Dense, Erasure, ErasureFileError, LowRank, files, rece
from erasure_core.kohya import stem, stems
from erasure_core.model import CONTEXT

FIRST = next(iter(LAYERS))


@pytest.fixture(scope="module")
def erasure() -> Erasure:
    return rece(FakeModel(), "cat -> dog", preserve=["", "bird"], loops=2)


@pytest.fixture
def saved(erasure: Erasure, tmp_path: Path) -> Path:
    return erasure.save(tmp_path / "cat.safetensors")


def opened(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safe_open(path, "pt") as file:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # older safetensors map the file
        return tensors, json.loads(file.metadata()["erasure"])


def rewrite(path: Path, tensors: dict, header: object) -> Path:
    save_file(tensors, path, metadata={"erasure": header if isinstance(header, str) else json.dumps(header)})
    return path


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


def test_never_overwrites_unless_asked(erasure: Erasure, saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(FileExistsError, match=f"{saved} is already there"):
        erasure.scaled(2).save(saved)
    assert saved.read_bytes() == before
    erasure.scaled(2).save(saved, overwrite=True)
    assert saved.read_bytes() != before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_file_that_appears_meanwhile_stays(erasure: Erasure, tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "a.safetensors"

    def slow_save(*args, **kwargs) -> None:
        save_file(*args, **kwargs)
        target.write_bytes(b"somebody else's")

    monkeypatch.setattr(files, "save_file", slow_save)
    with pytest.raises(FileExistsError, match="already there"):
        erasure.save(target)
    assert target.read_bytes() == b"somebody else's"
    assert list(tmp_path.iterdir()) == [target]


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


def test_a_read_only_folder(erasure: Erasure, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_, **__) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".a-xyz.partial"))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(OSError, match=f"cannot write into {tmp_path}: Permission denied"):
        erasure.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_nothing(erasure, tmp_path: Path, monkeypatch, problem, overwrite: bool) -> None:
    target = tmp_path / "a.safetensors"
    if overwrite:
        target.write_bytes(b"old")

    def half(tensors, path, metadata) -> None:
        Path(path).write_bytes(b"half")
        raise problem

    monkeypatch.setattr(files, "save_file", half)
    with pytest.raises(type(problem)):
        erasure.save(target, overwrite=overwrite)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([b"old"] if overwrite else [])


def test_the_safetensors_librarys_own_errors(erasure: Erasure, tmp_path: Path, monkeypatch) -> None:
    def fail(*_, **__) -> None:
        raise files.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        erasure.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_saved(tmp_path: Path, bad: float) -> None:
    erasure = Erasure({FIRST: Dense(torch.full((2, 2), bad))}, ())
    with pytest.raises(ValueError, match="holds NaN or infinite values; nothing was saved"):
        erasure.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Erasure.load(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
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
    with pytest.raises(ErasureFileError, match="has format 9, this version reads 2"):
        Erasure.load(rewrite(saved, tensors, {**header, "format": 9}))


@pytest.mark.parametrize("header", ["", "{", "[]", "3", "{}", '{"format": 1}', "[" * 100_000])
def test_a_broken_header(saved: Path, header: str) -> None:
    with pytest.raises(ErasureFileError, match=r"the header of cat\.safetensors does not fit"):
        Erasure.load(rewrite(saved, opened(saved)[0], header))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", "unet"),
        ("weights", [3]),
        ("weights", ["vae.conv.weight"]),
        ("origins", [{}]),
        ("origins", 3),
        ("origins", [{"method": "rece", "concepts": [{"name": ""}], "settings": {}, "fingerprint": "", "version": ""}]),
        ("error", "much"),
        ("maps", 3),
        ("maps", {"context": {}}),
    ],
)
def test_a_header_that_does_not_fit(saved: Path, field: str, value: object) -> None:
    tensors, header = opened(saved)
    with pytest.raises(ErasureFileError):
        Erasure.load(rewrite(saved, tensors, {**header, field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("up", "?"),
        ("up", "AAAA"),
        ("up", 3),
        ("weights", []),
        ("weights", ["unet.other.weight"]),
        ("columns", [0, 25]),
        ("columns", [5, 5]),
        ("columns", "all"),
        ("columns", [0.0, 3.0]),
    ],
)
def test_a_context_map_that_does_not_fit(saved: Path, field: str, value: object) -> None:
    tensors, header = opened(saved)
    header["maps"][CONTEXT][field] = value
    with pytest.raises(ErasureFileError):
        Erasure.load(rewrite(saved, tensors, header))


def test_a_file_of_format_1_has_one_map_of_all_weights(saved: Path, erasure: Erasure) -> None:
    tensors, header = opened(saved)
    (only,) = header.pop("maps").values()
    back = Erasure.load(rewrite(saved, tensors, {**header, "format": 1, "context_map_up": only["up"]}))
    assert back.maps[CONTEXT].names == tuple(erasure.deltas) and back.maps[CONTEXT].columns is None
    assert torch.equal(back.maps[CONTEXT].change.up, erasure.maps[CONTEXT].change.up)


def test_a_context_map_that_is_not_finite(saved: Path) -> None:
    tensors, header = opened(saved)
    size = 24 * tensors[f"{stem(FIRST)}.lora_down.weight"].shape[0]
    up = torch.full((size,), float("nan")).numpy().tobytes()
    with pytest.raises(ErasureFileError, match="context map.*NaN"):
        header["maps"][CONTEXT]["up"] = base64.b64encode(up).decode()
        Erasure.load(rewrite(saved, tensors, header))


@pytest.mark.parametrize(
    ("part", "tensor", "message"),
    [
        ("lora_up.weight", None, "change of .*to_k.weight is missing"),
        ("lora_down.weight", None, "change of .*to_k.weight is missing"),
        ("lora_up.weight", torch.ones(12, 3), r"has factors \(12, 3\) and"),
        ("lora_up.weight", torch.ones(12), r"has factors \(12,\) and"),
        ("lora_up.weight", torch.full((12, 1), torch.nan), "lora_up.weight holds NaN"),
        ("alpha", torch.ones(2), "does not fit"),
        ("diff", torch.ones(12, 24), "tensors that its header does not list"),
        ("lora_down.weight", "other", "do not share one factor"),
    ],
)
def test_tensors_that_do_not_fit(saved: Path, part: str, tensor, message: str) -> None:
    tensors, header = opened(saved)
    key = f"{stem(FIRST)}.{part}"
    if tensor is None:
        del tensors[key]
    else:
        tensors[key] = tensors[key] + 1 if isinstance(tensor, str) else tensor
    with pytest.raises(ErasureFileError, match=message):
        Erasure.load(rewrite(saved, tensors, header))


def test_a_change_that_does_not_fit_the_model(erasure: Erasure, tmp_path: Path) -> None:
    """Whether a file fits a model shows when it is applied; the model stays as it is."""
    wrong = Erasure({"unet.other.weight": LowRank(torch.ones(3, 1), torch.ones(1, 2))}, ())
    back = Erasure.load(wrong.save(tmp_path / "a.safetensors"))
    model = FakeModel()
    with pytest.raises(ValueError, match="no weight unet.other.weight"), back.applied_to(model):
        pass
