"""What several files of the pure tier ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pure.erasure_files import small
from pure.fakes import FakeModel
from pure.pack_modules import Pack, stand_in

from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics import Statistics
from erasure_core.closed_form.statistics_file import save_statistics
from erasure_core.commands import shared


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """The model that every command gets, whatever it asks for."""
    model = FakeModel()
    monkeypatch.setattr(shared, "load_model", lambda *_: model)
    return model


@pytest.fixture(scope="module")
def imported() -> Iterator[Pack]:
    with stand_in() as pack:
        yield pack


@pytest.fixture
def pack(imported: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """The pack on a stand-in for ComfyUI whose folders are below ``tmp_path``."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "root", str(tmp_path))
    for name in ("output", "input"):
        (tmp_path / name).mkdir()
    return imported


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The file of a small erasure."""
    return small().save(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    return gather_statistics(FakeModel(width=4), "cat -> dog", ["bird"], exactly=["fish"])


@pytest.fixture
def kept(statistics: Statistics, tmp_path: Path) -> Path:
    """The file of small statistics."""
    return save_statistics(statistics, tmp_path / "s.safetensors")
