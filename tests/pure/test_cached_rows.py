"""Rows of prompts in files: a second run encodes nothing that the first did, and gets the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from pure.fakes import FakeModel, TwoTowers

from erasure_core import CachedRows, Erasure, UnsupportedModelError, rece
from erasure_core.closed_form.already_erased import ErasedAlreadyError
from erasure_core.commands import shared
from erasure_core.commands.main import main
from erasure_core.concepts.cached import MOST_BYTES
from erasure_core.concepts.remembered import RememberedRows
from erasure_core.methods.rece import RECE
from erasure_core.model import CacheableReader, NameReader, TextReader, TextRows

PROMPTS = ["red fish", "", "cat", "red fish"]


class Identified(TwoTowers):
    """Says what its text encoders are, and keeps lists of what they read."""

    def __init__(self, digest: str = "one", dtype: torch.dtype = torch.float32):
        super().__init__()
        self.digest, self.dtype = digest, dtype
        self.whole: list[str] = []
        self.names: list[str] = []

    def rows_device(self) -> torch.device:
        return torch.device("cpu")

    def encoder_digest(self) -> str:
        return self.digest

    def text_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        self.whole += prompts
        return self._in_precision(super().text_rows(prompts))

    def name_rows(self, prompts: Sequence[str]) -> Sequence[Mapping[str, tuple[TextRows, ...]]]:
        self.names += prompts
        return self._in_precision(self.encoded(prompts).rows(behind=1))

    def _in_precision(self, reads):
        return [
            {
                name: tuple(TextRows(part.rows.to(self.dtype), part.last_content) for part in parts)
                for name, parts in read.items()
            }
            for read in reads
        ]


def same(one: Mapping[str, tuple[TextRows, ...]], other: Mapping[str, tuple[TextRows, ...]]) -> bool:
    return set(one) == set(other) and all(
        mine.last_content == theirs.last_content
        and mine.rows.dtype == theirs.rows.dtype
        and mine.rows.equal(theirs.rows)
        for name in one
        for mine, theirs in zip(one[name], other[name], strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_second_run_encodes_nothing(tmp_path: Path, dtype: torch.dtype) -> None:
    assert isinstance(Identified(), CacheableReader) and not isinstance(FakeModel(), CacheableReader)
    expected = Identified(dtype=dtype).text_rows(PROMPTS)
    for run in range(3):
        model = Identified(dtype=dtype)
        cached = CachedRows(model, tmp_path)
        assert isinstance(cached, TextReader) and isinstance(cached, NameReader)
        assert all(map(same, cached.text_rows(PROMPTS), expected))
        assert model.whole == ([] if run else PROMPTS[:3]) and cached.text_rows([]) == []


def test_only_what_is_missing_is_encoded(tmp_path: Path) -> None:
    CachedRows(Identified(), tmp_path).text_rows(["cat"])
    model = Identified()
    cached = CachedRows(model, str(tmp_path))
    assert all(map(same, cached.text_rows(PROMPTS), Identified().text_rows(PROMPTS)))
    assert model.whole == ["red fish", ""]
    assert all(map(same, cached.name_rows(PROMPTS), Identified().name_rows(PROMPTS))) and model.names == PROMPTS[:3]
    assert cached.reads("cat") == model.reads("cat") and cached.erasures == model.erasures
    assert list(cached.text_entries()) == list(model.text_entries())


def test_other_text_encoders_have_files_of_their_own(tmp_path: Path) -> None:
    CachedRows(Identified("one"), tmp_path).text_rows(["cat"])
    other = Identified("other")
    CachedRows(other, tmp_path).text_rows(["cat"])
    assert other.whole == ["cat"] and len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_encoded_again(tmp_path: Path, caplog) -> None:
    CachedRows(Identified(), tmp_path).text_rows(["cat"])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-3] + b"bad")
    model = Identified()
    assert same(CachedRows(model, tmp_path).text_rows(["cat"])[0], Identified().text_rows(["cat"])[0])
    assert model.whole == ["cat"] and file.read_bytes() == whole and "made anew" in caplog.text


def test_the_folder_stays_in_its_limit(tmp_path: Path) -> None:
    CachedRows(Identified(), tmp_path).text_rows(["cat"])
    (file,) = tmp_path.iterdir()
    size = file.stat().st_size
    cached = CachedRows(Identified(), tmp_path, most=int(2.5 * size))
    cached.text_rows(["dog", "cow"])
    cached.text_rows(["owl"])
    assert len(list(tmp_path.iterdir())) == 2 and MOST_BYTES == 2_000_000_000


@pytest.mark.parametrize("preset", ["general", "many"])
def test_an_erasure_is_the_same_to_the_last_bit(tmp_path: Path, preset: str) -> None:
    expected = rece(Identified(), ["cat", "dog -> red fish"], RECE[preset], preserve=["hill"])
    for run in range(2):
        model = Identified()
        erasure = rece(CachedRows(model, tmp_path), ["cat", "dog -> red fish"], RECE[preset], preserve=["hill"])
        assert bool(model.whole or model.names) == (not run)
        for name, delta in expected.deltas.items():
            assert torch.equal(erasure.deltas[name].dense(), delta.dense())


def test_a_model_whose_text_encoders_cannot_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"text encoders of a FakeModel cannot be told from others.*from_diff"
    ):
        CachedRows(FakeModel(), tmp_path / "contexts")
    assert not list(tmp_path.iterdir())


def test_the_command_keeps_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Identified] = []
    monkeypatch.setattr(shared, "load_model", lambda *_: opened.append(Identified()) or opened[-1])
    command = ["erase", "--model", "toy", "--concept", "cat", "--concept", "dog", "--out"]
    folder = ["--context-cache", str(tmp_path / "kept" / "contexts")]
    for file, more in (("plain", []), ("first", folder), ("again", folder), ("named", [*folder, "--aliases"])):
        assert main([*command, str(tmp_path / f"{file}.safetensors"), *more]) == 0
    plain, first, again, named = opened
    assert set(map(plain.reads, plain.whole)) == set(map(plain.reads, first.whole)) and again.whole == []
    assert "kitten" in named.whole and "cat" not in named.whole
    assert (tmp_path / "plain.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert Erasure.load(tmp_path / "named.safetensors").concepts


def test_what_the_command_cannot_keep_is_said_before_a_model_is_loaded(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shared, "load_model", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("mine")
    erase = ["erase", "--model", "toy", "--concept", "cat -> dog", "--out", str(tmp_path / "a.safetensors")]
    assert main([*erase, "--context-cache", str(tmp_path / "file")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    assert main([*erase, "--method", "abo", "--context-cache", str(tmp_path / "contexts")]) == 2
    assert "--context-cache keeps what closed forms read, and abo trains" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("wrapped", [CachedRows, lambda model, folder: RememberedRows(model)])
def test_what_has_happened_to_the_model_is_known(wrapped, tmp_path: Path, caplog) -> None:
    model = Identified()
    model.vocabulary = frozenset({"red", "fish", "cat"})
    rows = wrapped(model, tmp_path)
    erasure = rece(rows, "red fish")
    with erasure.applied_to(model), pytest.raises(ErasedAlreadyError):
        rece(rows, "red fish")
    rece(rows, "red fish")
    assert not caplog.messages
    rece(rows, "red fihs")
    assert "the model has not learned 'fihs' (did you mean 'fish'?)" in caplog.text
