"""The nodes in a running ComfyUI: what they promise, what their files do elsewhere, and how they refuse."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from comfy_server import PACK, ComfyServer, PromptError
from PIL import Image
from safetensors.torch import load_file, save_file

from erasure_core.quoting import excerpt

NODES = (
    "ErasureRECE", "ErasureFewShot", "ErasureDoCo", "ErasureAbO", "ErasureApply", "ErasureCombine", "ErasureSave",
    "ErasureLoad", "ErasureBake", "ErasurePurify", "ErasureCompare", "ErasureReport", "ErasureRedTeam",
    "ErasureSuggestNames", "ErasureLoadConcepts", "ErasureRestore", "ErasureSaveStatistics", "ErasureLoadStatistics",
    "ErasureLoadToy",
)  # fmt: skip
RECE, BEFORE, AFTER, DECODED_AFTER = "6", "9", "12", "11"


@pytest.fixture
def prompt() -> dict[str, Any]:
    """Erasing an object, two pictures in four steps."""
    prompt = graphs.api("erase-an-object")
    prompt["5"]["inputs"]["batch_size"] = 2
    for sampler in ("7", "10"):
        prompt[sampler]["inputs"]["steps"] = 4
    return prompt


def with_sampler(prompt: dict[str, Any], model: list, clip: list | None = None) -> None:
    """Let the pictures called "After" come from another MODEL, and CLIP."""
    prompt["10"]["inputs"]["model"] = model
    if clip:
        prompt["20"] = deepcopy(prompt["3"])
        prompt["20"]["inputs"]["clip"] = clip
        prompt["10"]["inputs"]["positive"] = ["20", 0]


def pixels(server: ComfyServer, entry: dict[str, Any], node: str) -> np.ndarray:
    return np.stack([np.asarray(picture.convert("RGB"), np.int16) for picture in server.images(entry, node)])


def refused(server: ComfyServer, prompt: dict[str, Any]) -> str:
    with pytest.raises(PromptError) as error:
        server.queue(prompt)
    return str(error.value)


def saved_files(server: ComfyServer) -> list[str]:
    loras = server.directory / "output" / "loras"
    return sorted(str(path.relative_to(loras)) for path in loras.rglob("*") if path.is_file())


def save(server: ComfyServer, prompt: dict[str, Any], prefix: str) -> Path:
    """Queue the prompt with a Save Erasure node and return the file."""
    saving = deepcopy(prompt)
    saving["30"] = {"class_type": "ErasureSave", "inputs": {"erasure": [RECE, 2], "filename_prefix": prefix}}
    return Path(server.queue(saving)["outputs"]["30"]["text"][0])


def test_the_toy_brings_a_latent_of_its_size(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt["5"]["inputs"]["batch_size"] = 1
    prompt["10"]["inputs"] |= {"model": ["2", 0], "latent_image": ["2", 3]}
    entry = server.queue(prompt)
    wanted, drawn = pixels(server, entry, BEFORE), pixels(server, entry, AFTER)
    assert drawn.shape == (1, 64, 64, 3)
    assert np.array_equal(wanted, drawn)


def test_every_socket_explains_itself(server: ComfyServer) -> None:
    known = server.object_info()
    for name in NODES:
        node = known[name]
        assert node["category"].startswith("Erasure/") and node["description"] and node["display_name"] != name
        assert "Eras" in node["display_name"], "a name says whose node it is, where a host shows no badge"
        for kind in ("required", "optional"):
            for socket, (_, *options) in node["input"].get(kind, {}).items():
                assert options and options[0].get("tooltip"), f"{name}.{socket}"
        if node["output"]:
            assert len(node["output_tooltips"]) == len(node["output"]) and all(node["output_tooltips"]), name


def test_newer_hosts_find_nodes_by_other_words_and_hide_numbers(server: ComfyServer) -> None:
    known = server.object_info()
    rece = known["ErasureRECE"]["input"]["required"]
    assert rece["ridge"][1]["advanced"] and "advanced" not in rece["preset"][1]
    assert rece["preset"][1]["presets"]["general"]["amplification"] == 1.8
    if "search_aliases" in known["KSampler"]:
        assert {"forget", "unlearn", "negative", "UCE"} <= set(known["ErasureRECE"]["search_aliases"])
        assert all("concept erasure" in known[name]["search_aliases"] for name in NODES)


@pytest.mark.parametrize(
    ("concepts", "sentence"),
    [
        ("cat => dog", "concepts - the concept 'cat => dog' has the unknown separator '=>'; write 'cat -> dog'"),
        ("cat -> Cat", "concepts - the concept 'cat -> Cat'"),
        ("cat\n-> dog", "concepts - line 2 of concepts, '-> dog'"),
    ],
)
def test_a_concept_is_refused_before_anything_runs(
    server: ComfyServer, prompt: dict[str, Any], concepts: str, sentence: str
) -> None:
    prompt[RECE]["inputs"]["concepts"] = concepts
    with pytest.raises(PromptError) as refusal:
        server.submit(prompt)
    assert sentence in str(refusal.value)
    assert [one["extra_info"]["input_name"] for one in refusal.value.node_errors[RECE]["errors"]] == ["concepts"]


def test_errors_are_named_by_builtin_classes(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """ComfyUI shows the class, with its module, which in a pack is a path."""
    prompt[RECE]["inputs"]["concepts"] = "cat\nCat"
    with pytest.raises(PromptError) as failure:
        server.queue(prompt)
    (error,) = [detail for event, detail in failure.value.messages if event == "execution_error"]
    assert error["exception_type"] == "ValueError"


def test_nodes_say_what_they_did(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt[RECE]["inputs"] |= {"concepts": "cat -> dog", "preserve": "lion", "preset": "general", "strength": 0.9}
    prompt["30"] = {"class_type": "ErasureSave", "inputs": {"erasure": [RECE, 2], "filename_prefix": "said"}}
    outputs = server.queue(prompt)["outputs"]
    assert outputs[RECE]["text"] == ["Erased with preset 'general', at strength 0.9: cat -> dog. 1 prompt preserved."]
    assert outputs["30"]["saved"] == [True] and "said_00001_" in outputs["30"]["text"][0]


@pytest.mark.parametrize("name", graphs.NAMES)
def test_graphs_of_earlier_versions_load(server: ComfyServer, name: str) -> None:
    """Each value of a widget still belongs to the same input, and the host takes it."""
    prompt = graphs.as_api(graphs.earlier(name), server.object_info())
    assert prompt == graphs.without_titles(graphs.api(name))
    if any(node["class_type"] == "CheckpointLoaderSimple" for node in prompt.values()):
        return  # which fails without its file
    started = server.submit(prompt)
    server.request("/queue", {"delete": [started]})
    server.cancel_all()


@pytest.mark.parametrize("name", NODES)
def test_help_page(server: ComfyServer, name: str) -> None:
    page = server.request(f"/extensions/{PACK}/docs/{name}.md").decode()
    node = server.object_info()[name]
    assert page.startswith(f"# {node['display_name']}\n")
    for socket, (of_type, *_) in node["input"].get("required", {}).items():
        if isinstance(of_type, list) or of_type in graphs.WIDGETS:
            assert f"**{socket}**" in page or socket == "file", socket


def test_the_original_model_is_left_alone(server: ComfyServer, prompt: dict[str, Any]) -> None:
    untouched = deepcopy(prompt)
    for node in (RECE, "10", DECODED_AFTER, AFTER):
        del untouched[node]
    server.free()
    fresh = pixels(server, server.queue(untouched), BEFORE)
    server.free()
    entry = server.queue(prompt)
    before, after = (pixels(server, entry, node) for node in (BEFORE, AFTER))
    untouched["7"]["inputs"]["seed"] = 2
    server.queue(untouched)
    untouched["7"]["inputs"]["seed"] = 1
    again = pixels(server, server.queue(untouched), BEFORE)
    assert np.array_equal(fresh, before) and np.array_equal(fresh, again)
    assert not np.array_equal(before, after)


def test_the_file_does_elsewhere_what_the_node_does(server: ComfyServer, prompt: dict[str, Any]) -> None:
    direct = pixels(server, server.queue(prompt), AFTER)
    path = save(server, prompt, "erasure/no-cat")
    assert path.parent == server.directory / "output" / "loras" / "erasure"
    name = str(path.relative_to(server.directory / "output" / "loras"))
    stock = {"lora_name": name, "strength_model": 1.0, "strength_clip": 1.0, "model": ["2", 0], "clip": ["2", 1]}
    own = {"erasure": ["41", 0], "strength_model": 1.0, "strength_clip": 1.0, "model": ["2", 0], "clip": ["2", 1]}
    loaders = {
        "LoraLoader": {"40": {"class_type": "LoraLoader", "inputs": stock}},
        "ErasureApply": {
            "41": {"class_type": "ErasureLoad", "inputs": {"file": name}},
            "40": {"class_type": "ErasureApply", "inputs": own},
        },
    }
    printed = len(server.log())
    for loader, nodes in loaders.items():
        assert name in str(server.object_info()["LoraLoader"]["input"]["required"]["lora_name"])
        loaded = prompt | nodes
        with_sampler(loaded, ["40", 0], ["40", 1])
        difference = np.abs(pixels(server, server.queue(loaded), AFTER) - direct)
        assert difference.max() <= 1, loader
    log = server.log()[printed:]
    for complaint in ("lora key not loaded", "other weights", "ERROR", "WARNING"):
        assert complaint not in log, log


def test_the_file_works_as_a_hook(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """As a LoRA of one prompt alone, for a part of the steps: what Prompt Control's <lora:...> does too."""
    direct, before = (pixels(server, server.queue(prompt), node) for node in (AFTER, BEFORE))
    name = str(save(server, prompt, "hooked").relative_to(server.directory / "output" / "loras"))
    prompt["40"] = {
        "class_type": "CreateHookLora",
        "inputs": {"lora_name": name, "strength_model": 1.0, "strength_clip": 0.0},
    }
    sampler = prompt["10"]["inputs"]
    for node, side in (("41", "positive"), ("42", "negative")):
        own = {"cond_NEW": sampler[side], "strength": 1.0, "set_cond_area": "default", "hooks": ["40", 0]}
        prompt[node] = {"class_type": "ConditioningSetProperties", "inputs": own}
        sampler[side] = [node, 0]
    with_sampler(prompt, ["2", 0])
    hooked = pixels(server, server.queue(prompt), AFTER)
    assert np.abs(hooked - direct).max() <= 1 and np.abs(hooked - before).max() > 50
    server.free()
    assert np.array_equal(pixels(server, server.queue(prompt), BEFORE), before), "the hook is gone afterwards"


