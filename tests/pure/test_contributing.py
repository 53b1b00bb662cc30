"""CONTRIBUTING.md and docs/architecture.md are so: what they name exists, and their recipes, followed, work."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pure import test_methods
from pure.fakes import FakeModel, TwoTowers

from erasure_core import UnsupportedModelError, methods, rece
from erasure_core.audit import attacks, red_team
from erasure_core.commands.main import _parser
from erasure_core.methods import METHODS
from erasure_core.methods.method import Method

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACK = "pack_that_grows"

pages = pytest.mark.parametrize("page", PAGES)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pages
def test_the_files_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:erasure_core|nodes|tests|tools|web|docs)/[\w/.]*)`", text_of(page))
    assert len(named) > 20 and [path for path in named if not (ROOT / path).exists()] == []


@pages
def test_the_names_behind_a_file_are_in_it(page: str) -> None:
    """Where a page writes a file, and in brackets behind it names in it."""
    places = re.findall(r"`([\w/]+\.py)`\s+\(((?:`\w+`(?:, )?)+)\)", text_of(page))
    assert len(places) > 5
    for path, names in places:
        source = text_of(path)
        missing = [name for name in re.findall(r"\w+", names) if not re.search(rf"\b{name}\b", source)]
        assert missing == [], path


def test_every_target_of_make_is_explained() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", GUIDE)) == targets


@pytest.mark.parametrize("page", ["README.md", "pyproject.toml"])
def test_it_is_linked_to(page: str) -> None:
    assert "CONTRIBUTING.md" in text_of(page)


def example(heading: str) -> str:
    """The code of a recipe."""
    _, _, section = GUIDE.partition(f"\n## {heading}\n")
    fenced = re.search(r"^ *```python\n(.*?)^ *```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    assert fenced
    return textwrap.dedent(fenced[1])


def module_of(folder: Path, package: ModuleType, name: str, heading: str) -> ModuleType:
    """A recipe's code as a module of a package."""
    file = folder / f"{name}.py"
    file.write_text(example(heading), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"{package.__name__}.{name}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Method:
    """The method of the recipe, in the list of all methods."""
    monkeypatch.setitem(sys.modules, f"{methods.__name__}.fade", ModuleType("fade"))  # dataclasses look it up
    method = module_of(tmp_path, methods, "fade", "Add a method").METHOD
    monkeypatch.setitem(METHODS, "fade", method)
    return method


class Textless(FakeModel):
    """Where no linear layer reads text."""

    def text_entries(self):
        return {}


def test_a_method_is_a_file_with_what_it_is(fade: Method) -> None:
    """The list and the command line are held by ``test_new_method.py``."""
    model = FakeModel()
    erasure = fade.run(model, "cat")
    assert erasure.origins[0].method == fade.name == "fade" and erasure.origins[0].settings == {"share": 0.1}
    for name, delta in erasure.deltas.items():
        torch.testing.assert_close(delta.dense(), -0.1 * model.weights[name])
    with pytest.raises(ValueError, match="share must be a finite number above 0 and at most 1, got 2.0"):
        fade.settings(share=2.0)
    with pytest.raises(UnsupportedModelError, match="no linear layer of the model reads text"):
        fade.run(Textless(), "cat")


def test_it_keeps_what_every_method_promises(fade: Method, tmp_path: Path) -> None:
    values = {"name": "fade", "kind": TwoTowers, "concept": "", "preset": "object", "tmp_path": tmp_path}
    kept = []
    for promise in [one for name, one in vars(test_methods).items() if name.startswith("test_")]:
        taken = inspect.signature(promise).parameters
        if set(taken) <= set(values):
            promise(**{name: values[name] for name in taken})
            kept.append(promise.__name__)
    assert len(kept) > 9


def test_an_attack_is_a_file_and_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capitals = module_of(tmp_path, attacks, "capitals", "Add an attack")
    entry = attacks.Attack((capitals.by_capitals,), "the name in capitals", "the name")
    monkeypatch.setitem(attacks.ATTACKS, "capitals", entry)

    model = FakeModel()
    edited = rece(model, "cat").over(model)
    pictures = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    result = red_team.attack(
        model, edited, "cat", attacks=["capitals"], images=pictures, pictures=2, sampling_steps=3
    )  # fmt: skip
    assert [one.attack for one in result.attempts] == ["name", "capitals"]
    assert all("CAT" in prompt for prompt in result.attempts[1].prompts) and len(result.attempts[1].images) >= 2
    command = ["attack", "--model", "toy", "--erasure", "e.safetensors", "--out", "audit", "--attack", "capitals"]
    assert _parser().parse_args(command).attack == ["capitals"]


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The pack on the stand-in for ComfyUI, where a folder holds more nodes."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "stand_in"))
    for name, folders in ((PACK, [ROOT]), (f"{PACK}.nodes", [ROOT / "nodes", tmp_path])):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules[name].__path__ = [str(folder) for folder in folders]
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in (PACK, "comfy", "comfy_api", "folder_paths"):
            del sys.modules[name]


def test_a_node_is_a_class(growing: Path) -> None:
    (growing / "concepts.py").write_text(example("Add a node"), encoding="utf-8")
    node = importlib.import_module(f"{PACK}.nodes.concepts").ErasureConcepts
    core = importlib.import_module(f"{PACK}.erasure_core")
    assert node.define_schema().node_id == node.__name__
    erasure = core.Erasure({}, (core.Origin("test", (core.Concept("cat"), core.Concept("dog", "fox")), {}, "0" * 16),))
    assert node.execute(erasure).result == ("cat\ndog -> fox",)
    with pytest.raises(ValueError, match="erasure is missing: connect a ERASURE"):
        node.execute(None)


def node_classes() -> dict[str, str]:
    """The classes of all nodes, with their display names."""
    classes = {}
    for path in sorted(ROOT.glob("nodes/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "io.ComfyNode" in map(ast.unparse, node.bases):
                (shown,) = re.findall(r"display_name='([^']+)', category", ast.unparse(node))
                (known,) = re.findall(r"node_id='(\w+)'", ast.unparse(node))
                assert known == node.name
                classes[node.name] = shown
    return classes


@pytest.mark.parametrize(("name", "shown"), node_classes().items())
def test_every_node_is_where_the_list_says(name: str, shown: str) -> None:
    _, _, listed = text_of("nodes/__init__.py").partition("def get_node_list")
    assert re.search(rf"\b{name}\b", listed)
    assert text_of(f"web/docs/{name}.md").startswith(f"# {shown}\n")
    _, _, table = text_of("docs/comfyui.md").partition("| node |")
    assert shown.removesuffix(" (Erasure)") in table.partition("\n\n")[0]
    assert f'"{name}"' in text_of("tests/host/test_nodes.py")


def test_every_extra_is_explained() -> None:
    _, _, listed = text_of("pyproject.toml").partition("[project.optional-dependencies]")
    extras = re.findall(r"^(\w+) = \[", listed.partition("\n[")[0], re.MULTILINE)
    paragraph = GUIDE.partition("lists as extras")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", paragraph)) == set(extras)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("erasure_core/methods/rece.py", r"^    ridge: float = setting\("),
        ("erasure_core/concepts/common.py", "^COMMON"),
        ("erasure_core/concepts/prompt_length.py", "tokens long"),
        ("erasure_core/families/unets.py", "LoraKeys"),
        ("erasure_core/families/transformers.py", "diffusion_model"),
        ("nodes/comfy_host/progress.py", "ProgressBar"),
        ("erasure_core/sampling/ddim.py", "^def ddim"),
        ("erasure_core/training/gan.py", "^def adversarial_loss"),
        ("erasure_core/concepts/lists.py", "csv.reader"),
        ("erasure_core/diffusers/unsupported.py", "unquantised"),
        ("nodes/comfy_host/weights.py", "is quantised"),
    ],
)
def test_where_is_what_the_table_says(path: str, pattern: str) -> None:
    _, _, table = text_of("docs/architecture.md").partition("## Where is ...?")
    assert f"`{path}`" in table and re.search(pattern, text_of(path), re.MULTILINE)
