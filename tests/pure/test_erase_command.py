"""``erase`` on a model of a few thousand numbers: what it writes, and one sentence for what a user gets wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pure.command_line import fails
from pure.fakes import FakeModel

from erasure_core import Concept, Erasure
from erasure_core.commands.main import main
from erasure_core.methods import METHODS


def test_lists_as_users_have_them(fake: FakeModel, tmp_path: Path, capsys, caplog) -> None:
    """A column of a table, names behind one another, and what may be meant otherwise."""
    table, out = tmp_path / "list.csv", tmp_path / "a.safetensors"
    table.write_text('\ufeffid;concept\r\n1;cat -> dog\r\n2;"red fish"\r\n', encoding="utf-8")
    erase = ["erase", "--model", "toy", "--no-common", "--loops", "0", "--out", str(out), "--overwrite"]
    both = (Concept("cat", "dog"), Concept("red fish"))
    for given in (
        ["--concepts", f"{table}:concept"],
        ["--concept", "cat -> dog, red fish", "--separator", ","],
        ["--concept", "cat -> dog\tred fish", "--separator", "tab"],
    ):
        assert main([*erase, *given]) == 0
        assert Erasure.load(out).concepts == both and not caplog.messages
    capsys.readouterr()
    assert "has the columns 'id', 'concept'; say which" in fails(capsys, *erase, "--concepts", table)
    assert "has no column 'name'; it has 'id', 'concept'" in fails(capsys, *erase, "--concepts", f"{table}:name")
    assert "No such file" in fails(capsys, *erase, "--concepts", r"C:\x.csv:name")
    assert main([*erase, "--concept", "cat, dog"]) == 0
    assert Erasure.load(out).concepts == (Concept("cat, dog"),)
    assert "the concept 'cat, dog' looks like a list with ','" in caplog.text


def test_erase_writes_a_file(fake: FakeModel, tmp_path: Path, capsys) -> None:
    out = tmp_path / "a.safetensors"
    command = ["erase", "--model", "toy", "--concept", "cat -> dog", "--concept", "red fish", "--preset", "style"]
    command += ["--ridge", "0.5", "--loops", "2", "--preserve", "bird", "--no-common", "--out", str(out)]
    assert main(command) == 0
    (origin,) = Erasure.load(out).origins
    assert origin.concepts == (Concept("cat", "dog"), Concept("red fish")) and origin.method == "rece"
    assert origin.settings["preserve"] == ["bird"] and origin.settings["ridge"] == 0.5
    assert origin.settings["loops"] == 2 and origin.settings["regularization"] == 1e-3
    told = capsys.readouterr().out
    assert f"{out}: erases 'cat -> dog', 'red fish'; rank" in told
    assert "as a LoRA ComfyUI's Load LoRA, A1111, Forge and diffusers read it" in told


def test_everyday_concepts_are_preserved_by_default(fake: FakeModel, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    (tmp_path / "concepts.txt").write_text("# mine\ncat -> dog\n")
    command = ["erase", "--model", "toy", "--method", "uce", "--concepts", str(tmp_path / "concepts.txt")]
    assert main([*command, "--preserve", "a wolf", "--out", str(out)]) == 0
    (origin,) = Erasure.load(out).origins
    preserved = origin.settings["preserve"]
    assert {"a wolf", "dog", "in the style of monet", ""} <= set(preserved) and "cat" not in preserved
    assert origin.method == "uce"
    assert main([*command, "--overwrite", "--out", str(out)]) == 0


def test_what_users_get_wrong(fake: FakeModel, tmp_path: Path, capsys) -> None:
    out = tmp_path / "a.safetensors"
    erase = ("erase", "--model", "toy", "--out", out)
    assert "unknown separator '=>'" in fails(capsys, *erase, "--concept", "cat => dog")
    assert "the concept is empty" in fails(capsys, *erase, "--concept", " ")
    assert "listed twice" in fails(capsys, *erase, "--concept", "cat", "--concept", " cat")
    assert "the same to this text encoder" in fails(capsys, *erase, "--concept", "cat", "--concept", "Cat")
    assert "--loops" in fails(capsys, *erase, "--concept", "cat", "--method", "uce", "--loops", "3")
    assert "loops must be" in fails(capsys, *erase, "--concept", "cat", "--loops", "-1")
    assert "ridge must be" in fails(capsys, *erase, "--concept", "cat", "--ridge", "0")
    assert "preserve lists 'cat'" in fails(capsys, *erase, "--concept", "cat", "--preserve", "cat")
    assert "which is to be erased too" in fails(capsys, *erase, "--concept", "cat -> dog", "--concept", "dog")
    for option in ("--preserve", "--exactly"):
        told = fails(capsys, *erase, "--concept", "cat", option, "dog -> fox")
        assert f"error: {option} lists 'dog -> fox', which says what to draw instead; write only what to" in told
    assert "a b c d e f g" in fails(capsys, *erase, "--concept", "a b c d e f g")
    assert "list.txt: No such file" in fails(capsys, *erase, "--concepts", tmp_path / "list.txt")
    assert "zero is longer than 16 MiB" in fails(capsys, *erase, "--concepts", "/dev/zero")
    assert "is a folder; name a text file" in fails(capsys, *erase, "--concepts", tmp_path)
    (tmp_path / "list.txt").write_bytes(b"cat\n\xff")
    assert "list.txt is not UTF-8" in fails(capsys, *erase, "--concepts", tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("# none yet")
    assert "no concept is named in " in fails(capsys, *erase, "--concepts", tmp_path / "list.txt")
    assert not out.exists()


def test_where_nothing_can_be_written(fake: FakeModel, tmp_path: Path, capsys) -> None:
    erase = ("erase", "--model", "toy", "--concept", "cat", "--out")
    assert "saved as .safetensors" in fails(capsys, *erase, tmp_path / "a.bin")
    assert "no such folder" in fails(capsys, *erase, tmp_path / "missing" / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    assert "already there" in fails(capsys, *erase, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"


def test_ctrl_c_leaves_nothing(fake: FakeModel, tmp_path: Path, capsys, monkeypatch) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "rece", replace(METHODS["rece"], run=interrupted))
    out = tmp_path / "a.safetensors"
    assert "interrupted" in fails(capsys, "erase", "--model", "toy", "--concept", "cat", "--out", out, code=130)
    assert not list(tmp_path.iterdir())


def test_loops_that_change_nothing(fake: FakeModel, tmp_path: Path, capsys) -> None:
    erase = ("erase", "--model", "toy", "--concept", "cat", "--no-common", "--out", tmp_path / "a.safetensors")
    for wrong in ("1e12", "1e30", "1e300"):
        told = fails(capsys, *erase, "--regularization", wrong)
        assert told.startswith(f"error: --regularization: {float(wrong):g} leaves nothing of what the loops derive")
        assert told.endswith("lower --regularization, or set --loops to 0")
    assert main([*map(str, erase), "--regularization", "1e30", "--loops", "0"]) == 0


def test_everyday_concepts_are_listed_where_the_settings_need_them(fake: FakeModel, tmp_path: Path, capsys) -> None:
    def listed(*options: str) -> bool:
        out = tmp_path / "e.safetensors"
        assert main(["erase", "--model", "toy", "--concept", "cat", "--overwrite", "--out", str(out), *options]) == 0
        return "lion" in Erasure.load(out).origins[0].settings["preserve"]

    assert not listed() and listed("--common") and listed("--relative-ridge", "0")
    assert (
        listed("--preset", "object") and not listed("--preset", "object", "--no-common") and listed("--method", "uce")
    )
    capsys.readouterr()
    erase = ("erase", "--model", "toy", "--concept", "cat", "--out", tmp_path / "a.safetensors")
    assert fails(capsys, *erase, "--common", "--no-common") == "error: give either --common or --no-common"


def test_exact_prompts_and_names_only(fake: FakeModel, tmp_path: Path, capsys) -> None:
    out = tmp_path / "a.safetensors"
    command = ["erase", "--model", "toy", "--concept", "cat", "--exactly", "a wolf", "--name-only", "--out", str(out)]
    assert main(command) == 0
    settings = Erasure.load(out).origins[0].settings
    assert settings["exactly"] == ["a wolf"] and settings["name_only"] is True
    assert "left exactly alone: what the layers make of it (context) changes by" in capsys.readouterr().out


def test_many_concepts_are_counted(fake: FakeModel, tmp_path: Path, capsys) -> None:
    (tmp_path / "concepts.txt").write_text("\n".join(f"thing{number}" for number in range(25)))
    command = ["erase", "--model", "toy", "--concepts", str(tmp_path / "concepts.txt"), "--no-common"]
    assert main([*command, "--out", str(tmp_path / "a.safetensors")]) == 0
    assert "'thing19', 5 more; rank" in capsys.readouterr().out