def test_warnings_are_shown_at_the_node(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt[RECE]["inputs"]["concepts"] = "cat, dog"
    first, warning = server.queue(prompt)["outputs"][RECE]["text"]
    assert first == "Erased with preset 'object': cat, dog."
    assert warning.startswith("Warning: ") and "'cat, dog'" in warning


def test_words_that_the_toy_does_not_know_are_warned_of_at_the_node(
    server: ComfyServer, prompt: dict[str, Any]
) -> None:
    prompt[RECE]["inputs"]["concepts"] = "kat"
    _, warning = server.queue(prompt)["outputs"][RECE]["text"]
    assert warning.startswith("Warning: the model has not learned 'kat' (did you mean 'cat'?); ")


def test_nothing_is_overwritten(server: ComfyServer, prompt: dict[str, Any]) -> None:
    first = save(server, prompt, "twice")
    content = first.read_bytes()
    prompt[RECE]["inputs"]["concepts"] = "dog"
    second = save(server, prompt, "twice")
    assert (first.name, second.name) == ("twice_00001_.safetensors", "twice_00002_.safetensors")
    assert first.read_bytes() == content != second.read_bytes()


def test_strength_zero_changes_nothing_and_combining_adds(server: ComfyServer, prompt: dict[str, Any]) -> None:
    prompt["49"] = deepcopy(prompt[RECE])
    prompt["49"]["inputs"]["concepts"] = "lion"
    prompt["50"] = {
        "class_type": "ErasureCombine",
        "inputs": {"a": [RECE, 2], "b": ["49", 2], "strength_a": 0.75, "strength_b": 0.25},
    }
    given = {"clip": ["2", 1], "strength_clip": 1.0}
    for node, erasure, model, strength in (
        ("51", ["50", 0], "2", 0.0), ("52", [RECE, 2], "2", 0.75), ("53", ["49", 2], "52", 0.25)
    ):  # fmt: skip
        own = {"erasure": erasure, "model": [model, 0], "strength_model": strength}
        prompt[node] = {"class_type": "ErasureApply", "inputs": given | own}
    server.free()
    with_sampler(prompt, ["53", 0])
    entry = server.queue(prompt)
    before, direct = (pixels(server, entry, node) for node in (BEFORE, AFTER))
    with_sampler(prompt, ["51", 0])
    assert np.array_equal(pixels(server, server.queue(prompt), AFTER), before)
    prompt["51"]["inputs"]["strength_model"] = 1.0
    assert np.abs(pixels(server, server.queue(prompt), AFTER) - direct).max() <= 1


def test_an_erasure_follows_another_but_not_itself(server: ComfyServer, prompt: dict[str, Any]) -> None:
    chain = deepcopy(prompt)
    chain["50"] = deepcopy(chain[RECE])
    chain["50"]["inputs"] |= {"model": [RECE, 0], "clip": [RECE, 1], "concepts": "lion"}
    with_sampler(chain, ["50", 0])
    server.queue(chain)
    chain["50"]["inputs"]["concepts"] = "lion\nA Cat"  # with others, what is erased already stays as it is
    server.queue(chain)
    chain["50"]["inputs"]["concepts"] = "A Cat"
    assert "'A Cat' is erased from this model already, by an earlier erasure of 'cat'" in refused(server, chain)
    chain[RECE]["inputs"]["strength"] = 0.0
    server.queue(chain)
    applied = deepcopy(prompt)
    applied["49"] = {
        "class_type": "ErasureApply",
        "inputs": {
            "model": ["2", 0], "clip": ["2", 1], "erasure": [RECE, 2], "strength_model": 1.0, "strength_clip": 1.0
        },
    }  # fmt: skip
    applied["50"] = deepcopy(prompt[RECE])
    applied["50"]["inputs"] |= {"model": ["49", 0]}
    with_sampler(applied, ["50", 0])
    assert "'cat' is erased from this model already" in refused(server, applied)
    for models, ratio in (([[RECE, 0], ["2", 0]], 0.3), ([["2", 0], [RECE, 0]], 0.7)):
        merge = {"model1": models[0], "model2": models[1], "ratio": ratio}
        applied["49"] = {"class_type": "ModelMergeSimple", "inputs": merge}
        server.queue(applied)
        merge["ratio"] = round(ratio)
        server.queue(applied)
        merge["ratio"] = 1 - round(ratio)
        assert "'cat' is erased from this model already" in refused(server, applied)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"concepts": "cat\ndog => lion"}, "line 2 of concepts, 'dog => lion'"),
        ({"concepts": "cat -> cat"}, "the concept 'cat -> cat'"),
        ({"concepts": " \n\n"}, "no concept is named"),
        ({"concepts": "cat " * 80}, "is 80 tokens long, the text encoder takes 75; shorten it"),
        ({"concepts": "caf\ufffd"}, "concepts 'caf\ufffd' has '\ufffd', which is not text"),
        ({"concepts": "cat\nhalf an emoji \ud83d"}, r"line 2 of concepts, 'half an emoji \ud83d', has '\ud83d', which"),
        ({"concepts": "(cat:1.2)"}, "the concept '(cat:1.2)' sets a weight, '(cat:1.2)', and a name"),
        ({"concepts": "cat\nCat"}, "'cat' and 'Cat' are the same to this text encoder"),
        ({"concepts": "cat's", "preserve": "a cat"}, "preserve lists 'a cat', which is to be erased"),
        ({"preserve": "lion\ncat"}, "preserve lists 'cat', which is to be erased"),
        ({"preserve": "lion\ncaf\ufffd"}, "line 2 of preserve, 'caf\ufffd', has '\ufffd', which is not text"),
        ({"preset": "custom", "ridge": 0.0}, "ridge"),
        ({"preset": "custom", "erase_scale": -1.0}, "erase_scale"),
        ({"preset": "custom", "ridge": float("nan")}, "ridge must be a finite number from 1e-06 to 10000, got nan"),
        ({"loops": -1}, "loops"),
        ({"strength": float("nan")}, "strength must be a finite number from 0 to 2, got nan"),
        ({"clip": None}, "clip"),
    ],
)
def test_bad_input(server: ComfyServer, prompt: dict[str, Any], inputs: dict[str, Any], sentence: str) -> None:
    prompt[RECE]["inputs"] |= inputs
    assert sentence in refused(server, prompt)


