"""Where a model is put, and in which precision: what the commands ask for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pure.command_line import fails
from pure.fakes import FakeModel

from erasure_core.commands import shared
from erasure_core.commands.main import main
from erasure_core.devices import usable_device


def test_a_device_that_cannot_be_used() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:99", "cpu:x", "xyz:0"):
        with pytest.raises(
            ValueError, match=f"device '{name}' cannot be used: .*; give 'cpu', or 'cuda' where there is"
        ):
            usable_device(name)


def test_a_command_loads_as_it_is_asked(monkeypatch, tmp_path: Path, capsys) -> None:
    asked: list[tuple] = []

    def load(*arguments: object) -> FakeModel:
        asked.append(arguments)
        return FakeModel()

    monkeypatch.setattr(shared, "load_model", load)
    erase = ["erase", "--model", "m", "--concept", "cat", "--no-common", "--out", str(tmp_path / "a.safetensors")]
    assert main(erase) == 0
    assert main([*erase, "--overwrite", "--device", "cpu", "--dtype", "bf16", "--clip-skip", "1"]) == 0
    cpu = torch.device("cpu")
    assert asked == [("m", cpu, torch.float32, 0), ("m", cpu, torch.bfloat16, 1)]
    capsys.readouterr()
    assert "device 'cuda:99' cannot be used" in fails(capsys, *erase, "--overwrite", "--device", "cuda:99")
    assert "--dtype: invalid choice: 'int8'" in fails(capsys, *erase, "--overwrite", "--dtype", "int8")
    assert len(asked) == 2
