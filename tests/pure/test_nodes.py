"""The nodes' own modules against a stand-in for ComfyUI (``tests/stand_in``): weights, patches, files, sockets."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PACK = "pack_under_test"
UNET, TEXT = "diffusion_model.", "clip_l.transformer."
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn2."
OWN = "input_blocks.1.1.transformer_blocks.0.attn2."
KEY, VALUE = f"unet.{BLOCK}to_k.weight", f"unet.{BLOCK}to_v.weight"
FC1 = "text_encoder.text_model.encoder.layers.0.mlp.fc1"


class Pack:
    """Modules of the pack as ComfyUI imports them, below a package of their own, and those of the stand-in."""

    def __init__(self, root: Path):
        self.root = root

    def nodes(self, name: str) -> ModuleType:
        return importlib.import_module(f"{PACK}.nodes.{name}")

    def core(self, name: str) -> ModuleType:
        return importlib.import_module(f"{PACK}.erasure_core.{name}")

    def comfy_api(self) -> ModuleType:
        return importlib.import_module("comfy_api.latest")

    def comfy(self, name: str) -> ModuleType:
        return importlib.import_module(f"comfy.{name}")


@contextmanager
def stand_in(root: Path = ROOT) -> Iterator[Pack]:
    """With a stand-in for ComfyUI in ``sys.modules``, which is as it was afterwards; the pack is that of ``root``."""
    before, path = dict(sys.modules), list(sys.path)
    sys.path.insert(0, str(ROOT / "tests" / "stand_in"))
    for name in (PACK, f"{PACK}.nodes"):  # without their __init__, which imports every node
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    try:
        yield Pack(root)
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name not in before]:
            if name.partition(".")[0] in (PACK, "comfy", "comfy_api", "folder_paths"):
                del sys.modules[name]


@pytest.fixture(scope="module")
def imported() -> Iterator[Pack]:
    with stand_in() as pack:
        yield pack


@pytest.fixture
def pack(imported: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    import folder_paths

    monkeypatch.setattr(folder_paths, "root", str(tmp_path))
    for name in ("output", "input"):
        (tmp_path / name).mkdir()
    return imported


def tree(**shapes: tuple[int, int]) -> nn.Module:
    """Linear layers below dotted names ``a__b`` with weights of given shapes, one for each."""
    root = nn.Module()
    for seed, (path, (out, width)) in enumerate(shapes.items()):
        place, *rest = root, *path.split("__")
        for part in rest[:-1]:
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        layer = nn.Linear(width, out)
        nn.init.uniform_(layer.weight, -1, 1, generator=torch.Generator().manual_seed(seed))
        place.add_module(rest[-1], layer)
    return root


def dotted(path: str) -> str:
    return path.replace(".", "__")


def a_model(pack: Pack, kind: str = "BaseModel", **config):
    """A MODEL with one pair of keys and values, 6 and 8 by 4, and a layer that reads no text."""
    layers = {dotted(f"{OWN}to_k"): (6, 4), dotted(f"{OWN}to_v"): (8, 4), "out": (4, 4)}
    names = {f"{BLOCK}{one}.weight": f"{OWN}{one}.weight" for one in ("to_k", "to_v")}
    names |= {"conv_out.weight": "out.weight", "not_there.weight": "not_there.weight"}
    base = getattr(pack.comfy("model_base"), kind)
    return pack.comfy("model_patcher").ModelPatcher(base(tree(**layers), names, **config))


def a_clip(pack: Pack, **settings):
    stage = tree(**{dotted(f"{TEXT}text_model.encoder.layers.0.mlp.fc1"): (4, 4)})
    return pack.comfy("sd").CLIP(stage, **settings)


def erasure_of(pack: Pack, concept: str = "cat", **deltas):
    """Of changes of the model's keys, its values or the text encoder, by ``key``, ``value`` and ``text``."""
    names = {"key": KEY, "value": VALUE, "text": f"{FC1}.weight", "bias": f"{FC1}.bias"}
    core = pack.core("erasures.erasure")
    origin = pack.core("erasures.erasure_record").Origin(
        "test", (pack.core("concepts.parse").Concept(concept),), {}, "0" * 16
    )
    return core.Erasure({names.get(name, name): delta for name, delta in deltas.items()}, (origin,))


