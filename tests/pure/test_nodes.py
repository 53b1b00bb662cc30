"""Nodes on a stand-in for ComfyUI (``tests/stand_in``): sockets, results, warnings, and who knows ComfyUI."""

from __future__ import annotations

import ast
import inspect
import logging
import sys
from pathlib import Path
from threading import Thread

import pytest
import torch
from pure.pack_modules import KEY, OWN, PACK, ROOT, UNET, Pack, a_model, bits, dense, erasure_of, low_rank, stand_in


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


def test_sockets(pack: Pack) -> None:
    sockets = pack.nodes("inputs")
    assert sockets.name_of_erased(" van gogh -> art ") == "van gogh" and sockets.name_of_erased("cat") == "cat"
    for empty in ("", "  ", "-> dog"):
        with pytest.raises(ValueError, match="concept"):
            sockets.name_of_erased(empty)
    kinds = {part.id: part.kind for part in [sockets.strength_input(), sockets.preserve_input()]}
    assert kinds == {"strength": "FLOAT", "preserve": "STRING"}
    assert (sockets.Erasure.name, sockets.Statistics.name) == ("ERASURE", "ERASURE_STATISTICS")


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
        assert "1 tensors have changed. Rounding loses 0.00% of the change. The erasure was" in shown.ui["text"][1]
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
