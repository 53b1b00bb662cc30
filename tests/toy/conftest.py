"""One copy of the embedded model for the whole tier; every test leaves it as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from erasure_core.toy import Judge, load_toy

collect_ignore = [] if sys.version_info >= (3, 11) else ["test_eval_unlearn.py"]  # the benchmark needs Python 3.11


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.toy)


@pytest.fixture(scope="session")
def toy():
    return load_toy()


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture
def untouched(toy) -> Iterator[None]:
    """Fails when a test left another weight behind."""
    before = state(toy)
    yield
    assert state(toy) == before


def state(model) -> dict[str, tuple[int, float]]:
    """Identity and content of every parameter."""
    parts = {"unet": model.pipe.unet, "text_encoder": model.pipe.text_encoder, "vae": model.pipe.vae}
    return {
        f"{part}.{name}": (id(weight), float(weight.detach().double().sum()))
        for part, module in parts.items()
        for name, weight in module.named_parameters()
    }
