"""``erase`` by the methods that train: their options, their pictures and captions, and what users get wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from pure.command_line import exit_code, fails
from pure.fakes import FakeModel

from erasure_core import Erasure, rece
from erasure_core.commands import shared
from erasure_core.commands.main import main
from erasure_core.methods import METHODS


def test_learned_methods(fake: FakeModel, tmp_path: Path, capsys) -> None:
    out = tmp_path / "a.safetensors"
    erase = ["erase", "--model", "toy", "--overwrite", "--out", str(out), "--steps", "2", "--seed", "3", "--concept"]
    assert main([*erase, "cat", "--method", "few_shot", "--images", "2", "--learning-rate", "0.001"]) == 0
    (origin,) = Erasure.load(out).origins
    assert origin.method == "few_shot" and origin.settings["images"] == 2 and origin.settings["seed"] == 3
    assert len(origin.losses) == 2 and "2 steps, loss" in capsys.readouterr().out
    for index in range(3):
        Image.new("RGB", (40, 30), (index, 90, 200)).save(tmp_path / f"{index}.png")
    fake.encode_images = lambda images: torch.cat([images, images[:, :1]], 1)[..., ::8, ::8]
    for preset in ("object", "published"):
        assert main([*erase, "cat", "--method", "few_shot", "--images", str(tmp_path), "--preset", preset]) == 0
        assert Erasure.load(out).origins[0].settings["images"] == 3
    assert main([*erase, "cat", "--method", "few_shot", "--images", "none", "--rank", "2"]) == 0
    fake.tokens = 16
    assert main([*erase, "cat -> dog", "--method", "few_shot", "--preserve", "bird", "--no-common"]) == 0
    (origin,) = Erasure.load(out).origins
    assert origin.settings["images"] == 8 and origin.settings["preserve"] == ["bird"]
    assert [str(concept) for concept in origin.concepts] == ["cat -> dog"]
    for more in (["--preserve", "bird", "--no-common"], ["--preset", "published"]):
        assert main([*erase, "cat -> dog", "--method", "doco", "--batch-size", "2", "--steps", "20", *more]) == 0
        preserve = Erasure.load(out).origins[0].settings["preserve"]
        assert preserve == ([] if "published" in more else ["bird"])
    assert main([*erase, "cat", "--method", "abo", "--trajectories", "2", "--preserve", "bird"]) == 0
    assert "bird" in Erasure.load(out).origins[0].settings["preserve"]


def test_captions_stand_beside_pictures(fake: FakeModel, monkeypatch, tmp_path: Path, capsys) -> None:
    """In text files of the pictures' names, as trainers of LoRAs read them; either all are there or none."""
    seen: dict = {}

    def run(model, concepts, settings, **keywords):
        seen.update(keywords)
        return rece(model, "cat")

    monkeypatch.setitem(METHODS, "few_shot", replace(METHODS["few_shot"], run=run))
    out = tmp_path / "e.safetensors"
    erase = ("erase", "--model", "toy", "--concept", "cat", "--method", "few_shot", "--out", out, "--overwrite")
    erase += ("--images", tmp_path)
    for name in ("b", "a"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    assert exit_code(*erase) == 0 and len(seen["images"]) == 2 and seen["captions"] == []
    (tmp_path / "b.txt").write_text("\ufeffa cat\n in a hat \n", encoding="utf-8")
    capsys.readouterr()
    assert "images: a.png has no caption, a.txt; others have theirs" in fails(capsys, *erase)
    (tmp_path / "a.txt").write_text("the cat")
    assert exit_code(*erase) == 0 and seen["captions"] == ["the cat", "a cat in a hat"]
    capsys.readouterr()
    (tmp_path / "a.txt").write_text(" \n")
    assert "images: a.txt is empty; write what the picture shows" in fails(capsys, *erase)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    assert "images: a.txt is not UTF-8 text: " in fails(capsys, *erase)
    monkeypatch.undo()
    monkeypatch.setattr(shared, "load_model", lambda *_: fake)
    (tmp_path / "a.txt").write_text("a dog")
    assert "captions: 'a dog' does not name 'cat', which is to be erased" in fails(capsys, *erase)


def test_what_users_get_wrong_about_learned_methods(fake: FakeModel, tmp_path: Path, capsys) -> None:
    erase = ("erase", "--model", "toy", "--out", tmp_path / "a.safetensors", "--concept")
    few_shot = (*erase, "cat", "--method", "few_shot")
    published = (*erase, "cat -> dog", "--method", "few_shot", "--preset", "published")
    assert "no replacement with the objective 'ascent'; write 'cat' without" in fails(capsys, *published)
    assert "there is no folder" in fails(capsys, *few_shot, "--images", tmp_path / "nothing")
    assert "holds no picture" in fails(capsys, *few_shot, "--images", tmp_path)
    for count in ("0", "1001", "9" * 5000):
        told = fails(capsys, *few_shot, "--images", count)
        assert "--images: the model draws 1 to 1000 pictures itself, not " + count[:60] in told
    (tmp_path / "a.png").write_bytes(b"no")
    assert "a.png is not a readable picture" in fails(capsys, *few_shot, "--images", tmp_path)
    spared = (*few_shot, "--images", "none", "--gradient-checkpointing")
    assert "takes no --gradient-checkpointing" in fails(capsys, *spared)
    assert "takes no --towers" in fails(capsys, *erase, "cat -> dog", "--method", "abo", "--towers", "text_encoder")
    assert "doco takes no --images" in fails(capsys, *erase, "cat -> dog", "--method", "doco", "--images", "3")
    assert "no preset 'explicit'" in fails(capsys, *few_shot, "--images", "none", "--preset", "explicit")
    assert "needs an anchor" in fails(capsys, *erase, "cat", "--method", "doco")
    assert "rece takes no --seconds" in fails(capsys, *erase, "cat", "--seconds", "3")
    assert "rece takes no --seed" in fails(capsys, *erase, "cat", "--seed", "0")
    assert "rece takes no --images; it is of few_shot" in fails(capsys, *erase, "cat", "--images", "3")
    assert "rece takes no --steps; it is of few_shot, doco, abo" in fails(capsys, *erase, "cat", "--steps", "3")
    assert not (tmp_path / "a.safetensors").exists()
