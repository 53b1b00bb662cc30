"""``erase`` with statistics: saved, gone on from, and what users get wrong about them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pure.command_line import fails
from pure.fakes import FakeModel

from erasure_core import Erasure, common_concepts, parse_concepts, rece
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics_file import load_statistics, save_statistics
from erasure_core.commands.main import main
from erasure_core.methods.rece import RECE


def test_statistics(fake: FakeModel, tmp_path: Path, capsys) -> None:
    one, two, out = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "out"))
    erase = ["erase", "--model", "toy", "--preset", "object", "--out", str(out), "--overwrite"]
    assert main([*erase, "--concept", "cat", "--concept", "bird", "--save-statistics", str(one)]) == 0
    assert {"dog", "lion", ""} <= set(load_statistics(one).preserve)
    again = [*erase, "--statistics", str(one), "--concept", "lion -> dog", "--restore", "cat"]
    assert main([*again, "--preserve", "wolf", "--save-statistics", str(two)]) == 0
    found = Erasure.load(out)
    concepts = parse_concepts("bird\nlion -> dog")
    preserved = [*common_concepts(concepts), "wolf"]
    expected = rece(fake, concepts, RECE["object"], preserve=preserved)
    for name, delta in expected.deltas.items():
        torch.testing.assert_close(found.deltas[name].dense(), delta.dense(), rtol=1e-3, atol=1e-4)
    assert set(load_statistics(two).preserve) == set(preserved) and "cat" in preserved and "lion" not in preserved
    assert found.concepts == tuple(concepts) and capsys.readouterr().out.count("erases") == 2
    assert main([*erase, "--statistics", str(two)]) == 0
    torch.testing.assert_close(Erasure.load(out).deltas[name].dense(), found.deltas[name].dense(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("common", [[], ["--common"]])
def test_statistics_that_are_saved_change_no_erasure(fake: FakeModel, tmp_path: Path, common: list[str]) -> None:
    one, two, kept = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "kept"))
    erase = ["erase", "--model", "toy", "--concept", "cat", *common, "--out"]
    assert main([*erase, str(one)]) == 0
    assert main([*erase, str(two), "--save-statistics", str(kept)]) == 0
    plain, found = Erasure.load(one), Erasure.load(two)
    assert plain.origins == found.origins
    for name, delta in plain.deltas.items():
        torch.testing.assert_close(found.deltas[name].dense(), delta.dense())


def test_listed_names_that_share_a_word_with_a_new_concept_are_no_longer_preserved(fake, tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "three"))
    erase = ["erase", "--model", "toy", "--preset", "object", "--preserve-list", "mediums", "--overwrite"]
    erase += ["--out", str(tmp_path / "e.safetensors"), "--concept"]
    assert main([*erase, "cat", "--save-statistics", str(one)]) == 0
    kept = ["--preserve", "a watercolor painting"]
    assert main([*erase, "oil painting", *kept, "--statistics", str(one), "--save-statistics", str(two)]) == 0
    assert main([*erase, "cat", "--concept", "oil painting", *kept, "--save-statistics", str(three)]) == 0
    first, updated, at_once = (set(load_statistics(path).preserve) for path in (one, two, three))
    assert "a digital painting" in first and "a digital painting" not in updated
    assert updated == at_once and "a watercolor painting" in updated


def test_uce_goes_on_from_statistics_too(fake: FakeModel, tmp_path: Path, capsys) -> None:
    kept, out, plain = (tmp_path / f"{name}.safetensors" for name in ("kept", "out", "plain"))
    uce = ["erase", "--model", "toy", "--method", "uce", "--no-common", "--overwrite", "--out"]
    assert main([*uce, str(out), "--concept", "cat", "--save-statistics", str(kept)]) == 0
    assert main([*uce, str(out), "--concept", "bird", "--statistics", str(kept)]) == 0
    assert main([*uce, str(plain), "--concept", "cat", "--concept", "bird"]) == 0
    found, expected = Erasure.load(out), Erasure.load(plain)
    assert found.origins == expected.origins and found.origins[0].method == "uce"
    for name, delta in expected.deltas.items():
        torch.testing.assert_close(found.deltas[name].dense(), delta.dense(), rtol=1e-3, atol=1e-4)
    many = save_statistics(gather_statistics(fake, "cat", [""], name_only=True), tmp_path / "many.safetensors")
    capsys.readouterr()
    told = fails(capsys, *uce, out, "--statistics", many)
    assert (
        told == "error: the statistics are of names only (--name-only), which uce does not edit; choose the method rece"
    )


def test_what_users_get_wrong_about_statistics(fake: FakeModel, tmp_path: Path, capsys) -> None:
    kept = save_statistics(gather_statistics(fake, "cat", [""]), tmp_path / "s.safetensors")
    erase = ["erase", "--model", "toy", "--out", tmp_path / "a.safetensors"]
    assert "name a --concept" in fails(capsys, *erase)
    assert "--restore takes a concept back" in fails(capsys, *erase, "--concept", "cat", "--restore", "dog")
    assert "no concept 'dog'" in fails(capsys, *erase, "--statistics", kept, "--restore", "dog")
    assert "nothing to erase" in fails(capsys, *erase, "--statistics", kept, "--restore", "cat")
    assert "hold 'cat', not 'cat -> dog'" in fails(capsys, *erase, "--statistics", kept, "--concept", "cat -> dog")
    for other in (["--name-only"], ["--preset", "many"]):
        assert "choose the preset general or " in fails(capsys, *erase, "--statistics", kept, *other)
    same = (*erase, "--overwrite", "--save-statistics", tmp_path / "a.safetensors", "--concept", "dog")
    assert "--save-statistics and --out name the same file" in fails(capsys, *same)
    same = ("erase", "--model", "toy", "--out", kept, "--overwrite", "--statistics", kept)
    assert "--out would replace" in fails(capsys, *same)
    assert "holds statistics, not an erasure" in fails(capsys, "report", "--model", "toy", "--erasure", kept)
    erasure = rece(fake, "cat").save(tmp_path / "e.safetensors")
    assert "holds an erasure, not statistics" in fails(capsys, *erase, "--statistics", erasure)
    erasure.unlink()
    assert f"there is no file {tmp_path}/none" in fails(capsys, *erase, "--statistics", tmp_path / "none.safetensors")
    assert "already there" in fails(capsys, *erase, "--concept", "dog", "--save-statistics", kept)
    for other in ("doco", "abo"):
        told = fails(capsys, *erase, "--method", other, "--concept", "cat -> dog", "--statistics", kept)
        assert told == f"error: --statistics are of rece, uce, not of {other}"
    assert "uce takes no --exactly" in fails(capsys, *erase, "--method", "uce", "--concept", "cat", "--exactly", "dog")
    assert [file.name for file in tmp_path.iterdir()] == ["s.safetensors"]
