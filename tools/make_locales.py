"""Write locales/<language>/ from what the nodes say of themselves and from tools/translations/<language>.json.

    python tools/make_locales.py            # after a change of names, descriptions or tooltips
    python tools/make_locales.py --prune    # also forgets translations that nothing uses any more

A translation maps an English text to that of the language. Texts that a language lacks are added to its file in English
and printed: translate them there, or leave them to somebody who can. ComfyUI reads locales/ when it starts.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TRANSLATIONS, LOCALES = ROOT / "tools" / "translations", ROOT / "locales"
TYPES = {"ERASURE": "ERASURE", "ERASURE_STATISTICS": "erasure statistics"}
SPECIAL = re.compile(r"[{}@|]")  # has a meaning in the messages of vue-i18n, which ComfyUI's frontend uses
SETTING = re.compile(r'"(ConceptErasure\.\w+)": \{\s*name: "(.+?)",\s*tooltip: "(.+?)",')

Texts = dict[str, Any]
"""A JSON object whose leaves are texts."""


def schemas() -> list[Any]:
    """Return the schemas of all nodes, on the tests' stand-in for ComfyUI."""
    sys.path.insert(0, str(ROOT / "tests"))
    from pure.whole_pack import comfyui, load

    with tempfile.TemporaryDirectory() as folder, comfyui(Path(folder)):
        return [node.define_schema() for node in load(ROOT)]


def english(nodes: list[Any]) -> dict[str, Texts]:
    """Return the English texts by file: of ``nodes``, of their categories, and of the settings."""
    parts = {part for node in nodes for part in node.category.split("/")}
    main = {"nodeCategories": {part: part for part in sorted(parts)}, "dataTypes": TYPES}
    return {"main": main, "nodeDefs": {node.node_id: _node(node) for node in nodes}, "settings": _settings()}


def _settings() -> Texts:
    """Return the texts of web/settings.js, by the ids that vue-i18n can hold."""
    found = SETTING.findall((ROOT / "web" / "settings.js").read_text(encoding="utf-8"))
    return {name.replace(".", "_"): {"name": label, "tooltip": tooltip} for name, label, tooltip in found}


def _node(node: Any) -> Texts:
    texts = {"display_name": node.display_name, "description": getattr(node, "description", "")}
    texts["inputs"] = {one.id: _socket(one, one.id) for one in getattr(node, "inputs", ())}
    outputs = (_socket(one, getattr(one, "display_name", "")) for one in getattr(node, "outputs", ()))
    texts["outputs"] = {str(place): one for place, one in enumerate(outputs) if one}
    return {key: text for key, text in texts.items() if text}


def _socket(socket: Any, name: str) -> Texts:
    texts = {"name": getattr(socket, "display_name", "") or name, "tooltip": getattr(socket, "tooltip", "")}
    return {key: text for key, text in texts.items() if text}


def leaves(texts: Texts) -> Iterator[str]:
    """Yield all texts, in order."""
    for value in texts.values():
        yield from [value] if isinstance(value, str) else leaves(value)


def mapped(texts: Texts, change: Callable[[str], str]) -> Texts:
    """Return the same object with each text changed."""
    return {key: change(value) if isinstance(value, str) else mapped(value, change) for key, value in texts.items()}


def message(text: str) -> str:
    """Return a text as a message of vue-i18n, with its special characters as literals."""
    return SPECIAL.sub(lambda found: f"{{'{found[0]}'}}", text)


def translations() -> dict[str, dict[str, str]]:
    """Return the translations by language."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(TRANSLATIONS.glob("*.json"))}


def locales() -> dict[str, Texts]:
    """Return the content of every file, by its path below locales/."""
    files = english(schemas())
    languages = {"en": {}, **translations()}
    return {
        f"{language}/{name}.json": mapped(texts, lambda text, known=known: message(known.get(text, text)))
        for language, known in languages.items()
        for name, texts in files.items()
    }


def used_texts() -> list[str]:
    """Return every English text once, in the order of the nodes."""
    return list(dict.fromkeys(text for texts in english(schemas()).values() for text in leaves(texts)))


def completed(known: dict[str, str], used: list[str], prune: bool) -> dict[str, str]:
    """Return the translations with what they lack in English; those without a use come last, or are left out."""
    unused = {} if prune else {text: known[text] for text in known if text not in used}
    return {text: known.get(text, text) for text in used} | unused


def as_json(texts: Texts) -> str:
    return json.dumps(texts, ensure_ascii=False, indent=2) + "\n"


def main() -> None:
    used = used_texts()
    for language, known in translations().items():
        for text in used:
            if text not in known:
                print(f"{language} lacks: {text}")
        path = TRANSLATIONS / f"{language}.json"
        path.write_text(as_json(completed(known, used, "--prune" in sys.argv)), encoding="utf-8")
    for name, texts in locales().items():
        path = LOCALES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_json(texts), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
