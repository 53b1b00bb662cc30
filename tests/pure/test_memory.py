"""What training needs of memory: counted, told, and refused when it is not there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pure.fakes import FakeModel, digest
from pure.learned import METHODS, run_abo, run_doco, run_few_shot
from torch import nn

from erasure_core.devices import free_memory
from erasure_core.training import memory
from erasure_core.training.memory import OutOfRoomError, activation_bytes, activation_bytes_at


def test_what_a_pass_keeps_is_counted_once_and_without_weights() -> None:
    """Of x, a ReLU and two layers that read its output autograd keeps that output; x is a leaf, as weights are."""
    x = torch.randn(10, 8, requires_grad=True)
    one, two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward() -> torch.Tensor:
        shown = one(x).relu()
        return two(shown) + two(shown)

    assert activation_bytes(forward) == 10 * 8 * 4


@pytest.mark.parametrize("size", [(8, 8), (16, 12), (64, 64), (96, 64)])
def test_what_a_large_pass_keeps_is_told_from_small_ones(size: tuple[int, int]) -> None:
    net = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU())
    net.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(16, 64)).append(nn.SiLU())

    def forward(height: int, width: int) -> torch.Tensor:
        return net(torch.zeros(1, 4, height, width))

    assert activation_bytes_at(forward, *size) == pytest.approx(activation_bytes(lambda: forward(*size)), rel=1e-3)


@METHODS
def test_too_little_memory_is_said_before_anything_is_trained(run: Callable) -> None:
    model, told = FakeModel(), []
    model.free = 1000
    before = digest(model.weights), digest(model.text)
    with pytest.raises(OutOfRoomError, match=r"needs about .* GB beyond the model and 0\.0 GB are free") as caught:
        run(model, callback=lambda done, total, what: told.append(what))
    assert f"{caught.value.needed / 1e9:.1f} GB beyond" in told[-1] and caught.value.needed > 1000
    assert "needs about" in told[-1] and not [what for what in told if "loss" in what]
    assert (digest(model.weights), digest(model.text)) == before


@METHODS
def test_enough_memory_is_said_and_training_goes_on(run: Callable) -> None:
    model, told = FakeModel(), []
    model.free = 2 * 10**9
    erasure = run(model, callback=lambda done, total, what: told.append(what))
    assert any("2.0 GB are free" in what for what in told) and erasure.deltas
    assert not any("free" in what for what in told_by(run, FakeModel()))


def told_by(run: Callable, model: FakeModel, **settings) -> list[str]:
    told: list[str] = []
    run(model, callback=lambda done, total, what: told.append(what), **settings)
    return told


@pytest.mark.parametrize("batch_size", [1, 4])
def test_few_shot_needs_room_for_one_latent_whatever_the_batch(monkeypatch, batch_size: int) -> None:
    monkeypatch.setattr(memory, "GB", 1.0)
    needed = []
    for kept in (0.0, 1000.0):
        monkeypatch.setattr(memory, "activation_bytes_at", lambda forward, height, width, kept=kept: kept)
        (told,) = [what for what in told_by(run_few_shot, FakeModel(), batch_size=batch_size) if "needs about" in what]
        needed.append(float(told.split()[3]))
    assert needed[1] - needed[0] == 1000


def test_rank_and_gradient_checkpointing_need_less(monkeypatch) -> None:
    needed: list[float] = []
    monkeypatch.setattr(memory, "GB", 1.0)
    monkeypatch.setattr(memory, "activation_bytes_at", lambda forward, height, width: 1000.0)

    def note(done: int, total: int, what: str) -> None:
        if "needs about" in what:
            needed.append(float(what.split()[3]))

    for run, preserve, latents in ((run_abo, {}, 8), (run_abo, {"preserve": ["bird"]}, 12), (run_doco, {}, 4)):
        needed.clear()
        for more in ({}, {"rank": 1}, {"gradient_checkpointing": True}):
            run(FakeModel(), callback=note, **preserve, **more)
        whole, low, spared = needed
        assert low < whole and whole - spared == 1000 * (latents - 1)  # of four, each with all its prompts


def test_free_memory() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or 0 < free < 1 << 50
    assert free_memory(torch.device("meta")) is None
