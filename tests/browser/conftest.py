"""A page of a running ComfyUI in Debian's Chromium, drawn classically and, where the host has it, by Nodes 2.0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from comfy_page import COMFYUI, FRONTEND, ComfyPage, is_newer, version
from comfy_server import ROOT, ComfyServer
from get_chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SHOTS = Path(os.environ.get("ERASURE_SCREENSHOTS") or ROOT / "build" / "screenshots")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.host)
            item.add_marker(pytest.mark.browser)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "renderer" in metafunc.fixturenames:
        there = (COMFYUI / "main.py").is_file()  # where it is not, other tests are collected beside these
        both = there and (FRONTEND or is_newer())
        metafunc.parametrize("renderer", ["classic", "vue"] if both else ["classic"], scope="session")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    frontend = ("--front-end-root", FRONTEND) if FRONTEND else ()
    with ComfyServer(COMFYUI, tmp_path_factory.mktemp("comfyui"), *frontend) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # of the extra "browser", which other tests do without

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def opened(server: ComfyServer, browser: Browser, renderer: str) -> Iterator[ComfyPage]:
    name = f"{version()}-{renderer}{'-other-frontend' if FRONTEND else ''}"
    page = ComfyPage(server, browser, renderer, SHOTS / name)
    yield page
    page.close()


@pytest.fixture
def comfy(opened: ComfyPage) -> Iterator[ComfyPage]:
    """The page, empty and at rest; what it printed as an error of ours fails the test."""
    opened.clear()
    yield opened
    opened.server.cancel_all()
    errors = [one for one in opened.errors if "erasure" in one.lower() and "PromptExecutionError" not in one]
    assert not errors, errors
