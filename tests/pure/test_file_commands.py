"""The commands that work on files alone: ``bake``, ``inspect``, ``combine``, ``rebase``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pure.command_line import exit_code, fails
from pure.fakes import LAYERS, FakeModel
from pure.test_baking import written

from erasure_core import Concept, Dense, Erasure, Origin, rece
from erasure_core.erasures.baked import baked_erasures
from erasure_core.files.tensor_file import open_tensor_file


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return rece(FakeModel(), "cat -> dog", preserve=["", "bird"]).save(tmp_path / "cat.safetensors")


@pytest.fixture
def bird(tmp_path: Path) -> Path:
    return rece(FakeModel(), "bird").save(tmp_path / "bird.safetensors")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path / "model.safetensors", FakeModel())


def test_bake_and_inspect(cat: Path, model: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new.safetensors"
    assert exit_code("bake", cat, model, "--out", out, "--strength", 0.5) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{out}: without 'cat -> dog'; 4 tensors have changed, rounding loses 0.00% of the change")
    assert [one.strength for one in baked_erasures(open_tensor_file(out).metadata)] == [0.5]
    assert exit_code("inspect", out) == 0
    text = capsys.readouterr().out
    assert f"{out}: a checkpoint, " in text and "erases cat -> dog\n  by rece (" in text and "strength 0.5" in text
    assert exit_code("inspect", model) == 0
    assert "no erasure was baked into it" in capsys.readouterr().out


def test_bake_says_what_is_not_exact(cat: Path, tmp_path: Path, capsys) -> None:
    other = FakeModel(seed=5)
    path = written(tmp_path / "other.safetensors", other)
    assert exit_code("bake", cat, path, "--out", tmp_path / "new.safetensors") == 0
    assert "formed anew for these, which is right where both checkpoints have the same" in capsys.readouterr().err
    trained = Erasure({next(iter(LAYERS)): Dense(torch.full((12, 24), 1e-3))}, (Origin("t", (Concept("x"),), {}, "0"),))
    saved = trained.save(tmp_path / "trained.safetensors")
    coarse = written(tmp_path / "coarse.safetensors", FakeModel(), torch.bfloat16)
    assert exit_code("bake", saved, coarse, "--out", tmp_path / "coarse-new.safetensors") == 0
    errors = capsys.readouterr().err
    assert "computed on other weights, could not be formed anew" in errors and "note: rounding loses" in errors


def test_inspect_an_erasure(cat: Path, capsys) -> None:
    assert exit_code("inspect", cat) == 0
    text = capsys.readouterr().out
    assert "an erasure" in text and "changes 4 weights: 2 unet attn2.to_k, 2 unet attn2.to_v; low-rank, rank" in text
    assert "can be rebased on other checkpoints" in text and "as a LoRA ComfyUI's Load LoRA" in text
    assert exit_code("inspect", cat, "--json") == 0
    facts, erasure = json.loads(capsys.readouterr().out), Erasure.load(cat)
    norm = sum(float(delta.dense().double().square().sum()) for delta in erasure.deltas.values()) ** 0.5
    assert facts["norm"] == pytest.approx(norm, rel=1e-5) and facts["bytes"] == cat.stat().st_size
    assert facts["erasures"][0]["concepts"] == ["cat -> dog"]
    assert facts["erasures"][0]["fingerprint"] == erasure.origins[0].fingerprint


def test_combine(cat: Path, bird: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "both.safetensors"
    assert exit_code("combine", cat, bird, "--out", out, "--strength", 1, "--strength", 0.5) == 0
    assert "erases 'cat -> dog', 'bird'" in capsys.readouterr().out
    one, two, both = (Erasure.load(path) for path in (cat, bird, out))
    for name in LAYERS:
        expected = one.deltas[name].dense() + 0.5 * two.deltas[name].dense()
        torch.testing.assert_close(both.deltas[name].dense(), expected)


def test_what_cannot_be_combined(cat: Path, bird: Path, tmp_path: Path, capsys) -> None:
    out = ("--out", tmp_path / "both.safetensors")
    assert "name at least two" in fails(capsys, "combine", cat, *out)
    assert "one for each of the 2 files, got 1" in fails(capsys, "combine", cat, bird, *out, "--strength", 2)
    again = rece(FakeModel(), "cat -> bird").save(tmp_path / "again.safetensors")
    assert "both erasures take 'cat -> dog' from the same weights" in fails(capsys, "combine", cat, again, *out)
    other = rece(FakeModel(seed=3), "bird").save(tmp_path / "other.safetensors")
    sentence = fails(capsys, "combine", cat, other, *out)
    assert "other.safetensors was made on the weights" in sentence and "rebase, or give --chained" in sentence
    wide = rece(FakeModel(width=12), "bird").save(tmp_path / "wide.safetensors")
    assert "for different models" in fails(capsys, "combine", cat, wide, *out, "--chained")
    assert "would replace" in fails(capsys, "combine", cat, bird, "--out", cat, "--overwrite")
    assert exit_code("combine", cat, other, *out, "--chained") == 0


def test_rebase(cat: Path, model: Path, tmp_path: Path, capsys) -> None:
    """What the library gives for the loaded model, from the file alone."""
    other, out = FakeModel(seed=9), tmp_path / "fitting.safetensors"
    path = written(tmp_path / "other.safetensors", other)
    assert exit_code("rebase", cat, path, "--out", out) == 0
    assert "for other.safetensors, right where both have the same text encoder" in capsys.readouterr().out
    expected = Erasure.load(cat).rebased_on(other)
    assert Erasure.load(out).origins == expected.origins
    for name, delta in expected.deltas.items():
        assert torch.equal(Erasure.load(out).deltas[name].dense(), delta.dense())
    assert "made on the weights of model.safetensors already" in fails(
        capsys, "rebase", cat, model, "--out", out, "--overwrite"
    )


def test_what_was_trained_is_not_rebased(model: Path, tmp_path: Path, capsys) -> None:
    trained = Erasure({next(iter(LAYERS)): Dense(torch.ones(12, 24))}, (Origin("doco", (Concept("x"),), {}, "0"),))
    path = trained.save(tmp_path / "trained.safetensors")
    assert "made by doco keeps no context map and cannot be rebased; make it anew" in fails(
        capsys, "rebase", path, model, "--out", tmp_path / "new.safetensors"
    )


@pytest.mark.parametrize("command", ["bake", "rebase"])
def test_what_is_read_is_not_written(command: str, cat: Path, model: Path, capsys) -> None:
    before = cat.read_bytes(), model.read_bytes()
    for path, name in ((model, "CHECKPOINT"), (cat, "ERASURE")):
        sentence = fails(capsys, command, cat, model, "--out", path, "--overwrite")
        assert f"--out would replace {path}, which {name} reads" in sentence
    assert (cat.read_bytes(), model.read_bytes()) == before