def dense(pack: Pack, *shape: int):
    return pack.core("erasures.low_rank").Dense(torch.randn(*shape, generator=torch.Generator().manual_seed(7)))


def low_rank(pack: Pack, out: int, width: int, rank: int = 2):
    draws = torch.Generator().manual_seed(8)
    up, down = torch.randn(out, rank, generator=draws), torch.randn(rank, width, generator=draws)
    return pack.core("erasures.low_rank").LowRank(up, down)


def merged(pack: Pack, patcher, key: str, **how) -> torch.Tensor:
    return pack.nodes("comfy_host.weights").stored(patcher, key, **how).merged(torch.device("cpu"))


def bits(model) -> dict[str, torch.Tensor]:
    return {key: weight.clone() for key, weight in model.model.state_dict().items()}


def test_the_stand_in_is_gone_where_it_is_not_asked_for() -> None:
    def found() -> set[str]:
        return {name.partition(".")[0] for name in sys.modules} & {"comfy", "comfy_api", "folder_paths", PACK}

    before, path = found(), list(sys.path)
    with stand_in() as pack:
        pack.nodes("comfy_host.files"), pack.nodes("inputs")
        assert found() == {"comfy_api", "folder_paths", PACK}
    assert found() == before == set() and sys.path == path


def test_only_one_folder_knows_comfyui() -> None:
    """All of ``comfy`` and ``folder_paths`` is theirs; the others import ``comfy_api`` at most."""
    known: dict[str, set[str]] = {}
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        name = str(path.relative_to(ROOT / "nodes"))
        known[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                known[name] |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                known[name].add(node.module.partition(".")[0])
    hosts = {"comfy", "comfy_extras", "folder_paths", "nodes", "execution", "server"}
    told = {name: found & hosts for name, found in known.items() if found & hosts}
    assert told and not [name for name in told if not name.startswith("comfy_host")], told
    assert any("comfy_api" in found for name, found in known.items() if not name.startswith("comfy_host"))


def test_patches_are_added_to_clones_only(pack: Pack) -> None:
    model, clip = a_model(pack), a_clip(pack)
    before = bits(model), bits(clip.patcher)
    erasure = erasure_of(pack, key=low_rank(pack, 6, 4), value=dense(pack, 8, 4), text=dense(pack, 4, 4))
    new_model, new_clip = pack.nodes("comfy_host.patches").apply_erasure(model, clip, erasure, 0.5, 2.0)
    assert new_model is not model and new_model.model is model.model and not model.patches and not clip.patcher.patches
    for was, now in zip(before, (bits(model), bits(clip.patcher)), strict=True):
        assert all(torch.equal(was[key], now[key]) for key in was)
    for name, patcher, key, strength in (
        (KEY, new_model, f"{UNET}{OWN}to_k.weight", 0.5),
        (VALUE, new_model, f"{UNET}{OWN}to_v.weight", 0.5),
        (f"{FC1}.weight", new_clip.patcher, f"{TEXT}text_model.encoder.layers.0.mlp.fc1.weight", 2.0),
    ):
        plain = patcher.model.state_dict()[key]
        torch.testing.assert_close(merged(pack, patcher, key), plain + strength * erasure.deltas[name].dense())
        assert torch.equal(merged(pack, patcher, key, patched=False), plain)
        assert len(patcher.get_key_patches()[key]) == 2


def test_a_clip_that_need_not_change_may_be_missing(pack: Pack) -> None:
    erasure, apply = erasure_of(pack, key=dense(pack, 6, 4)), pack.nodes("comfy_host.patches").apply_erasure
    assert apply(a_model(pack), None, erasure)[1] is None
    clip = a_clip(pack)
    other = apply(a_model(pack), clip, erasure)[1]
    assert other is not clip and not other.patcher.patches


def test_a_bias_of_the_text_encoder_is_found(pack: Pack) -> None:
    erasure = erasure_of(pack, bias=dense(pack, 4))
    _, clip = pack.nodes("comfy_host.patches").apply_erasure(a_model(pack), a_clip(pack), erasure)
    assert list(clip.patcher.patches) == [f"{TEXT}text_model.encoder.layers.0.mlp.fc1.bias"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": (4, 4)}, "CLIP is missing, and this erasure changes the text encoder"),
        ({"unet.elsewhere.weight": (4, 4)}, r"changes unet\.elsewhere\.weight, which MODEL does not have"),
        ({"unet.not_there.weight": (4, 4)}, r"changes unet\.not_there\.weight, which MODEL does not have"),
        ({"key": (8, 4)}, r"made for another kind of model: it changes .* as \(8, 4\), in MODEL that is \(6, 4\)"),
        ({"key": (6, 4, 1)}, r"as \(6, 4, 1\), in MODEL"),
    ],
)
def test_an_erasure_of_another_model_is_refused(pack: Pack, changes: dict, message: str) -> None:
    model = a_model(pack)
    erasure = erasure_of(pack, **{name: dense(pack, *shape) for name, shape in changes.items()})
    with pytest.raises(ValueError, match=message):
        pack.nodes("comfy_host.patches").apply_erasure(model, None, erasure)
    assert not model.patches


