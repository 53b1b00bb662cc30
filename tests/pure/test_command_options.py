"""What the command line asks of options: numbers, paths, and settings of methods, refused before anything is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from pure.command_line import fails
from pure.fakes import FakeModel

from erasure_core import rece
from erasure_core.commands import shared
from erasure_core.commands.main import main
from erasure_core.methods import METHODS
from erasure_core.methods.inputs import Training


@pytest.mark.parametrize("arguments", [[], ["erase"], ["erase", "--model", "toy"], ["evaluate", "--model", "x.ckpt"]])
def test_usage(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "--help" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("few_shot --images none --steps 0", "--steps must be a whole number of at least 1, got 0"),
        ("few_shot --images none --rank 0", "--rank must be a whole number of at least 1, got '0'"),
        ("few_shot --images none --growth 1", "--growth must be above 1"),
        ("few_shot --images none --seed -1", "--seed must be a whole number from 0 to "),
        ("doco --seconds 0", "--seconds must be a number above 0, got '0'"),
        ("doco --warm-up 1", "--warm-up must be from 0 to less than 1, got 1.0"),
        ("doco --steps 2 --warm-up 0.9", "--warm-up 0.9 leaves none of 2 steps for the model; lower it"),
        ("abo --guidance nan", "--guidance must be from 0 to 100, got nan"),
        ("abo --trajectories 0", "--trajectories must be at least 1, got 0"),
        ("rece --ridge 0", "--ridge must be a finite number above 0, got 0.0"),
        ("uce --erase-scale -1", "--erase-scale must be a finite number above 0, got -1.0"),
    ],
)
def test_settings_are_refused_before_a_model_is_read(monkeypatch, tmp_path, capsys, given: str, told: str) -> None:
    monkeypatch.setattr(shared, "load_model", lambda *_: pytest.fail("a model was read"))
    erase = ("erase", "--model", "toy", "--out", tmp_path / "a.safetensors", "--concept", "cat", "--method")
    assert f"error: {told}" in fails(capsys, *erase, *given.split())


LATE = {"few_shot": ["--images", "none"]}


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_refused_as_they_were_typed_and_before_the_model_is_loaded(
    method: str, monkeypatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setattr(shared, "load_model", lambda *_: pytest.fail("the model was loaded"))
    erase = ["erase", "--model", "toy", "--concept", "cat -> dog", "--out", tmp_path / "a.safetensors"]
    erase += ["--method", method, *LATE.get(method, [])]
    preset = next(iter(METHODS[method].presets.values()))
    options = [name for name, value in vars(preset).items() if type(value) in (int, float)]
    if Training in METHODS[method].takes:
        options += ["seconds", "rank", "seed"]
    for name in options:
        typed = "--" + name.replace("_", "-")
        for wrong in ("-1", "x", "nan"):
            told = fails(capsys, *erase, f"{typed}={wrong}")
            assert told.startswith(f"error: {typed} must ") and "None" not in told


@pytest.mark.parametrize(
    ("method", "options"), [("rece", "abo"), ("uce", "rece"), ("few_shot", "abo"), ("abo", "rece")]
)
def test_options_of_another_method(method: str, options: str, monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(shared, "load_model", lambda *_: pytest.fail("the model was loaded"))
    erase = ["erase", "--model", "toy", "--concept", "cat", "--out", tmp_path / "a.safetensors", "--method"]
    own, others = (vars(next(iter(METHODS[name].presets.values()))) for name in (method, options))
    foreign = {name: value for name, value in others.items() if name not in own and type(value) in (int, float)}
    for name, value in foreign.items():
        typed = "--" + name.replace("_", "-")
        told = fails(capsys, *erase, method.replace("_", "-"), f"{typed}={value}")
        whose = told.removeprefix(f"error: {method} takes no {typed}; it is of ").split(", ")
        assert options in whose and method not in whose and set(whose) <= set(METHODS)
    assert foreign


NUMBERS = {
    "demo": ["seed"],
    "purify": ["steps", "guidance"],
    "compare": ["seed", "pictures", "steps", "guidance"],
    "report": ["seed", "pictures", "steps", "guidance", "neighbours"],
    "attack": ["seed", "pictures", "steps", "guidance", "sampling-steps", "seconds"],
    "evaluate": ["seed", "images"],
}


@pytest.mark.parametrize("command", NUMBERS)
def test_numbers_are_refused_before_anything_is_read(command: str, capsys) -> None:
    for name in NUMBERS[command]:
        for wrong in ("-1", "x", "nan"):
            told = fails(capsys, command, f"--{name}={wrong}")
            assert told.startswith(f"error: --{name} must be a ") and f", got '{wrong}'; see" in told


def test_sampling_steps_are_called_so(fake: FakeModel, tmp_path: Path, capsys) -> None:
    path = rece(fake, "cat").save(tmp_path / "a.safetensors")
    attack = ("attack", "--model", "toy", "--erasure", path, "--sampling-steps", "100")
    assert fails(capsys, *attack) == "error: --sampling-steps must be from 1 to 99, got 100"
    erase = ("erase", "--model", "toy", "--concept", "cat", "--method", "abo", "--out", tmp_path / "b.safetensors")
    assert fails(capsys, *erase, "--sampling-steps", "100") == "error: --sampling-steps must be from 1 to 99, got 100"


@pytest.mark.parametrize(
    ("method", "option", "given"),
    [
        ("abo", "--gradient-checkpointing", {"gradient_checkpointing": True}),
        ("few_shot", "--towers", {"towers": "both"}),
    ],
)
def test_options_reach_the_method(fake, monkeypatch, tmp_path: Path, method: str, option: str, given: dict) -> None:
    seen: dict = {}

    def run(model, concepts, settings, **keywords):
        seen.update(keywords)
        return rece(model, "cat")

    monkeypatch.setitem(METHODS, method, replace(METHODS[method], run=run))
    value = [] if given.get("gradient_checkpointing") else ["both"]
    images = ["--images", "none"] if method == "few_shot" else []
    out = ["--out", str(tmp_path / "a.safetensors")]
    erase = ["erase", "--model", "toy", "--concept", "cat -> dog", "--method", method]
    assert main([*erase, *images, *out, option, *value]) == 0
    assert given.items() <= seen.items()


def test_files_and_folders_are_told_apart(fake: FakeModel, tmp_path: Path, capsys) -> None:
    """Whatever path an option is given, one sentence says what is there."""
    erasure = rece(fake, "cat").save(tmp_path / "e.safetensors")
    folder, file, out = tmp_path / "folder.safetensors", tmp_path / "a.png", tmp_path / "o.safetensors"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(file)
    audited = ("--model", "toy", "--erasure", erasure)
    erase = ("erase", "--model", "toy", "--out", out)
    for command in (
        ("report", "--model", "toy", "--erasure", folder),
        ("compare", "--model", "toy", "--prompt", "a", "--out", tmp_path / "g.png", "--erasure", folder),
        ("evaluate", "--concept", "cat", "--erasure", folder),
        (*erase, "--statistics", folder),
    ):
        assert "folder.safetensors is a folder; name a .safetensors file" in fails(capsys, *command)
    for command in (
        (*erase, "--concept", "cat", "--method", "few_shot", "--images", file),
        ("purify", *audited, "--images", file, "--out", tmp_path / "p"),
        ("attack", *audited, "--images", file),
    ):
        assert f"--images: {file} is a file; name the folder that it is in" in fails(capsys, *command)
    assert f"--clip: {file} is a file; name a folder" in fails(capsys, "report", *audited, "--clip", file)
    into = fails(capsys, "erase", "--model", "toy", "--concept", "cat", "--out", file / "a.safetensors")
    assert into == f"error: cannot write into {file}: it is a file, not a folder"
    (tmp_path / "f.png").mkdir()
    grid = fails(capsys, "compare", *audited, "--prompt", "a", "--out", tmp_path / "f.png")
    assert grid == f"error: cannot write {tmp_path / 'f.png'}: it is a folder"
    other = fails(capsys, *erase[:3], "--concept", "cat", "--out", tmp_path / "x")
    assert other == "error: --out: an erasure is saved as .safetensors, got 'x'"
    for option, command in {
        "--out": ("erase", "--model", "toy", "--concept", "cat", "--out="),
        "--model": ("erase", "--model=", "--concept", "cat", "--out", out),
        "--concepts": (*erase, "--concepts="),
        "--statistics": (*erase, "--statistics="),
        "--images": (*erase, "--concept", "cat", "--method", "few_shot", "--images="),
        "--erasure": ("report", "--model", "toy", "--erasure="),
        "--prompts": ("compare", *audited, "--out", tmp_path / "g.png", "--prompts="),
        "--clip": ("report", *audited, "--clip="),
    }.items():
        assert f"error: {option} must not be empty; see" in fails(capsys, *command)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "e.safetensors", "f.png", "folder.safetensors"]
