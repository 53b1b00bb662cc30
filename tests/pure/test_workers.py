"""Several processes that share the reading of prompts: what one process does alone, and what several cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erasure_core.commands.main import main
from erasure_core.workers import ALONE, Workers


def test_what_several_processes_cannot_do(fake, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = str(tmp_path / "a.safetensors")
    assert main(["erase", "--model", "toy", "--method", "abo", "--concept", "cat -> dog", "--out", out]) == 2
    assert "error: abo trains in one process; start it without torchrun" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["erase", "--model", "toy", "--concept", "cat", "--device", "cuda", "--out", out]) == 2
    assert "finds 1 CUDA GPUs here, and 2 processes on this machine need as many" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()


def test_one_that_works_alone_has_everything_and_leads() -> None:
    assert ALONE.leads and ALONE.share_of([1, 2, 3]) == [1, 2, 3]
    assert [list(Workers(rank, 2).share_of([1, 2, 3])) for rank in range(2)] == [[1, 3], [2]]
    (same,) = ALONE.summed([torch.ones(2)])
    assert same.tolist() == [1, 1]
    ALONE.agree(None)
    with pytest.raises(ValueError, match="mine"):
        ALONE.agree(ValueError("mine"))
