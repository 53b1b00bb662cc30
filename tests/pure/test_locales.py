"""locales/: English is what the nodes say, the other languages have the same keys, and the frontend can read all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import make_locales
import pytest

LOCALES = Path(__file__).resolve().parents[2] / "locales"
LANGUAGES = ("en", "zh", "ja", "de")
FILES = ("main.json", "nodeDefs.json", "settings.json")
SCRIPTS = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]"}


@pytest.fixture(scope="module")
def generated() -> dict[str, dict[str, Any]]:
    return make_locales.locales()


def written(name: str) -> dict[str, Any]:
    return json.loads((LOCALES / name).read_text(encoding="utf-8"))


def keys(texts: dict[str, Any], before: str = "") -> set[str]:
    """The dotted keys of all texts."""
    found = set()
    for key, value in texts.items():
        found |= {before + key} if isinstance(value, str) else keys(value, f"{before}{key}.")
    return found


def test_files_are_those_of_the_languages(generated: dict) -> None:
    there = {path.relative_to(LOCALES).as_posix() for path in LOCALES.rglob("*.json")}
    assert there == set(generated) == {f"{language}/{file}" for language in LANGUAGES for file in FILES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_files_are_what_the_tool_makes_of_the_nodes(generated: dict, language: str) -> None:
    stale = [file for file in FILES if written(f"{language}/{file}") != generated[f"{language}/{file}"]]
    assert stale == [], "run tools/make_locales.py"


@pytest.mark.parametrize("file", FILES)
def test_keys_are_the_same_in_every_language(file: str) -> None:
    english = keys(written(f"en/{file}"))
    for language in LANGUAGES[1:]:
        assert keys(written(f"{language}/{file}")) == english


def test_every_node_has_its_name_its_description_and_every_input(generated: dict) -> None:
    for schema in make_locales.schemas():
        node = generated["en/nodeDefs.json"][schema.node_id]
        assert node["display_name"] and node["description"]
        assert set(node.get("inputs", {})) == {one.id for one in getattr(schema, "inputs", ())}
        assert all({"name", "tooltip"} <= set(one) for one in node.get("inputs", {}).values()), schema.node_id


def test_every_setting_has_its_name_and_tooltip(generated: dict) -> None:
    ids = re.findall(r'"(ConceptErasure\.\w+)"$', (LOCALES.parent / "web/settings.js").read_text("utf-8"), re.M)
    assert set(generated["en/settings.json"]) == {one.replace(".", "_") for one in ids} != set()


def test_every_text_has_an_entry_in_every_language() -> None:
    used = set(make_locales.used_texts())
    for language, known in make_locales.translations().items():
        assert used - set(known) == set(), f"run tools/make_locales.py, and translate into {language} what you can"


@pytest.mark.parametrize("language", SCRIPTS)
def test_nearly_all_sentences_are_in_the_language(language: str) -> None:
    """A few new ones may wait for somebody who speaks it."""
    known = make_locales.translations()[language]
    sentences = [text for text in make_locales.used_texts() if text.endswith(".")]
    english = [text for text in sentences if not re.search(SCRIPTS[language], known[text])]
    assert len(sentences) > 150 and len(english) <= 0.05 * len(sentences), english


def test_what_a_language_lacks_is_added_in_english_and_nothing_is_lost() -> None:
    known = {"a cat": "eine Katze", "a dog": "ein Hund"}
    assert make_locales.completed(known, ["a lion", "a cat"], prune=False) == {"a lion": "a lion", **known}
    assert make_locales.completed(known, ["a lion", "a cat"], prune=True) == {"a lion": "a lion", "a cat": "eine Katze"}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_translations_keep_what_is_typed_or_chosen(language: str) -> None:
    """Numbers, placeholders for the date, and preset names in quotes stand in the translation as well."""
    typed = re.compile(r"%\w+%|\d+ x \d+|'(?:general|several|many|custom|auto|object|style|before|->)'|output/[\w-]+")
    for text, translated in make_locales.translations()[language].items():
        assert [word.strip("'") for word in typed.findall(text) if word.strip("'") not in translated] == [], text


def test_special_characters_are_literals_for_the_frontend() -> None:
    assert make_locales.message("{cat|dog} @ 1") == "{'{'}cat{'|'}dog{'}'} {'@'} 1"
    for path in LOCALES.rglob("*.json"):
        for text in make_locales.leaves(json.loads(path.read_text(encoding="utf-8"))):
            assert not make_locales.SPECIAL.search(re.sub(r"\{'[{}@|]'\}", "", text)), text