def test_a_change_that_the_text_encoder_lacks_is_refused(pack: Pack) -> None:
    erasure = erasure_of(pack, **{"text_encoder.text_model.encoder.layers.1.mlp.fc1.weight": dense(pack, 4, 4)})
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.fc1\.weight, which CLIP does not have"):
        pack.nodes("comfy_host.patches").apply_erasure(a_model(pack), a_clip(pack), erasure)


@pytest.mark.parametrize("name", ["strength_model", "strength_clip"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_strength_that_is_not_finite_is_refused(pack: Pack, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number, got {value}"):
        pack.nodes("comfy_host.patches").apply_erasure(
            a_model(pack), None, erasure_of(pack, key=dense(pack, 6, 4)), **{name: value}
        )


def test_a_change_that_comfyui_drops_is_an_error(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    patcher = pack.comfy("model_patcher").ModelPatcher
    monkeypatch.setattr(patcher, "add_patches", lambda self, patches, *_: list(patches)[1:])
    erasure = erasure_of(pack, key=dense(pack, 6, 4), value=dense(pack, 8, 4))
    with pytest.raises(ValueError, match=r"ComfyUI did not take the change of .*to_k\.weight in MODEL"):
        pack.nodes("comfy_host.patches").apply_erasure(a_model(pack), None, erasure)


def test_what_is_stored_in_integers_cannot_be_read(pack: Pack) -> None:
    model = a_model(pack)
    layer = model.model.diffusion_model.get_submodule(f"{OWN}to_k")
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"MODEL is quantised \(.*to_k\.weight is stored as int8"):
        pack.nodes("comfy_host.patches").apply_erasure(model, None, erasure_of(pack, key=dense(pack, 6, 4)))


def test_what_upstream_patches_did_is_seen(pack: Pack) -> None:
    """The weights that a closed form reads are merged with them, while they are in memory too."""
    model, host = a_model(pack), pack.nodes("comfy_host.model")
    key, plain = f"{UNET}{OWN}to_k.weight", bits(model)
    patched = model.clone()
    patched.add_patches({key: ("diff", (torch.ones(6, 4),))}, 0.25)
    expected = plain[key] + 0.25
    torch.testing.assert_close(host.text_weights(patched)[KEY], expected)
    torch.testing.assert_close(host.text_weights(model)[KEY], plain[key])
    patched.into_memory()
    torch.testing.assert_close(host.text_weights(patched)[KEY], expected)
    torch.testing.assert_close(host.text_weights(model)[KEY], plain[key])
    assert sorted(host.text_weights(model)) == [KEY, VALUE]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_any_precision_are_read_as_copies_in_float32(pack: Pack, dtype: torch.dtype) -> None:
    model = a_model(pack)
    model.model.to(dtype)
    weight = pack.nodes("comfy_host.model").text_weights(model)[KEY]
    assert weight.dtype == torch.float32 and torch.equal(weight, bits(model)[f"{UNET}{OWN}to_k.weight"].float())
    weight.zero_()
    assert bits(model)[f"{UNET}{OWN}to_k.weight"].any(), "the model's own tensor was given"


def test_erasures_are_known_of_clones(pack: Pack) -> None:
    apply, carried = pack.nodes("comfy_host.patches").apply_erasure, pack.nodes("comfy_host.erasures_of_model")
    model = a_model(pack)
    erasure = erasure_of(pack, key=dense(pack, 6, 4))
    once, _ = apply(model, None, erasure, 0.5)
    twice, _ = apply(once.clone(), None, erasure_of(pack, value=dense(pack, 8, 4)))
    assert [len(carried.erasures_of(one)) for one in (model, once, twice)] == [0, 1, 2]
    assert all(not one.deltas and one.concepts == erasure.concepts for one in carried.erasures_of(twice))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
def test_rounding_that_eats_an_erasure_is_said(pack: Pack, dtype: torch.dtype, caplog) -> None:
    model = a_model(pack)
    model.model.to(dtype)
    small = pack.core("erasures.low_rank").Dense(1e-3 * torch.ones(6, 4))
    with caplog.at_level(logging.INFO):
        pack.nodes("comfy_host.patches").apply_erasure(model, None, erasure_of(pack, key=small))
    (record,) = [one for one in caplog.records if "rounding" in one.message]
    assert (record.levelno == logging.WARNING) == (dtype != torch.float32)
    assert str(dtype).removeprefix("torch.") in record.message


def test_models_of_other_families_are_told_apart(pack: Pack) -> None:
    host = pack.nodes("comfy_host.model")
    other = pack.comfy("model_patcher").ModelPatcher(pack.comfy("model_base").BaseModel(tree(out=(4, 4)), {}))
    assert host.has_unet(a_model(pack)) and not host.has_unet(other)
    assert host.weight_keys(a_model(pack))[KEY] == f"{UNET}{OWN}to_k.weight"
    assert host.weight_keys(other) == {f"unet.out.{one}": f"{UNET}out.{one}" for one in ("weight", "bias")}
    with pytest.raises(ValueError, match="MODEL is of the kind BaseModel, which has no UNet of Stable Diffusion"):
        host.unet_keys(other)
    with pytest.raises(ValueError, match="no UNet of Stable Diffusion"):
        host.unet_keys(a_model(pack, use_temporal_attention=True))
    assert host.reads_pooled(a_model(pack, "SDXL")) and not host.reads_pooled(a_model(pack))


def test_a_model_is_read_with_its_clip(pack: Pack) -> None:
    seen = pack.nodes("comfy_host.model").ComfyModel(a_model(pack), a_clip(pack))
    assert isinstance(seen, pack.core("model").TextReader)
    encoded = seen.text.encode(["a (red) fish", ""])
    context = encoded.conditioning.context
    assert encoded.last_content == (3, 0) and context.shape == (2, 8, 4)
    assert context[0, :4, 0].tolist() == [0, 1, 6, 10]
    with pytest.raises(ValueError, match="'a b c d e f g' is 7 tokens long, the text encoder takes 6; shorten it"):
        seen.text_rows(["a b c d e f g"])


def test_a_clip_that_does_not_fit_is_said(pack: Pack) -> None:
    host = pack.nodes("comfy_host.model")
    with pytest.raises(ValueError, match="CLIP is missing"):
        host.ComfyModel(a_model(pack), None)
    with pytest.raises(ValueError, match="CLIP has the text encoders t5xxl; Stable Diffusion has one or two of"):
        host.ComfyModel(a_model(pack), a_clip(pack, names=("t5xxl",)))
    with pytest.raises(ValueError, match="MODEL reads a pooled text vector, and CLIP gives none"):
        host.ComfyModel(a_model(pack, "SDXL"), a_clip(pack)).text_rows(["cat"])


def test_two_encoders_and_a_pooled_vector(pack: Pack) -> None:
    clip = a_clip(pack, names=("g", "l"), pooled=True)
    encoders_of_text = pack.nodes("comfy_host.text_encoders")
    encoders = encoders_of_text.TextEncoders(clip, pooled=True)
    assert encoders.names == ("l", "g")
    found = encoders.encode(["red fish", "cat"])
    context, pooled = found.conditioning.tensors
    assert context.shape == (2, 8, 8) and pooled.shape == (2, 3)
    assert encoders_of_text.host_conditioning(found.conditioning) == [[context, {"pooled_output": pooled}]]
    assert encoders_of_text.host_conditioning(type(found.conditioning)(context)) == [[context, {}]]
    assert [(len(one["context"][0].rows), one["pooled"][0].rows.shape) for one in found.rows()] == [(8, (1, 3))] * 2


def test_only_the_toy_tells_which_words_it_knows(pack: Pack) -> None:
    """Configurations of ComfyUI answer ``None`` to any name."""
    seen = pack.nodes("comfy_host.model").ComfyModel(a_model(pack), a_clip(pack))
    assert seen.vocabulary == frozenset()
    seen.model.model.model_config = type("Toy", (), {"vocabulary": frozenset({"cat"})})()
    assert seen.vocabulary == frozenset({"cat"})


def test_a_cancel_stops_reading(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    management = pack.comfy("model_management")
    monkeypatch.setattr(management, "interrupted", True)
    with pytest.raises(management.InterruptProcessingException):
        pack.nodes("comfy_host.model").ComfyModel(a_model(pack), a_clip(pack)).text_rows(["cat"])
    with pytest.raises(management.InterruptProcessingException):
        pack.nodes("comfy_host.progress").progress()(1, 2, "sampling")


def test_progress_is_shown(pack: Pack) -> None:
    shown = pack.comfy("utils").ProgressBar.shown
    shown.clear()
    pack.nodes("comfy_host.progress").progress()(1, 3, "sampling")
    assert shown == [(1, 3)]


def test_files_are_numbered_below_their_folder(pack: Pack, tmp_path: Path) -> None:
    files, erasure = pack.nodes("comfy_host.files"), erasure_of(pack, key=low_rank(pack, 6, 4))
    paths = [files.save_as_lora(erasure, prefix) for prefix in ("erasure/no-cat", "erasure/no-cat", "plain")]
    loras = tmp_path / "output" / "loras"
    assert paths == [
        loras / "erasure" / "no-cat_00001_.safetensors", loras / "erasure" / "no-cat_00002_.safetensors",
        loras / "plain_00001_.safetensors",
    ]  # fmt: skip
    (loras / "notes.txt").write_text("")
    assert files.lora_files() == [path.relative_to(loras).as_posix() for path in paths]
    assert (
        pack.core("erasures.erasure").Erasure.load(files.lora_path("plain_00001_.safetensors")).concepts
        == erasure.concepts
    )


@pytest.mark.parametrize(
    "prefix",
    ["../escaped", "a/../../escaped", "../../x", "/tmp/escaped", "a/b/../../../escaped", "../loras-of-another/x"],
)
def test_a_prefix_that_leads_elsewhere_is_refused(pack: Pack, tmp_path: Path, prefix: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"leads out of .*; saving elsewhere is not allowed"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), prefix)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_prefix_on_another_drive_is_refused_too(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """There Windows has no path that both have in common, and raises an error of its own."""

    def different_drives(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", different_drives)
    with pytest.raises(ValueError, match=r"leads out of .*; saving elsewhere is not allowed"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), "/d/escaped")


@pytest.mark.parametrize("prefix", ["", "   ", "folder/", "..", ".", "folder/.."])
def test_a_prefix_that_names_no_file_is_refused(pack: Pack, tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="names no file; write for example"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), prefix)
    assert not list((tmp_path / "output").iterdir())


def test_what_cannot_be_written_is_said(pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "output" / "loras").write_text("a file in the folder's place")
    with pytest.raises(ValueError, match="filename_prefix 'a/b': nothing could be written to"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), "a/b")


def test_only_files_that_are_listed_can_be_named(pack: Pack, tmp_path: Path) -> None:
    files = pack.nodes("comfy_host.files")
    (tmp_path / "input" / "lists").mkdir()
    for name in ("concepts.txt", "lists/more.txt", "picture.png"):
        (tmp_path / "input" / name).write_text("cat")
    (tmp_path / "secret.txt").write_text("secret")
    assert [name for name in files.list_files() if name.endswith(".txt")] == ["concepts.txt", "lists/more.txt"]
    assert files.list_path("lists/more.txt").read_text() == "cat"
    for name in ("../secret.txt", str(tmp_path / "secret.txt"), "picture.png", "", "lists/../concepts.txt"):
        with pytest.raises(ValueError, match=r"is not in .*; there are: concepts\.txt, lists/more\.txt"):
            files.list_path(name)
    with pytest.raises(ValueError, match="there are: none"):
        files.statistics_path("a.safetensors")


@pytest.mark.parametrize("kind", ["lora_path", "statistics_path", "list_path"])
@pytest.mark.parametrize("name", ["absent.safetensors", "half \ud83d", None, 5, ["a"], {"a": 1}])
def test_files_that_are_not_there(pack: Pack, kind: str, name: object) -> None:
    """Also while ComfyUI only asks whether a file has changed, before any input was checked."""
    with pytest.raises(ValueError, match="file '.*' is (in none of|not in)") as refused:
        getattr(pack.nodes("comfy_host.files"), kind)(name)
    assert str(refused.value).isprintable()


def test_a_digest_is_of_what_a_file_holds(pack: Pack, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("cat"), other.write_text("cat")
    digest = pack.nodes("comfy_host.files").digest
    before = digest(one)
    assert before == digest(other)
    one.write_text("dog")
    assert before != digest(one)


def test_another_file_of_the_same_name_is_read_anew(pack: Pack, tmp_path: Path) -> None:
    """ComfyUI keeps what a node gave until its inputs change, and the name of a file is all that it knows."""
    one, other = erasure_of(pack, key=low_rank(pack, 6, 4)), erasure_of(pack, key=dense(pack, 6, 4))
    loader = pack.nodes("erasures").ErasureLoad
    path = pack.nodes("comfy_host.files").save_as_lora(one, "a")
    before = loader.fingerprint_inputs(file=path.name)
    assert before == loader.fingerprint_inputs(file=path.name)
    other.save(path, overwrite=True)
    assert before != loader.fingerprint_inputs(file=path.name)
    statistics = pack.nodes("statistics").ErasureLoadStatistics
    kept = tmp_path / "output" / "erasure-statistics" / "a.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(b"one")
    before = statistics.fingerprint_inputs(file=kept.name)
    assert before == statistics.fingerprint_inputs(file=kept.name)
    os.utime(kept, ns=(1, 1))
    assert before != statistics.fingerprint_inputs(file=kept.name)
    with pytest.raises(ValueError, match="is not in"):
        statistics.fingerprint_inputs(file="../secret.safetensors")


def test_sockets(pack: Pack) -> None:
    sockets = pack.nodes("inputs")
    assert sockets.name_of_erased(" van gogh -> art ") == "van gogh" and sockets.name_of_erased("cat") == "cat"
    for empty in ("", "  ", "-> dog"):
        with pytest.raises(ValueError, match="concept"):
            sockets.name_of_erased(empty)
    kinds = {part.id: part.kind for part in [sockets.strength_input(), sockets.preserve_input()]}
    assert kinds == {"strength": "FLOAT", "preserve": "STRING"}
    assert (sockets.Erasure.name, sockets.Statistics.name) == ("ERASURE", "ERASURE_STATISTICS")


def test_an_erasure_that_counts_twice_is_told(pack: Pack, caplog) -> None:
    """Not refused: a chain may add up strengths."""
    host, model, clip = pack.nodes("comfy_host.patches"), a_model(pack), a_clip(pack)
    erasure = erasure_of(pack, key=dense(pack, 6, 4), text=dense(pack, 4, 4))
    once = host.apply_erasure(model, clip, erasure, 0.5, 0.0)
    host.apply_erasure(*once, erasure, 0.0, 0.5)
    host.apply_erasure(*once, erasure_of(pack, "dog", key=dense(pack, 6, 4)))
    assert not caplog.messages
    host.apply_erasure(*once, erasure, 0.5, 0.0)
    assert "MODEL has an erasure of 'cat' already that was computed on the same weights: both count." in caplog.text
    host.apply_erasure(a_model(pack), host.apply_erasure(*once, erasure, 0.0, 0.5)[1], erasure)
    assert "CLIP has an erasure of 'cat' already" in caplog.text


def test_the_nodes_of_erasures(pack: Pack) -> None:
    nodes, model = pack.nodes("erasures"), a_model(pack)
    one, other = erasure_of(pack, key=low_rank(pack, 6, 4)), erasure_of(pack, "dog", key=dense(pack, 6, 4))
    with pytest.raises(ValueError, match="both erasures take 'cat' from the same weights"):
        nodes.ErasureCombine.execute(one, one, 1.0, 1.0)
    (both,) = nodes.ErasureCombine.execute(one, other, 2.0, -0.5).result
    torch.testing.assert_close(both.deltas[KEY].dense(), 2 * one.deltas[KEY].dense() - other.deltas[KEY].dense() / 2)
    saved = nodes.ErasureSave.execute(both, "erasure/cat")
    path, readers = saved.ui["text"]
    assert path == saved.result[0] and "ComfyUI's Load LoRA, A1111 and Forge read it" in readers
    (back,) = nodes.ErasureLoad.execute("erasure/cat_00001_.safetensors").result
    torch.testing.assert_close(back.deltas[KEY].dense(), both.deltas[KEY].dense())
    applied, clip = nodes.ErasureApply.execute(model, back, 1.0, 1.0).result
    plain = bits(model)[f"{UNET}{OWN}to_k.weight"]
    torch.testing.assert_close(
        pack.nodes("comfy_host.model").text_weights(applied)[KEY], plain + both.deltas[KEY].dense()
    )
    assert clip is None
    for shown in (
        nodes.ErasureLoad.execute("erasure/cat_00001_.safetensors"),
        nodes.ErasureApply.execute(model, back, 1.0, 1.0),
    ):
        assert shown.ui["text"][0] == "Erases cat, dog (by test)."


def test_warnings_are_shown_at_the_node(pack: Pack, caplog) -> None:
    """Each once, below what the node shows, those of its own work alone; the log gets them too."""
    nodes, model = pack.nodes("erasures"), a_model(pack)
    erasure = erasure_of(pack, key=dense(pack, 6, 4))
    once = nodes.ErasureApply.execute(model, erasure, 1.0, 1.0)
    twice = nodes.ErasureApply.execute(once.result[0], erasure, 1.0, 1.0)
    first, *warnings = twice.ui["text"]
    warning = warnings[-1]
    assert first == once.ui["text"][0] == "Erases cat (by test)." and warning.startswith(
        "Warning: MODEL has an erasure of 'cat' already"
    )
    assert warning.removeprefix("Warning: ") in caplog.text

    shown = pack.nodes("warnings_at_node")
    log = pack.core("concepts.parse").log
    with shown.collected_warnings() as warnings:
        log.info("no warning")
        log.warning("%s looks like a list", "cat, dog")
        log.warning("cat, dog looks like a list")
        logging.getLogger("another").warning("of another pack")
        other = Thread(target=log.warning, args=("of another request",))
        other.start()
        other.join()
    log.warning("too late")
    output = pack.comfy_api().io.NodeOutput(1)
    assert shown.with_warnings(output, warnings).ui == {"text": ("Warning: cat, dog looks like a list",)}
    assert shown.with_warnings(pack.comfy_api().io.NodeOutput(1), []).ui is None
    with pytest.raises(KeyError), shown.collected_warnings():
        raise KeyError
    assert not shown.PACK.handlers


def test_a_checkpoint_is_baked(pack: Pack, tmp_path: Path) -> None:
    """Below output/checkpoints under a new number each time; progress is shown, and a cancel leaves nothing."""
    node, save = pack.nodes("bake").ErasureBake, pack.core("files.safetensors_files").write
    folder = tmp_path / "output" / "checkpoints"
    folder.mkdir()
    with (folder / "own.safetensors").open("wb") as file:
        save(file, {f"model.diffusion_model.{OWN}to_k.weight": torch.ones(6, 4)}, {"title": "x"})
    erasure = erasure_of(pack, key=dense(pack, 6, 4))
    before = node.fingerprint_inputs(checkpoint="own.safetensors", strength=1.0)
    for number, strength in ((1, 1.0), (2, 0.5)):
        shown = node.execute("own.safetensors", erasure, strength, "a/new")
        (path,) = shown.result
        assert path == str(folder / "a" / f"new_{number:05}_.safetensors") and path == shown.ui["text"][0]
        assert (
            "1 tensors have changed. Rounding loses 0.00% of the change. The erasure was trained" in shown.ui["text"][1]
        )
        (weight,) = pack.core("files.safetensors_files").read(Path(path))[1].values()
        torch.testing.assert_close(weight, 1 + strength * erasure.deltas[KEY].change)
    assert before == node.fingerprint_inputs(checkpoint="own.safetensors", strength=0.5)
    with pytest.raises(ValueError, match="checkpoint 'x.safetensors' is unknown"):
        node.execute("x.safetensors", erasure, 1.0, "new")
    with pytest.raises(ValueError, match="in none of the checkpoints folders"):
        node.fingerprint_inputs(checkpoint="../x.safetensors")


def test_names_are_suggested_without_a_model(pack: Pack) -> None:
    """From the table, and added to the list unless that is switched off; targets are no aliases."""
    node = pack.nodes("suggest").ErasureSuggestNames
    shown = node.execute("cat -> kitty\n# no other\nzzyzx", True, 0.89, 3)
    assert shown.result == (
        "cat -> kitty\nzzyzx\ncats -> kitty\ncatday -> kitty\n🐱 -> kitty",
        "cat: cats 0.93, catday 0.92, 🐱 0.92\nzzyzx: no other name",
    )
    assert shown.ui["text"] == (shown.result[1],)
    assert node.execute("cat -> kitty", False, 0.89, 3).result[0] == "cat -> kitty"
    with pytest.raises(ValueError, match="model and clip belong together"):
        node.execute("cat", True, 0.89, 3, model=a_model(pack))
    with pytest.raises(ValueError, match="minimum must be a finite number from 0 to 1, got 2"):
        node.execute("cat", True, 2.0, 3)


def test_lists_are_preserved_by_nodes(pack: Pack) -> None:
    inputs, concept = pack.nodes("inputs"), pack.core("concepts.parse").Concept("mosaic")
    assert inputs.listed([concept], "none") == [] and inputs.preserve_list_input().optional
    mediums = inputs.listed([concept], "mediums")
    assert "a screenshot" in mediums and "a mosaic" not in mediums


def test_schemas_have_the_inputs_that_execute_takes(pack: Pack) -> None:
    """By name, for every node whose modules need no more of ComfyUI than the stand-in has."""
    for module in ("bake", "erasures", "statistics", "suggest"):
        for name, node in vars(pack.nodes(module)).items():
            if name.startswith("Erasure") and hasattr(node, "execute"):
                schema = node.define_schema()
                given = {part.id for part in schema.inputs}
                taken = set(inspect.signature(node.execute).parameters)
                assert schema.node_id == name and given == taken, name


@pytest.mark.parametrize("value", ["style", {"a": 1}, ["object"], None, 5])
def test_what_is_no_choice_is_not_among_them(pack: Pack, value: object) -> None:
    """Requests name anything, also what has no hash."""
    choices = pack.nodes("schema").Choices(["auto", "object"], earlier=["object (toy)"])
    assert value not in choices and "object (toy)" in choices and list(choices) == ["auto", "object"]
