"""What pages and docstrings say of the project is so: files and names exist, numbers are those of the code."""

from __future__ import annotations

import ast
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean

import pytest

from erasure_core.commands.main import _parser
from erasure_core.erasures.erasure import MOST_BYTES
from erasure_core.methods import abo, doco, few_shot, rece
from erasure_core.toy.captions import STYLES

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "web", "erasure_core", "nodes", "tools", "benchmarks", "tests", "workflows")
ENDINGS = ("md", "py", "png", "json", "safetensors", "txt")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("web/docs/*.md"))]
SOURCES = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/**/*.py"))]
HERE = Path(__file__)
WRITTEN = {"demo.md"}  # by commands, where the user says


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths if path != HERE]


def told(path: Path) -> str:
    """What is written for people: a page, or the docstrings and comments of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, nodes)]
    return "\n".join([*found, *re.findall(r"#\s.*", text)])


def test_files_that_are_named_exist() -> None:
    file = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*\.(?:{'|'.join(ENDINGS)}))\b")
    card = ROOT / "erasure_core/toy/CARD.md"
    known = {path.name for path in [*PAGES, card]} | WRITTEN
    missing = set()
    for name in relative([*PAGES, *SOURCES, ROOT / "Makefile", card]):
        text = told(ROOT / name)
        missing |= {(name, path) for path in file.findall(text) if not (ROOT / path).exists()}
        missing |= {(name, page) for page in re.findall(r"(?<![\w./*-])([\w-]+\.md)\b", text) if page not in known}
    assert missing == set()


@pytest.mark.parametrize("name", relative(PAGES))
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings], link


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [
        path.name for path in ROOT.glob("docs/*.md") if path.name != "README.md" and f"]({path.name})" not in index
    ] == []


@pytest.mark.parametrize("name", relative(PAGES))
def test_names_of_the_library_exist(name: str) -> None:
    for dotted in set(re.findall(r"\berasure_core((?:\.\w+)+)", (ROOT / name).read_text(encoding="utf-8"))):
        parts, place = dotted.strip(".").split("."), ROOT / "erasure_core"
        while parts and ((place / parts[0]).is_dir() or (place / f"{parts[0]}.py").exists()):
            place = place / parts.pop(0)
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        assert not parts or re.search(rf"\b{parts[0]}\b", source.read_text(encoding="utf-8")), f"erasure_core{dotted}"


def commands() -> list[str]:
    """Command lines of the pages' code blocks."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        found += re.findall(r"-m erasure_core ([a-z][^\n`#]*)", text)
    return found


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    _parser().parse_args(shlex.split(command))


def test_there_are_commands_and_pages() -> None:
    assert len(commands()) > 10 and len(PAGES) > 20 and len(SOURCES) > 100


