"""The command line on a model of a few thousand numbers: results, and one sentence for what a user gets wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from pure.fakes import FakeModel
from safetensors.torch import save_file

from erasure_core import Concept, Erasure, common_concepts, parse_concepts, rece
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics_file import load_statistics, save_statistics
from erasure_core.commands import shared
from erasure_core.commands.main import main
from erasure_core.diffusers import detection
from erasure_core.diffusers.checkpoint import shapes_in
from erasure_core.diffusers.detection import FIRST_CONV
from erasure_core.families.family import Family
from erasure_core.families.unets import REFINER, SD_1, SD_2, SDXL
from erasure_core.methods import METHODS
from erasure_core.methods.inputs import Training
from erasure_core.methods.rece import RECE


@pytest.fixture
def fake(monkeypatch) -> FakeModel:
    model = FakeModel()
    monkeypatch.setattr(shared, "load_model", lambda *_: model)
    return model


def exit_code(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:  # of argparse
        return end.code


def fails(capsys, *arguments: object, code: int = 2) -> str:
    """Run a command that has to fail; returns its one line on stderr."""
    assert exit_code(*arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    (line,) = err.strip().splitlines()
    return line


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


@pytest.mark.parametrize("arguments", [[], ["erase"], ["erase", "--model", "toy"], ["evaluate", "--model", "x.ckpt"]])
def test_usage(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "--help" in capsys.readouterr().err


CROSS = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"


def checkpoint(path: Path, width: int = 768, channels: int = 4, **more: torch.Tensor) -> Path:
    tensors = {
        FIRST_CONV: torch.zeros(2, channels, 3, 3),
        CROSS: torch.zeros(2, width),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.zeros(1),
    }
    save_file({**tensors, **{name.replace("__", "."): tensor for name, tensor in more.items()}}, path)
    return path


def test_models_that_cannot_be_used(tmp_path: Path, capsys) -> None:
    def error(name: str) -> str:
        out = tmp_path / "out.safetensors"
        return fails(capsys, "erase", "--model", tmp_path / name, "--concept", "cat", "--out", out)

    assert "there is no model" in error("nowhere")
    for name in ("a.ckpt", "a.pt", "a.bin"):
        (tmp_path / name).write_bytes(b"\x80\x02")
        assert "is a pickle" in error(name)
    (tmp_path / "a.gguf").write_bytes(b"")
    assert "has to be a .safetensors" in error("a.gguf")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    assert "not a readable safetensors file" in error("cut.safetensors")
    (tmp_path / "folder").mkdir()
    assert "no model_index.json" in error("folder")
    save_file({"a": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert "not a Stable Diffusion checkpoint (1.x, 2.x or XL)" in error("lora.safetensors")
    checkpoint(tmp_path / "odd.safetensors", 640)
    assert "not a Stable Diffusion" in error("odd.safetensors")


def test_a_family_is_told_from_shapes(tmp_path: Path) -> None:
    def configs(*arguments, **more) -> tuple[Family, dict]:
        shapes = shapes_in(checkpoint(tmp_path / "it.safetensors", *arguments, **more))
        family = detection.family_of_checkpoint("it", shapes)
        return family, detection.configs(family, shapes)

    family, one = configs()
    assert one["unet"]["cross_attention_dim"] == one["text_encoder"]["hidden_size"] == 768
    assert family is SD_1
    family, two = configs(1024, channels=9)
    assert two["unet"]["in_channels"] == 9 and two["scheduler"]["prediction_type"] == "v_prediction"
    assert family is SD_2
    mark = {"conditioner__embedders__0__a": torch.zeros(1)}
    for width, expected in ((2048, SDXL), (1280, REFINER)):
        family, three = configs(width, channels=8, **mark)
        assert family is expected and three["unet"]["in_channels"] == 8
        assert three["scheduler"]["prediction_type"] == "epsilon"
    assert configs(2048, **mark, v_pred=torch.zeros(0))[1]["scheduler"]["prediction_type"] == "v_prediction"
    json.dumps([one, two, three])


def test_a_unet_alone_is_refused(tmp_path: Path) -> None:
    shapes = {FIRST_CONV: [2, 4, 3, 3], CROSS: [2, 768]}
    with pytest.raises(ValueError, match="has no text encoder"):
        detection.family_of_checkpoint("unet", shapes)


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


def test_loops_that_change_nothing(fake: FakeModel, tmp_path: Path, capsys) -> None:
    erase = ("erase", "--model", "toy", "--concept", "cat", "--no-common", "--out", tmp_path / "a.safetensors")
    for wrong in ("1e12", "1e30", "1e300"):
        told = fails(capsys, *erase, "--regularization", wrong)
        assert told.startswith(f"error: --regularization: {float(wrong):g} leaves nothing of what the loops derive")
        assert told.endswith("lower --regularization, or set --loops to 0")
    assert main([*map(str, erase), "--regularization", "1e30", "--loops", "0"]) == 0


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
