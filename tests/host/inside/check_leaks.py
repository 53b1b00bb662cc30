"""Every node, run again and again, leaves no tensor behind."""

import asyncio
import gc
from dataclasses import replace
from pathlib import Path

import folder_paths
import pytest
import torch
from pack.erasure_core import toy
from pack.erasure_core.methods import METHODS
from pack.nodes import ErasureExtension
from pack.nodes.comfy_host.toy import load_toy
from pack.nodes.rece import ErasureRECE

SAMPLING = {"seed": 1, "steps": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
TRAINING = {"preset": "object (toy)", "steps": 2, "learning_rate": 1e-4, "seconds": 0.0, "rank": 0, "strength": 1.0}
UCE = {
    "concepts": "cat -> dog", "preserve": "lion", "preserve_common": False, "preset": "custom", "loops": 1,
    "regularization": 0.1, "erase_scale": 1.0, "preserve_scale": 0.1, "ridge": 0.1, "amplification": 1.0,
    "strength": 1.0, "name_only": False, "exactness": 0.001,
}  # fmt: skip
REPEATS = 2
TOY_WEIGHTS = Path(toy.__file__).parent / "weights"


def alive() -> int:
    """How many tensors there are, those that gradients keep included."""
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


@pytest.fixture(scope="module", autouse=True)
def small():
    """In the methods' presets what takes longest: AbO samples many pictures before it trains."""
    few = {"abo": {"trajectories": 2, "sampling_steps": 2, "batch_size": 2}, "doco": {"batch_size": 2}}
    with pytest.MonkeyPatch.context() as patch:
        for name, less in few.items():
            presets = METHODS[name].toy_presets
            patch.setitem(presets, "object", replace(presets["object"], **less))
        yield


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What nodes are connected to, by the names of inputs; files are in a folder of their own."""
    folder = tmp_path_factory.mktemp("comfy")
    (folder / "list.txt").write_text("cat\ndog")
    loras = folder / "loras"
    loras.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setattr(folder_paths, "get_output_directory", lambda: str(folder))
    patch.setattr(folder_paths, "get_input_directory", lambda: str(folder))
    folder_paths.add_model_folder_path("loras", str(loras))
    folder_paths.add_model_folder_path("checkpoints", str(TOY_WEIGHTS))
    with torch.inference_mode():
        model, clip, vae = load_toy()
        erased, _, erasure, statistics = ErasureRECE.execute(model, clip, **UCE).result
        owl = ErasureRECE.execute(model, clip, **UCE | {"concepts": "owl"}).result[2]
        erasure.save(loras / "cat.safetensors")
        yield {
            "model": model, "clip": clip, "vae": vae, "erased_model": erased, "model_1": erased, "erasure": erasure,
            "a": erasure, "b": owl, "statistics": statistics, "latent": {"samples": torch.zeros(1, 4, 8, 8)},
            "images": torch.rand(2, 64, 64, 3), "anchors": {"samples": torch.randn(2, 16, 8, 8)},
        }  # fmt: skip
    patch.undo()


WIDGETS = {
    "ErasureRECE": UCE | {"exactly": "a horse"},
    "ErasureFewShot": TRAINING | {"concept": "cat", "growth": 0.0},
    "ErasureDoCo": TRAINING | {"concept": "cat -> dog", "gradient_checkpointing": True},
    "ErasureAbO": TRAINING
    | {
        "concept": "cat -> dog", "preserve": "lion", "preserve_common": False, "unconditional_weight": 1.0,
        "preserve_weight": 1.0, "scope": "cross-attention", "gradient_checkpointing": True,
    },
    "ErasureApply": {"strength_model": 1.0, "strength_clip": 1.0},
    "ErasureCombine": {"strength_a": 1.0, "strength_b": 0.5},
    "ErasureSave": {"filename_prefix": "leaks"},
    "ErasureLoad": {"file": "cat.safetensors"},
    "ErasureBake": {"checkpoint": "unet.safetensors", "strength": 1.0, "filename_prefix": "leaks"},
    "ErasurePurify": {"prompt": "a cat", "steps": 2, "guidance": 1.5},
    "ErasureCompare": SAMPLING | {"prompts": "a cat\na dog", "negative": "", "labels": "", "difference": True},
    "ErasureReport": SAMPLING | {"concept": "cat", "kind": "object", "prompts": "", "neighbours": 1},
    "ErasureRedTeam": {
        "concept": "cat", "kind": "object", "prompts": "a kitten", "pictures": 1, "steps": 1, "seconds": 0.0,
        "sampling_steps": 2, "guidance": 2.0, **dict.fromkeys(("derived", "inversion", "discrete", "noised"), True),
    },
    "ErasureSuggestNames": {"concepts": "cat", "erase_aliases": True, "minimum": 0.87, "limit": 3},
    "ErasureLoadConcepts": {"file": "list.txt", "column": ""},
    "ErasureRestore": {"names": "cat"},
    "ErasureSaveStatistics": {"filename_prefix": "leaks"},
    "ErasureLoadStatistics": {"file": "leaks_00001_.safetensors"},
    "ErasureLoadToy": {},
}  # fmt: skip
NODES = {node.define_schema().node_id: node for node in asyncio.run(ErasureExtension().get_node_list())}


def test_every_node_is_run():
    assert set(NODES) == set(WIDGETS)


@pytest.mark.parametrize("name", WIDGETS)
def test_nothing_is_left(given, name):
    node = NODES[name]
    wanted = {one.id for one in node.define_schema().inputs or ()}
    inputs = {one: value for one, value in (given | WIDGETS[name]).items() if one in wanted}
    inputs |= {"statistics": None} if name == "ErasureRECE" else {}
    run = 0

    def act() -> None:
        nonlocal run
        run += 1
        node.execute(**inputs, **({"seed": run} if "seed" in wanted - set(inputs) else {}))

    with torch.inference_mode():
        act()
        before = alive()
        for _ in range(REPEATS):
            act()
    assert alive() <= before