def page(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def numbers(name: str, pattern: str) -> list[float]:
    """The groups of the only place of a page that says so."""
    (found,) = re.findall(pattern, page(name))
    return [float(one) for one in ([found] if isinstance(found, str) else found)]


def test_numbers_of_presets() -> None:
    ours, toy = rece.RECE, doco.TOY_DOCO
    further = [ours["object"].amplification, ours["style"].amplification]
    assert numbers("docs/method.md", r"`a` = ([\d.]+) in `object`, and ([\d.]+) in `general` and in `style`") == further
    default = ours["general"]
    chosen = [default.regularization, default.amplification, default.relative_ridge]
    pattern = r"regularization ([\d.]+), amplifies the edit ([\d.]+) times and has a relative ridge of ([\d.]+)"
    assert numbers("docs/results-methods.md", pattern) == chosen
    assert default.amplification == ours["style"].amplification
    assert numbers("docs/method.md", r"lam = 0.1 \+ r u` with `r` = ([\d.]+)") == [default.relative_ridge]
    assert default.relative_ridge == ours["several"].relative_ridge
    assert numbers("docs/method.md", r"So `several` has (\d\.\d)") == [ours["several"].amplification]
    weight = [ours["object"].regularization]
    assert numbers("docs/method.md", r"styles and hard objects \(([\d.]+)\) for objects") == weight
    many = re.findall(r"\*\*names only, ([\d.]+)\*\* \(preset `many`\)", page("docs/method.md"))
    assert {float(one) for one in many} == {ours["many"].amplification}
    share = numbers("docs/method.md", r"a share `exactness` of their norm, ([\d.]+) % by default")
    assert share == [100 * ours["object"].exactness]
    assert numbers("docs/learned.md", r"presets for the toy have (\d+)") == [few_shot.TOY_FEW_SHOT["published"].growth]
    assert numbers("docs/learned.md", r"The toy's presets have\s(\d+) steps") == [toy["object"].steps]
    focus = [abo.ABO["object"].focus, abo.ABO["style"].focus]
    assert numbers("docs/learned.md", r"a focus of ([\d.]+) for objects and of ([\d.]+) for styles") == focus
    assert "(half of the steps as published)" in page("web/docs/ErasureDoCo.md")
    assert doco.DOCO["published"].warm_up == 0.5


def cells(page: str, name: str) -> list[str]:
    """The cells of the first row of a page's tables whose name begins so, without stars."""
    lines = (ROOT / page).read_text(encoding="utf-8").replace("**", "").splitlines()
    _, *found = next(line for line in lines if line.startswith(f"| {name}")).strip("| ").split("|")
    return found


def whole(cell: str) -> int:
    """The first number of a cell, rounded."""
    (number, *_) = re.findall(r"[+-]?\d+(?:\.\d+)?", cell)
    return round(float(number))


@pytest.mark.parametrize(
    ("readme", "result"),
    [
        ("RECE, default, an object", "mean of objects"),
        ("RECE, default, a style", "mean of styles"),
        ("RECE, preset `several`", "mean, nothing listed"),
    ],
)
def test_results_of_the_default_are_those_measured(readme: str, result: str) -> None:
    measured = list(map(whole, cells("docs/results-general.md", result)))
    assert list(map(whole, cells("README.md", readme))) == measured


def test_results_of_few_shot_are_the_means_of_its_rows() -> None:
    text = (ROOT / "docs/results-few-shot.md").read_text(encoding="utf-8")
    table = text.partition("### with a replacement")[2].partition("###")[0]
    rows = [line.strip("| ").split("|") for line in table.splitlines() if "seed" in line]
    for readme, styles in (
        ("few-shot with a replacement, an object", False),
        ("few-shot with a replacement, a style", True),
    ):
        chosen = [one for one in rows if (one[0].split()[0] in STYLES) == styles]
        changes = [[float(re.findall(r"\(([+-]\d+)", cell)[0]) for cell in one[2:]] for one in chosen]
        means = [fmean(whole(one[1]) for one in chosen), *map(fmean, zip(*changes, strict=True))]
        assert list(map(whole, cells("README.md", readme))) == [round(mean) for mean in means]
        assert f"({ {4: 'four', 6: 'six'}[len(chosen)] })" in (ROOT / "README.md").read_text().partition(readme)[2][:8]


def test_where_changes_become_float16() -> None:
    assert numbers("docs/method.md", r"Changes of more than ([\d.]+) GiB in float32") == [MOST_BYTES / 2**30]
    told_again = [name for name in relative(PAGES) if re.search(r"\d [MG]i?B in float32", page(name))]
    assert told_again == ["docs/method.md"]


def test_what_nodes_say_of_models_stands_once() -> None:
    said = {
        path.name: [node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if is_text(node)]
        for path in ROOT.glob("nodes/*.py")
    }
    kinds = re.compile(r"\b1\.x, (SD )?2\.x")
    assert [name for name, texts in said.items() if any(kinds.search(text) for text in texts)] == ["inputs.py"]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_what_commands_of_the_pages_leave_is_ignored_by_git() -> None:
    words = shlex.split(" ".join(commands()))
    options = {"--out", "--save-statistics", "--images", "--concepts", "--prompts"}
    named = {word.split(":")[0] for option, word in zip(words, words[1:], strict=False) if option in options}
    named |= {"results", *re.findall(r"run --config (\S+)", page("docs/eval-unlearn.md"))}
    ignored = [one.strip("/") for one in (ROOT / ".gitignore").read_text().splitlines()]
    left = {name for name in named if not name.isdigit() and not any(fnmatch(name, one) for one in ignored)}
    assert len(named) > 12 and left == set()
