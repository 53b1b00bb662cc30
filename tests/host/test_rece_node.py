"""RECE in a running ComfyUI: what it leaves alone, its lists and statistics, and what it refuses."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import ComfyServer, PromptError
from rece_prompt import AFTER, BEFORE, DECODED_AFTER, RECE, pixels, refused, with_sampler


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
