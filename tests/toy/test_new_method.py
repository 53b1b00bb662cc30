"""A method is a file, a node and a line in the list: one that is added to a copy of the pack works everywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pure.pack_modules import ROOT, VALUE, a_clip, a_model, stand_in

from erasure_core import Erasure
from erasure_core.methods import METHODS
from erasure_core.methods.inputs import Training

METHOD = '''"""Dim: what the layers read for every text becomes weaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from ..arguments import checked
from ..concepts.parse import Concept, as_concepts
from ..erasures.erasure import Erasure, deltas_of
from ..erasures.low_rank import LowRank
from ..erasures.erasure_record import Origin
from ..model import Callback, TextReader, entry_weights, fingerprint
from ..limits import Settings, setting
from .inputs import Preserve
from .method import Method


@dataclass(frozen=True)
class DimSettings(Settings):
    """Settings of ``dim``; those of other methods have some of their names."""

    ridge: int = setting(2, least=2, help="By what the weights are divided.")
    name_only: int = setting(0, least=0, help="No switch here.")
    seed: str = setting("none", choices=("none", "some"), help="No number here.")


DIM: Mapping[str, DimSettings] = {"object": DimSettings(), "style": DimSettings(ridge=3)}


@checked
def dim(
    model: TextReader,
    concepts: Sequence[Concept | str] | Concept | str,
    settings: DimSettings = DIM["object"],
    *,
    preserve: Sequence[str] = (),
    callback: Callback | None = None,
) -> Erasure:
    """Divide the weights that read text by ``settings.ridge``."""
    deltas = {}
    for entry in model.text_entries().values():
        eye = torch.eye(next(iter(entry.weights.values())).shape[1])
        deltas |= deltas_of(LowRank((1 / settings.ridge - 1) * eye, eye), entry)[0]
    record = {**asdict(settings), "preserve": list(preserve)}
    origin = Origin("dim", tuple(as_concepts(concepts)), record, fingerprint(entry_weights(model)))
    return Erasure(deltas, (origin,))
METHOD = Method("dim", dim, DIM, DIM, "divides what is read", (Preserve,))
'''
NODE = '''"""The node of dim."""

from __future__ import annotations

from comfy_api.latest import io

from ..erasure_core.concepts.parse import parse_concepts
from ..erasure_core.methods import METHODS
from .comfy_host.open_model import reader
from .comfy_host.patches import apply_erasure
from .input_checks import checked
from .inputs import CATEGORY, Erasure


class ErasureDim(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ErasureDim",
            display_name="Erase Concepts (Dim)",
            category=CATEGORY,
            description="Dims.",
            inputs=[
                io.Model.Input("model", tooltip="The model."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.String.Input("concepts", multiline=True, default="", tooltip="What to erase."),
                io.Combo.Input("preset", options=list(METHODS["dim"].presets), tooltip="How much."),
            ],
            outputs=[io.Model.Output(display_name="MODEL"), Erasure.Output(display_name="ERASURE")],
        )

    @classmethod
    @checked
    def execute(cls, model, clip, concepts, preset):
        method = METHODS["dim"]
        erasure = method.run(reader(model, clip), parse_concepts(concepts), method.presets[preset])
        return io.NodeOutput(apply_erasure(model, clip, erasure)[0], erasure)
'''


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pack with one more method: a file, a node, and its name in the list."""
    root = tmp_path_factory.mktemp("pack")
    for name in ("erasure_core", "nodes"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "erasure_core/methods/dim.py").write_text(METHOD)
    (root / "nodes/dim.py").write_text(NODE)
    contents = root / "erasure_core/methods/__init__.py"
    listed = contents.read_text()
    added = re.sub(r"( for one in \([^)]*)\)", r"\1, dim)", listed.replace("from . import ", "from . import dim, "))
    assert added.count("dim") == 2
    contents.write_text(added)
    return root


LOOP = """
import contextlib, io, json, sys
from erasure_core.commands.main import main

found = []
for options in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            code = main(options)
        except SystemExit as end:
            code = end.code
    found.append([code, told.getvalue()])
print(json.dumps(found))
"""
ERASE = ["erase", "--model", "toy", "--concept", "cat", "--out"]
RUNS = {
    "dim": ["--method", "dim", "--ridge", "4", "--name-only", "5", "--seed", "some", "--preserve", "dog"],
    "rece": ["--ridge", "0.25", "--name-only"],
}
FORMS = ", ".join(name for name, one in METHODS.items() if one.closed_form)
TRAINED = ", ".join(name for name, one in METHODS.items() if Training in one.takes)
NAMES_ONLY = ", ".join(name for name, one in METHODS.items() if hasattr(one.settings, "name_only"))
REFUSED = {
    "--method dim --ridge 2.5": "--ridge must be a whole number, got '2.5'",
    "--method=dim --ridge 1": "--ridge must be at least 2, got 1",
    "--method dim --seed 7": "--seed must be one of none, some, got '7'",
    "--method dim --loops 2": "dim takes no --loops; it is of rece",
    "--method dim --rank 2": f"dim takes no --rank; it is of {TRAINED}",
    "--method dim --statistics s.safetensors": f"--statistics are of {FORMS}, not of dim",
    "--method uce --no-name-only": f"uce takes no --name-only; it is of {NAMES_ONLY}, dim",
}


@pytest.fixture(scope="module")
def told(grown: Path) -> dict[str, tuple[int, str]]:
    """What the command line of the copy ends with, and says on stderr."""
    runs = {name: [*ERASE, f"{name}.safetensors", *options] for name, options in RUNS.items()}
    runs |= {text: [*ERASE, "refused.safetensors", *text.split()] for text in REFUSED}
    command = [sys.executable, "-c", LOOP, json.dumps(list(runs.values()))]
    done = subprocess.run(command, cwd=grown, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(zip(runs, map(tuple, json.loads(done.stdout)), strict=True))


def test_the_command_line_has_it_with_its_own_settings(grown: Path, told: dict) -> None:
    assert told["dim"] == (0, "")
    (origin,) = Erasure.load(grown / "dim.safetensors").origins
    preserved = origin.settings["preserve"]
    assert origin.method == "dim" and "dog" in preserved and len(preserved) > 50
    own = {"ridge": 4, "name_only": 5, "seed": "some"}
    assert {name: origin.settings[name] for name in own} == own


def test_names_that_others_have_too_stay_theirs(grown: Path, told: dict) -> None:
    assert told["rece"] == (0, "")
    (origin,) = Erasure.load(grown / "rece.safetensors").origins
    assert origin.method == "rece" and origin.settings["ridge"] == 0.25 and origin.settings["name_only"] is True


@pytest.mark.parametrize("options", REFUSED)
def test_what_users_get_wrong_about_it(grown: Path, told: dict, options: str) -> None:
    code, sentence = told[options]
    assert code == 2 and sentence.startswith(f"error: {REFUSED[options]}")
    assert not (grown / "refused.safetensors").exists()


def test_its_node_erases(grown: Path) -> None:
    with stand_in(grown) as pack:
        node = pack.nodes("dim").ErasureDim
        model = a_model(pack)
        edited, erasure = node.execute(model, a_clip(pack), "cat", "style").result
        assert erasure.origins[0].method == "dim" and erasure.origins[0].settings["ridge"] == 3
        before, after = (pack.nodes("comfy_host.model").text_weights(one)[VALUE] for one in (model, edited))
        torch.testing.assert_close(after, before / 3)
        with pytest.raises(ValueError, match="preset 'object2' is unknown; known: object, style"):
            node.execute(model, a_clip(pack), "cat", "object2")
