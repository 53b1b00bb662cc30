"""What is done again and again leaves no tensor behind."""

from __future__ import annotations

import pytest
import torch
from pure.fakes import FakeModel
from pure.live import leaves_nothing, small_run

from erasure_core import Erasure, rece
from erasure_core.audit.attacks import ATTACKS
from erasure_core.audit.compare import compare
from erasure_core.audit.red_team import attack
from erasure_core.audit.report import report
from erasure_core.audit.report_sheet import report_sheet
from erasure_core.closed_form.collect import gather_statistics
from erasure_core.closed_form.statistics_file import load_statistics, save_statistics
from erasure_core.closed_form.update import updated
from erasure_core.methods import METHODS
from erasure_core.methods.rece import ReceSettings, erase_statistics
from erasure_core.sampling.purify import purify
from erasure_core.training.memory import activation_bytes

IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(9))
SEARCHES = ("inversion", "discrete")  # need a table of words, which this model has not: see the toy tier


class Curved(FakeModel):
    """Whose backward pass needs what it put out, as that of any real one does."""

    def predict_noise(self, latents, timesteps, context):
        return super().predict_noise(latents, timesteps, context).tanh()


@pytest.fixture
def model() -> FakeModel:
    return Curved(tokens=16)


def test_a_leak_is_seen() -> None:
    left: list[torch.Tensor] = []
    with pytest.raises(AssertionError, match="3 tensors and 24 bytes were left alive"):
        leaves_nothing(lambda: left.append(torch.zeros(2)))


def test_a_graph_that_was_counted_is_let_go() -> None:
    x = torch.randn(10, 8, requires_grad=True)
    leaves_nothing(lambda: activation_bytes(lambda: (x.relu() @ x.T).sigmoid().exp()))


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, model: FakeModel) -> None:
    leaves_nothing(lambda: small_run(method, model, IMAGES))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_when_it_is_cancelled(method: str, model: FakeModel) -> None:
    def cancel(done: int, total: int, what: str) -> None:
        if "needs about" not in what:
            raise InterruptedError

    def act() -> None:
        with pytest.raises(InterruptedError):
            small_run(method, model, IMAGES, callback=cancel)

    leaves_nothing(act)


def test_files(model: FakeModel, tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    leaves_nothing(lambda: Erasure.load(rece(model, "cat -> dog").save(path, overwrite=True)).over(model))


def test_statistics(model: FakeModel, tmp_path) -> None:
    def act() -> None:
        found = gather_statistics(model, "cat -> dog\nred fish", ["bird"])
        path = save_statistics(found, tmp_path / "s.safetensors", overwrite=True)
        found = updated(load_statistics(path), model, restore=["cat"])
        erase_statistics(model, found, ReceSettings(loops=1, regularization=1e-3))

    leaves_nothing(act)


def test_audits(model: FakeModel) -> None:
    erasure = rece(model, "cat -> dog")
    among = ("cow", "fish", "in the style of goya", "in the style of monet")

    def act() -> None:
        found = report(model, erasure, "cat", among=among, seeds=range(2), count=1, steps=2)
        report_sheet(found)
        compare(model, {"one": erasure}, ["a cat"], steps=2, difference=True)
        purify(model, erasure, IMAGES, steps=2)

    leaves_nothing(act)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in SEARCHES])
def test_attacks(name: str, model: FakeModel) -> None:
    erasure = rece(model, "cat -> dog")
    settings = {"attacks": [name], "prompts": ["kitten"], "images": IMAGES, "sampling_steps": 4}
    leaves_nothing(lambda: attack(model, erasure.over(model), "cat", **settings).picture())