def test_a_long_list_can_be_cancelled(server: ComfyServer, prompt: dict[str, Any]) -> None:
    expected = pixels(server, server.queue(prompt), AFTER)
    long = deepcopy(prompt)
    long[RECE]["inputs"]["concepts"] = "\n".join(f"thing {number}" for number in range(10_000))
    started = server.submit(long)
    server.wait_until_running(started)
    time.sleep(1)
    server.interrupt()
    messages = dict(server.wait(started)["status"]["messages"])
    assert messages["execution_interrupted"]["node_type"] == "ErasureRECE"
    prompt[RECE]["inputs"]["preserve"] = "\n"  # not the cached result
    assert np.array_equal(pixels(server, server.queue(prompt), AFTER), expected)


@pytest.mark.parametrize(
    "prefix",
    ["../escaped", "/tmp/escaped", "a/../../../escaped", "", "folder/", "taken/erasure", "long" * 80],
)
def test_bad_folders(server: ComfyServer, prompt: dict[str, Any], prefix: str) -> None:
    loras = server.directory / "output" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    (loras / "taken").write_text("a file where a folder is asked for")
    files = saved_files(server)
    prompt["30"] = {"class_type": "ErasureSave", "inputs": {"erasure": [RECE, 2], "filename_prefix": prefix}}
    assert f"filename_prefix '{excerpt(prefix)}'" in refused(server, prompt)
    assert saved_files(server) == files
    assert not list(server.directory.rglob("escaped*"))


