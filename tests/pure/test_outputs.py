"""No command writes over what it reads, whatever leads there, and each knows what it has written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pure.command_line import fails
from pure.fakes import FakeModel

from erasure_core import rece
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics_file import save_statistics
from erasure_core.commands.main import main
from erasure_core.files.outputs import Outputs, same_place


def ways(file: Path) -> dict[str, Path]:
    """Other paths to a file."""
    folder = file.parent
    (folder / "links").mkdir()
    made = {name: folder / "links" / f"{name}{file.suffix}" for name in ("symbolic", "hard", "chain")}
    made["symbolic"].symlink_to(file)
    os.link(file, made["hard"])
    made["chain"].symlink_to(made["symbolic"])
    (folder / "links" / "folder").symlink_to(folder)
    return {
        **made, "itself": file, "up": folder / "links" / ".." / file.name, "folder": folder / "links/folder" / file.name
    }  # fmt: skip


WAYS = ("itself", "up", "symbolic", "hard", "chain", "folder")


@pytest.mark.parametrize("way", WAYS)
def test_by_whatever_way(way: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"precious")
    other = ways(file)[way]
    assert same_place(file, other) and not same_place(file, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="^--out would replace .*, which --model reads; write to another place$"):
        Outputs({"--model": [file]}).add("--out", other)
    with pytest.raises(ValueError, match="which --model reads"):
        Outputs({"--model": [other]}).add("--out", file)


def test_a_part_of_a_models_folder(tmp_path: Path) -> None:
    (tmp_path / "model/unet").mkdir(parents=True)
    part = tmp_path / "model/unet/diffusion_pytorch_model.safetensors"
    part.write_bytes(b"precious")
    outputs = Outputs({"--model": [tmp_path / "model"]})
    for path in (part, tmp_path / "model/unet/../unet" / part.name):
        with pytest.raises(ValueError, match="which --model reads"):
            outputs.add("--out", path)
    outputs.add("--out", tmp_path / "model/new.safetensors")


def test_two_outputs_in_one_place(tmp_path: Path) -> None:
    outputs = Outputs({})
    outputs.add("--out", tmp_path / "a")
    with pytest.raises(ValueError, match="^--save-statistics and --out name the same file, .*/a; give each one of its"):
        outputs.add("--save-statistics", tmp_path / "folder/../a")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file: it is no folder$"):
        Outputs({}).add("--out", tmp_path / "file/deep/a.png")
    with pytest.raises(NotADirectoryError, match="/dev/full: it is no folder$"):
        Outputs({}).add("--out", Path("/dev/full/a.png"))
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        Outputs({}).add("--out", tmp_path)


def test_what_has_been_written(tmp_path: Path) -> None:
    outputs, (one, other, there) = Outputs({}), (tmp_path / name for name in "abc")
    there.write_text("before")
    outputs.add("--out", one, other, there)
    assert outputs.summary() == "nothing was written"
    one.write_text("x")
    assert outputs.summary() == f"{one} had been written"
    (tmp_path / "partial").write_text("before")
    (tmp_path / "partial").replace(there)
    assert outputs.written() == [one, there]


def test_commands_spare_what_they_read(fake: FakeModel, tmp_path: Path, capsys) -> None:
    erasure = rece(fake, "cat").save(tmp_path / "e.safetensors")
    kept = save_statistics(gather_statistics(fake, "cat"), tmp_path / "s.safetensors")
    listed = tmp_path / "list.safetensors"  # any name is a list's
    listed.write_text("cat\n")
    table = tmp_path / "table.safetensors"
    (tmp_path / "table.csv").write_text("name\ncat\n")
    table.symlink_to(tmp_path / "table.csv")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures/attack.png")
    for copy, name in ((erasure, "report.json"), (erasure, "grid.png")):
        shutil.copy(copy, tmp_path / name)
    model = tmp_path / "model.safetensors"
    model.touch()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    erase = ("erase", "--overwrite", "--model", "toy")
    audited = ("--overwrite", "--model", "toy", "--erasure")
    for option, command in {
        "--model": ("erase", "--overwrite", "--concept", "cat", "--model", model, "--out", model),
        "--concepts": (*erase, "--concepts", listed, "--out", listed),
        "--statistics": (*erase, "--statistics", kept, "--out", kept),
        "--concepts ": (*erase, "--concepts", listed, "--out", tmp_path / "o.safetensors", "--save-statistics", listed),
        "--concepts  ": (*erase, "--concepts", f"{tmp_path / 'table.csv'}:name", "--out", table),
        "--erasure": ("compare", *audited, tmp_path / "grid.png", "--prompt", "a", "--out", tmp_path / "grid.png"),
        "--erasure ": ("report", *audited, tmp_path / "report.json", "--concept", "cat", "--out", tmp_path),
        "--images": ("attack", *audited, erasure, "--images", tmp_path / "pictures", "--out", tmp_path / "pictures"),
    }.items():
        assert f"which {option.strip()} reads; write to another place" in fails(capsys, *command)
    purify = ("purify", *audited, erasure, "--images", tmp_path / "pictures", "--out")
    assert "--out and --images are the same folder" in fails(capsys, *purify, tmp_path / "pictures/../pictures")
    (tmp_path / "new").mkdir()
    os.link(tmp_path / "pictures/attack.png", tmp_path / "new/attack.png")
    assert "which --images reads" in fails(capsys, *purify, tmp_path / "new")
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    after.pop(tmp_path / "new/attack.png")
    assert after == before


def test_statistics_may_be_gone_on_from_in_their_place(fake: FakeModel, tmp_path: Path) -> None:
    kept, out = save_statistics(gather_statistics(fake, "cat"), tmp_path / "s.safetensors"), tmp_path / "a.safetensors"
    command = ["erase", "--model", "toy", "--concept", "red", "--no-common", "--overwrite", "--statistics", str(kept)]
    assert main([*command, "--save-statistics", str(kept), "--out", str(out)]) == 0
