"""The commands that look at an erasure or use it: ``evaluate``, ``report``, ``attack``, ``compare``, ``purify``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from pure.command_line import fails
from pure.fakes import FakeModel

from erasure_core import Concept, rece
from erasure_core.commands import shared
from erasure_core.commands.main import main


def test_evaluate_arguments(tmp_path: Path, capsys) -> None:
    assert "belong together" in fails(capsys, "evaluate", "--concept", "cat")
    assert "belong together" in fails(capsys, "evaluate", "--erasure", tmp_path / "a.safetensors")
    assert "at least 1" in fails(capsys, "evaluate", "--images", "0")
    missing = fails(capsys, "evaluate", "--erasure", tmp_path / "a.safetensors", "--concept", "cat")
    assert "there is no file" in missing


def test_a_concept_that_cannot_be_judged(fake: FakeModel, tmp_path: Path, capsys) -> None:
    out = tmp_path / "a.safetensors"
    assert main(["erase", "--model", "toy", "--concept", "wolf", "--out", str(out)]) == 0
    capsys.readouterr()
    assert "does not draw 'wolf'" in fails(capsys, "evaluate", "--erasure", out, "--concept", "wolf")


@pytest.mark.parametrize("command", ["report", "attack", "evaluate"])
def test_what_was_not_erased_is_no_concept_to_audit(monkeypatch, tmp_path: Path, capsys, command: str) -> None:
    monkeypatch.setattr(shared, "load_model", lambda *_: pytest.fail("a model was read"))
    path = rece(FakeModel(), ["cat", "pig"]).save(tmp_path / "a.safetensors")
    told = fails(capsys, command, "--model", "toy", "--erasure", path, "--concept", "dog")
    assert "'dog' is not what was erased, that is cat, pig; name one of these" in told


def test_purify(fake: FakeModel, tmp_path: Path, capsys) -> None:
    fake.encode_images = lambda images: torch.cat([images, images[:, :1]], 1)[..., ::8, ::8]
    path = rece(fake, "cat -> dog").save(tmp_path / "a.safetensors")
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for name in ("one.png", "two.jpg"):
        Image.new("RGB", (40, 30), (10, 90, 200)).save(pictures / name)
    purify = ["purify", "--model", "toy", "--erasure", str(path), "--images", str(pictures), "--out", str(out)]
    assert main([*purify, "--steps", "3"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "two.png"]
    assert Image.open(out / "one.png").size == (4, 4) and str(out / "two.png") in capsys.readouterr().out
    assert "one.png is already there" in fails(capsys, *purify)
    assert main([*purify, "--steps", "3", "--overwrite", "--prompt", "a wolf"]) == 0
    assert "--prompt does not name what is erased ('cat')" in capsys.readouterr().err
    assert main([*purify, "--steps", "3", "--overwrite"]) == 0 and capsys.readouterr().out
    (pictures / "one.jpg").write_bytes((pictures / "two.jpg").read_bytes())
    assert "two pictures would be written as one.png" in fails(capsys, *purify)
    (pictures / "one.jpg").unlink()
    assert "error: --steps must be from 1 to 99, got 100" in fails(capsys, *purify, "--overwrite", "--steps", "100")


def test_compare(fake: FakeModel, tmp_path: Path, capsys) -> None:
    paths = [rece(fake, concept).save(tmp_path / f"{concept}.safetensors") for concept in ("cat", "dog")]
    (tmp_path / "prompts.txt").write_text("# both\ncat\ndog\n")
    out = tmp_path / "grid.png"
    compare = ["compare", "--model", "toy", "--out", str(out), "--steps", "2", "--erasure", str(paths[0])]
    more = ["--erasure", str(paths[1]), "--prompts", str(tmp_path / "prompts.txt"), "--pictures", "2"]
    assert main([*compare, *more, "--prompt", "red fish"]) == 0
    assert str(out) in capsys.readouterr().out
    wide = Image.open(out).size
    assert main([*compare, "--prompt", "cat", "--overwrite"]) == 0 and capsys.readouterr().out
    assert Image.open(out).height < wide[1]
    assert "grid.png is already there" in fails(capsys, *compare, "--prompt", "cat")
    compare.append("--overwrite")
    assert "name at least one --prompt" in fails(capsys, *compare)
    none = fails(capsys, *compare, "--prompt", "cat", "--pictures", "0")
    assert "--pictures must be a whole number of at least 1, got '0'" in none
    assert "two files have the same name" in fails(capsys, *compare, "--erasure", paths[0], "--prompt", "cat")
    compare[4] = str(tmp_path / "grid.jpg")
    assert "written as .png, got 'grid.jpg'" in fails(capsys, *compare, "--prompt", "cat")


@pytest.mark.parametrize("command", ["report", "attack"])
def test_each_concept_of_an_erasure_has_its_folder(command: str, fake: FakeModel, tmp_path: Path, capsys) -> None:
    """What is there is kept, so that a second run, or a second process, does only what is left."""
    saved, out = tmp_path / "a.safetensors", tmp_path / "out"
    rece(fake, [Concept("cat"), Concept("red/fish"), Concept("dog")]).save(saved)
    short = {
        "report": ["--pictures", "1", "--neighbours", "1", "--steps", "1"],
        "attack": ["--pictures", "1", "--sampling-steps", "1", "--attack", "name"],
    }
    arguments = [command, "--model", "toy2", "--erasure", str(saved), "--each", *short[command]]
    assert "--each audits every concept into a folder below --out" in fails(capsys, *arguments)
    assert main([*arguments, "--out", str(out)]) == 0
    folders = ["1-cat", "2-red_fish", "3-dog"]
    assert sorted(one.name for one in out.iterdir()) == [".claims", *folders]
    files = [out / folder / f"{command}.{kind}" for folder in folders for kind in ("png", "json")]
    assert all(file.exists() for file in files) and "3 concepts, 3 of them by this process" in capsys.readouterr().out
    files[3].unlink()
    files[2].unlink()
    before = files[1].stat().st_mtime_ns
    assert main([*arguments, "--out", str(out)]) == 0
    assert "3 concepts, 1 of them by this process" in capsys.readouterr().out
    assert files[1].stat().st_mtime_ns == before and files[3].exists()
    assert "it goes without --concept and --overwrite" in fails(capsys, *arguments, "--out", out, "--overwrite")
