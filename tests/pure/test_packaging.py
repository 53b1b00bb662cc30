"""How the pack reaches its users: the folder in custom_nodes, the registry's entry and archive, what pip installs."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import draw_icon
import get_comfyui
import pytest
import torch
from PIL import Image
from pure.whole_pack import comfyui, load

from erasure_core.commands.main import _parser
from erasure_core.erasures.erasure_record import __version__
from erasure_core.files.images import as_tensor

ROOT = Path(__file__).resolve().parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
FOLDERS = ("nodes", "erasure_core", "web", "workflows", "locales")
SHIPPED = (*FOLDERS, "__init__.py", "pyproject.toml", "README.md", "LICENSE")
START_UP = """
import sys, time
sys.path[:0] = ["tests", "."]
from pathlib import Path
import numpy, PIL.Image, torch, comfy.sd
from pure.whole_pack import comfyui, load
with comfyui(Path(".")):
    began, before = time.process_time(), set(sys.modules)
    load(Path.cwd())
    print(time.process_time() - began, *{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def copy_of_the_pack(folder: Path) -> Path:
    """Only the folders and files that loading needs, as links."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "__init__.py", folder)
    for name in ("nodes", "erasure_core", "web"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("name", ["comfyui-concept-erasure-main", "Concept Erasure (1)", "erasure.v0.1.0", "消去"])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = copy_of_the_pack(tmp_path / "custom_nodes" / name)
    with comfyui(tmp_path):
        assert "ErasureRECE" in [node.__name__ for node in load(folder)]


def test_a_second_copy_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    registered: dict[str, type] = {}
    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(NODE_CLASS_MAPPINGS=registered))
    first, second = (copy_of_the_pack(tmp_path / "custom_nodes" / name) for name in ("a", "b"))
    with comfyui(tmp_path), caplog.at_level(logging.WARNING):
        registered |= {node.__name__: node for node in load(first)}
        assert caplog.messages == []
        load(second)
    (message,) = caplog.messages
    assert f"there twice: {first} and {second}." in message and "delete one of the two folders" in message


def test_start_up_is_quick_and_brings_no_large_library() -> None:
    """CPU seconds beyond PyTorch, which ComfyUI has imported; the best of up to three, since machines are busy."""
    seconds = []
    while min(seconds, default=1.0) >= 0.3 and len(seconds) < 3:
        path = {"PYTHONPATH": str(ROOT / "tests" / "stand_in")}
        run = subprocess.run(
            [sys.executable, "-c", START_UP], cwd=ROOT, env=path, capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        first, *libraries = run.stdout.split()
        seconds.append(float(first))
        assert not {"transformers", "diffusers", "accelerate", "peft", "torchvision"} & set(libraries)
    assert min(seconds) < 0.3, seconds


def value(key: str) -> str:
    """The only string that pyproject.toml assigns to ``key``."""
    (text,) = re.findall(rf'^{re.escape(key)} = "([^"]*)"', PROJECT, re.MULTILINE)
    return text


def test_the_entry_in_the_registry() -> None:
    assert value("requires-comfyui") == ">=0.3.75" and "0.3.75" in (get_comfyui.__doc__ or "")
    assert {"DisplayName", "PublisherId", "Repository"} <= set(re.findall(r"^(\w+) = ", PROJECT, re.MULTILINE))
    for key in ("Icon", "Banner"):
        path = value(key).partition("/main/")[2]
        assert (ROOT / path).stat().st_size < 40_000


def test_versions_agree() -> None:
    assert value("version") == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "size"), [("icon", (400, 400)), ("banner", (1260, 540))])
def test_pictures_are_what_the_script_draws(name: str, size: tuple[int, int]) -> None:
    committed = Image.open(ROOT / "docs" / f"{name}.png").convert("RGB")
    drawn = getattr(draw_icon, name)().convert("RGB")
    assert committed.size == drawn.size == size
    assert torch.mean((as_tensor(committed) - as_tensor(drawn)).abs()) < 0.02, "fonts differ a little by version"


def test_one_page_names_every_place_of_the_owner() -> None:
    """The placeholder is filled in by one command, which misses no file."""
    page = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    sed -i 's/OWNER/your-name/g' (.*)$", page, re.MULTILINE)
    pages = [*ROOT.glob("*.*"), *ROOT.glob("docs/*.md"), *ROOT.glob("web/docs/*.md"), *ROOT.glob(".github/*/*.yml")]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in pages if path.is_file()}
    del texts["docs/publishing.md"]
    named = {name for name, text in texts.items() if "/OWNER" in text or '"OWNER"' in text}
    places = command.split()
    assert [name for name in named if not any(fnmatch(name, place) for place in places)] == []
    assert [place for place in places if not any(fnmatch(name, place) for name in named)] == []
    refusal = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert f"grep -rn OWNER {command.removesuffix('/*.md')}" in refusal


def ignored(path: str) -> bool:
    """Whether .comfyignore, of which every line is a path from the pack's folder, leaves a file out."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    rules = [line.strip("/") for line in lines if line and not line.startswith("#")]
    return any(fnmatch(path, rule) or path.startswith(f"{rule}/") for rule in rules)


def test_the_archive_holds_what_is_needed_and_no_tests() -> None:
    assert [name for name in SHIPPED if ignored(name) or ignored(f"{name}/a.py") or not (ROOT / name).exists()] == []
    assert ignored("tests/conftest.py") and ignored("tools/rooms.py") and ignored("docs/grid.png")
    for rule in (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()[1:]:
        assert rule.startswith("/") and list(ROOT.glob(rule.strip("/"))), rule


def test_pip_says_that_it_brings_no_nodes() -> None:
    page = (ROOT / value("readme")).read_text(encoding="utf-8")
    assert "The ComfyUI nodes are a folder" in " ".join(_parser().format_help().split())
    assert "does not install the ComfyUI nodes" in page and "](../" not in page and "](docs" not in page


def test_extensions_of_the_page_have_a_name_of_their_own() -> None:
    """Two packs that register one name break each other; comfy-test asks for the display name in front."""
    space = value("DisplayName").replace(" ", "").lower()
    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("web/*.js"))
    names = re.findall(r'registerExtension\(\{\s*name: "([^"]+)"', code)
    assert len(names) == code.count("registerExtension(") > 0 and all(name.startswith(f"{space}.") for name in names)
