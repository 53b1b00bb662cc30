"""How names are shown and compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasure_core.names import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("van gogh", "van gogh"),
        ("Café 猫", "Café 猫"),
        ("half \ud83d", "half \\ud83d"),
        ("c\x00at\n\x1b[31m", "c\\x00at\\n\\x1b[31m"),
        ("\u202etac", "\\u202etac"),
        ("x" * 100, "x" * 77 + "..."),
        (None, "None"),
        (["\ud800"], "['\\ud800']"),
    ],
)
def test_what_is_quoted_can_be_printed(text: object, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(st.characters(codec=None, categories=("Cs", "Cc", "Cf", "L", "P", "Z"))))
def test_any_text_is_quoted_in_utf8(text: str) -> None:
    assert shown(text).encode().decode().isprintable()
