"""``benchmarks/peers.py`` with a stand-in for a clone: another project's script, run as it is on the embedded model."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from toy.conftest import state

from erasure_core.toy import load_pipeline

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import argparse, os, torch
torch.set_grad_enabled(False)
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
import helper

os.environ["LEFT_BEHIND"] = "1"
parser = argparse.ArgumentParser()
for name in ("edit_concepts", "concept_type", "preserve_concepts", "expand_prompts", "device", "save_dir", "exp_name"):
    parser.add_argument("--" + name)
options = parser.parse_args()
assert options.edit_concepts == "cat; dog" and options.preserve_concepts == "fox" and options.concept_type == "object"
unet = DiffusionPipeline.from_pretrained("somewhere").to(options.device).unet
name = next(name for name in unet.state_dict() if name.endswith("attn2.to_v.weight"))
path = os.path.join(options.save_dir, options.exp_name) + ".safetensors"
save_file({name: helper.SHARE * unet.state_dict()[name]}, path)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    script = tmp_path / "UCE" / "trainscripts" / "uce_sd_erase.py"
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT)
    script.with_name("helper.py").write_text("SHARE = 0.5")
    return tmp_path / "UCE"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a file of benchmarks, which import each other by their bare names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def named(name: str) -> ModuleType:
        return importlib.import_module(name)

    return named


def test_a_script_is_run_as_it_is_and_leaves_nothing_behind(load, clone: Path) -> None:
    peers, pipe = load("peer_clones"), load_pipeline()
    before, places = state_of(pipe), (list(sys.path), os.getcwd(), dict(os.environ), list(sys.argv))
    assert peers.clones_in(clone.parent) == {"UCE": clone}

    model = peers.uce(clone, pipe)(peers.Request(("cat", "dog"), "object", ("fox",)))()

    assert (list(sys.path), os.getcwd(), dict(os.environ), list(sys.argv)) == places
    assert torch.is_grad_enabled() and "helper" not in sys.modules and state_of(pipe) == before
    weights, own = model.weights_of("cross-attention"), pipe.unet.state_dict()
    halved = [name for name, weight in weights.items() if not torch.equal(weight, own[name.removeprefix("unet.")])]
    assert len(halved) == 1
    torch.testing.assert_close(weights[halved[0]], 0.5 * own[halved[0].removeprefix("unet.")])


def state_of(pipe) -> dict:
    class Held:
        pass

    Held.pipe = pipe
    return state(Held)


def test_a_folder_without_clones_is_said(load, tmp_path: Path) -> None:
    peers = load("peer_clones")
    assert peers.clones_in(tmp_path) == {}
    with pytest.raises(ValueError, match="is no folder; give the one that holds clones called UCE, SPEED, RECE, OCE"):
        peers.clones_in(tmp_path / "absent")


def test_what_is_only_for_evaluation_cannot_be_used(load) -> None:
    module = load("peer_clones").StandIn("execs")
    with pytest.raises(RuntimeError, match=r"execs\.generate_images is only for evaluation"):
        module.generate_images()


def test_the_tables_go_between_the_markers(
    load, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main, effects = load("peers"), load("peer_effects")
    clones = {"UCE": clone}
    found = {"UA": 0.0, "IRA": 1.0, "CRA": 1.0, "colour": 1.0}
    rows = [
        {
            "part": "effect",
            "job": job,
            "found": found if job["way"] == "unedited" else {**found, "UA": 0.75, "IRA": 0.9},
        }
        for job in effects.jobs(clones)
        if job["erased"] in (["dog"], ["penguin"]) and (job["erased"], job["way"]) != (["penguin"], "UCE")
    ]
    seconds = {"ours, general": 2.0, "UCE": 5.0}
    rows += [
        {
            "part": "cost", "job": {"way": way, "concepts": 10, "round": 0},
            "found": {"seconds": value, "megabytes": 1500.0, "threads": 1},
        }
        for way, value in seconds.items()
    ]  # fmt: skip
    page, kept = tmp_path / "peers.md", tmp_path / "rows.jsonl"
    page.write_text("By hand.\n\n<!-- by benchmarks/peers.py -->\nold\n<!-- end -->\n\nMore by hand.\n")
    kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(main, "commit_of", lambda clone: "abc of 2026-01-01")
    monkeypatch.setattr(
        sys, "argv", ["peers.py", f"--clones={tmp_path}", f"--out={page}", f"--rows={kept}", "--most=0"]
    )
    main.main()

    text = page.read_text()
    assert text.startswith("By hand.\n") and text.endswith("\nMore by hand.\n") and "old" not in text
    assert "Erased: dog. Pictures: 24" in text, "penguin is not complete"
    assert "| UCE                 | 75 | -10 |  +0 |     +0 |" in text
    assert "abc of 2026-01-01" in text and "not to be had" in text
    assert [cell.strip() for cell in row_of(text, "UCE", 2)[1:4]] == ["2.5", "5.0", "1,500"]
    assert f"{len(effects.jobs(clones)) + len(load('peer_costs').jobs(clones)) - len(rows)} of" in text
    assert "SPEED is not in" in capsys.readouterr().err


def row_of(text: str, way: str, number: int) -> list[str]:
    """The cells behind the first of the last line that begins with a way."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [line for line in lines if line[0].strip() == way][number - 1][0:]


def test_a_page_without_markers_is_refused(load) -> None:
    with pytest.raises(ValueError, match="the page has no line '<!-- by benchmarks/peers.py -->'"):
        load("peers_page").between_markers("By hand.", "tables")
