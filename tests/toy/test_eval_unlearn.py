"""The benchmark ``eval-unlearn`` itself, which finds our technique and metric and runs them on the embedded model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

import erasure_core
from erasure_core.eval_unlearn import ErasureTechnique, ToyJudgeMetric
from erasure_core.files.images import as_tensor

ROOT = Path(erasure_core.__file__).resolve().parent.parent
DRAWING = {"model": "toy", "steps": 15, "guidance": 3}
CAT = {**DRAWING, "method": "rece", "erase_concept": "cat"}
UNEDITED = {**DRAWING, "method": "none"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Runs a technique's configuration against the judge, in the benchmark's own runner."""
    from eval_unlearn.runners import SingleBenchmarkRunner

    def run(config: dict, seed: int | None = 5) -> dict:
        folder = tmp_path_factory.mktemp("results")
        judge = {"concept": "cat", "pictures": 24, "batch": 12}
        return SingleBenchmarkRunner("concept_erasure", "toy_judge", config, judge, str(folder), seed).run()

    return run


def test_it_is_found_by_its_entry_points() -> None:
    found = {one.name: one for kind in ("techniques", "metrics") for one in entry_points(group=f"eval_unlearn.{kind}")}
    assert found["concept_erasure"].load() is ErasureTechnique
    assert found["toy_judge"].load() is ToyJudgeMetric


def test_the_number_falls(measured) -> None:
    before, after = measured(UNEDITED), measured(CAT)
    assert before["metric_result"]["value"] >= 0.9 and after["metric_result"]["value"] <= 0.1
    assert after["erase_concept"] == "cat" and after["dataset_metadata"]["total_loaded"] == 24


def test_a_metric_from_outside(judge, tmp_path: Path) -> None:
    """Registered as the benchmark's documents say, with its own types, and run beside ours."""
    from eval_unlearn.registry import register_metric
    from eval_unlearn.runners import MultiBenchmarkRunner
    from eval_unlearn.types import Dataset, MetricResult

    @register_metric("still_shown")
    class StillShown:
        def __init__(self, concept: str):
            self.concept, self.seen = concept, []

        def load_dataset(self):
            return [Dataset([f"a {self.concept} on a {colour} background"] * 4) for colour in ("red", "blue")]

        def update(self, images, prompts, metadata):
            self.seen += judge.judge(torch.stack([as_tensor(image) for image in images])).objects

        def compute(self):
            return MetricResult("still shown", self.seen.count(self.concept) / len(self.seen))

    metrics = {"still_shown": {"concept": "dog"}, "toy_judge": {"concept": "cat", "pictures": 12}}
    runner = MultiBenchmarkRunner("concept_erasure", list(metrics), CAT, metrics, str(tmp_path))
    results = runner.run()["metric_results"]
    assert results["still_shown"]["value"] >= 0.8, "the dog was not erased"
    assert results["toy_judge"]["value"] <= 0.1


def test_its_page(tmp_path: Path) -> None:
    """The configuration and the command, word for word."""
    page = (ROOT / "docs" / "eval-unlearn.md").read_text(encoding="utf-8")
    (config,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"^    eval-unlearn (.*)$", page, re.MULTILINE)
    (tmp_path / "benchmark.json").write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "eval_unlearn.cli", *command.split()],
        cwd=tmp_path, capture_output=True, text=True, timeout=600, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "results" / "concept_erasure_cat_latest_report.json").read_text())
    assert report["metric_results"]["toy_judge"]["value"] <= 0.05
    assert len(list(tmp_path.glob("results/*/images/*.png"))) == 48