def test_bad_files(server: ComfyServer, prompt: dict[str, Any]) -> None:
    good = save(server, prompt, "good")
    folder = server.directory / "models" / "loras"
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{stem}.lora_up.weight": torch.ones(96, 1)}, folder / "foreign.safetensors")
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:2000])
    tensors = load_file(good)
    prompt["41"] = {"class_type": "ErasureLoad", "inputs": {"file": "foreign.safetensors"}}
    prompt["31"] = {"class_type": "ErasureSave", "inputs": {"erasure": ["41", 0], "filename_prefix": "again"}}
    assert "foreign.safetensors was not written by this pack" in refused(server, prompt)
    prompt["41"]["inputs"]["file"] = "cut.safetensors"
    assert "cut.safetensors is not a readable safetensors file" in refused(server, prompt)
    prompt["41"]["inputs"]["file"] = "absent.safetensors"
    assert "absent.safetensors" in refused(server, prompt)
    save_file(tensors, folder / "bare.safetensors")
    prompt["41"]["inputs"]["file"] = "bare.safetensors"
    assert "bare.safetensors was not written by this pack" in refused(server, prompt)
    assert not any("again" in name for name in saved_files(server))


def comparing(prompt: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """A grid in the place of the pictures after."""
    widgets = {
        "prompts": prompt["3"]["inputs"]["text"], "negative": "", "labels": "RECE", "difference": False,
        **{name: prompt["7"]["inputs"][name] for name in ("seed", "steps", "cfg", "sampler_name", "scheduler")},
    }  # fmt: skip
    links = {"model": ["2", 0], "clip": ["2", 1], "vae": ["2", 2], "latent": ["5", 0], "model_1": [RECE, 0]}
    prompt[AFTER]["inputs"]["images"] = ["50", 0]
    prompt["50"] = {"class_type": "ErasureCompare", "inputs": {**widgets, **links, **inputs}}
    return {node: body for node, body in prompt.items() if node not in ("10", "11")}


def test_compare_shows_ksamplers_pictures(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """Each picture stands twice as large on the grid, unchanged on its way through the eraser's column."""
    plain = server.queue(deepcopy(prompt))
    wanted = [pixels(server, plain, node) for node in (BEFORE, AFTER)]
    (sheet,) = server.images(server.queue(comparing(prompt)), AFTER)
    sheet_pixels = np.asarray(sheet.convert("RGB"), np.int16)
    places = []
    for pictures in wanted:
        for picture in pictures:
            large = Image.fromarray(picture.astype(np.uint8)).resize((128, 128), Image.Resampling.LANCZOS)
            places.append(_place(sheet_pixels, np.asarray(large, np.int16)))
    (first, second, third, fourth) = places
    assert first[1] == second[1] < third[1] == fourth[1]
    assert first[0] == third[0] < second[0] == fourth[0]


def _place(sheet: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """The row and column where a picture stands on a sheet, to the rounding of PNGs."""
    height, width = picture.shape[:2]
    corner = np.abs(sheet[: 1 - height or None, : 1 - width or None] - picture[0, 0]).max(-1) <= 3
    for row, column in np.argwhere(corner):
        if np.abs(sheet[row : row + height, column : column + width] - picture).max() <= 3:
            return int(row), int(column)
    pytest.fail("the picture is not on the sheet")


def test_compare_takes_models_of_every_kind(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """A column with a CLIP alone, and heat-maps."""
    more = {"clip_3": ["2", 1], "labels": "RECE\nitself", "difference": True}
    sizes = []
    for inputs in ({"prompts": "a cat\n# no\na dog", **more}, {"prompts": "a cat"}):
        (sheet,) = server.images(server.queue(comparing(deepcopy(prompt), **inputs)), AFTER)
        sizes.append(sheet.size)
    (wide, high), (narrow, low) = sizes
    assert wide > narrow + 3 * 128 and high > low + 2 * 128


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"prompts": "# nothing"}, "prompts is empty"),
        ({"labels": "a\nb"}, "labels has 2 lines for 1 models"),
        ({"labels": "before"}, "'before' is what the first column is called"),
    ],
)
def test_compare_refuses(server: ComfyServer, prompt: dict[str, Any], inputs: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(server, comparing(prompt, **inputs))


def test_a_list_of_concepts_from_a_file(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """The same pictures as when the list is typed; a changed file is read again."""
    typed = pixels(server, server.queue(prompt), AFTER)
    listed = server.directory / "input" / "concepts.txt"
    listed.parent.mkdir(exist_ok=True)
    listed.write_text(f"# what to forget\n{prompt[RECE]['inputs']['concepts']}\n", encoding="utf-8")
    prompt["50"] = {"class_type": "ErasureLoadConcepts", "inputs": {"file": "concepts.txt"}}
    prompt[RECE]["inputs"]["concepts"] = ["50", 0]
    assert np.array_equal(pixels(server, server.queue(prompt), AFTER), typed)
    listed.write_text("pizza", encoding="utf-8")
    pizza = pixels(server, server.queue(prompt), AFTER)
    assert not np.array_equal(pizza, typed)
    table = server.directory / "input" / "people.csv"
    table.write_text("id;concept\n1;pizza\n", encoding="utf-8-sig")
    prompt["50"]["inputs"] = {"file": "people.csv", "column": "concept"}
    assert np.array_equal(pixels(server, server.queue(prompt), AFTER), pizza)
    prompt["50"]["inputs"]["column"] = "name"
    assert "people.csv has no column 'name'; it has 'id', 'concept'" in refused(server, prompt)
    prompt["50"]["inputs"]["column"] = ""
    assert "people.csv has the columns 'id', 'concept'; say which one holds the concepts" in refused(server, prompt)
    prompt["50"]["inputs"]["file"] = "../concepts.txt"
    assert "file" in refused(server, prompt)


def test_other_names_are_suggested_and_erased(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """By the table without a model, by the model's text encoder with it; what is listed goes into RECE."""
    prompt["50"] = {
        "class_type": "ErasureSuggestNames",
        "inputs": {"concepts": "cat -> dog", "erase_aliases": True, "minimum": 0.87, "limit": 10},
    }
    shown = server.queue({"50": prompt["50"]})["outputs"]["50"]["text"][0]
    assert shown.startswith("cat: cats 0.93, ") and "kitty 0.90" in shown
    prompt["50"]["inputs"] |= {"model": ["2", 0], "clip": ["2", 1]}
    prompt[RECE]["inputs"]["concepts"] = "cat -> dog\nkitten -> dog"
    typed = pixels(server, server.queue({name: node for name, node in prompt.items() if name != "50"}), AFTER)
    prompt[RECE]["inputs"]["concepts"] = ["50", 0]
    entry = server.queue(prompt)
    assert entry["outputs"]["50"]["text"][0] == "cat: kitten 1.00"
    assert np.array_equal(pixels(server, entry, AFTER), typed)
    del prompt["50"]["inputs"]["clip"]
    assert "model and clip belong together" in refused(server, prompt)


def test_a_list_is_preserved(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """Older workflows, which do not name it, preserve none."""
    plain = pixels(server, server.queue(prompt), AFTER)
    del prompt[RECE]["inputs"]["preserve_list"]
    assert np.array_equal(pixels(server, server.queue(prompt), AFTER), plain)
    prompt[RECE]["inputs"]["preserve_list"] = "mediums"
    assert not np.array_equal(pixels(server, server.queue(prompt), AFTER), plain)
    prompt[RECE]["inputs"]["preserve_list"] = "musicians"
    assert "preserve_list" in refused(server, prompt)


def test_statistics_take_a_concept_more_and_give_one_back(server: ComfyServer, prompt: dict[str, Any]) -> None:
    """Through a file: cat, then pizza too, then cat taken back, which is pizza alone."""
    prompt[RECE]["inputs"] |= {"concepts": "cat", "preserve_common": False}
    saving = deepcopy(prompt)
    saving["50"] = {
        "class_type": "ErasureSaveStatistics",
        "inputs": {"statistics": [RECE, 3], "filename_prefix": "list/cats"},
    }
    path = Path(server.queue(saving)["outputs"]["50"]["text"][0])
    assert path.is_file() and path.parent == server.directory / "output" / "erasure-statistics" / "list"
    both, alone = deepcopy(prompt), deepcopy(prompt)
    alone[RECE]["inputs"]["concepts"] = "pizza"
    expected = pixels(server, server.queue(alone), AFTER)
    both["51"] = {"class_type": "ErasureLoadStatistics", "inputs": {"file": f"list/{path.name}"}}
    both[RECE]["inputs"] |= {"concepts": "pizza", "statistics": ["51", 0]}
    with_cat = pixels(server, server.queue(both), AFTER)
    assert np.abs(with_cat - expected).max() > 50  # the prompt asks for a cat
    both["52"] = {
        "class_type": "ErasureRestore",
        "inputs": {"model": ["2", 0], "clip": ["2", 1], "statistics": [RECE, 3], "names": "Cat"},
    }
    both["53"] = deepcopy(both[RECE])
    both["53"]["inputs"] |= {"concepts": "", "statistics": ["52", 0]}
    with_sampler(both, ["53", 0])
    assert np.abs(pixels(server, server.queue(both), AFTER) - expected).max() <= 2
    carrying = deepcopy(both)
    carrying["53"]["inputs"] |= {"model": [RECE, 0], "concepts": "lion"}
    assert "'pizza' is erased from this model already" in refused(server, carrying)
    both["52"]["inputs"]["names"] = "lion"
    assert "hold no concept 'lion'" in refused(server, both)
