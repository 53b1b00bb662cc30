"""Which rows of a text are the prompt's."""

from __future__ import annotations

import pytest

from erasure_core.text_layers.token_rows import encoders_of, last_content, split_rows, suffix_length


def tokens(text: str, start: str = "", end: str = "") -> list[tuple[str, bool]]:
    """Every letter is a token of a word, but those of ``start`` and ``end``."""
    return [(one, False) for one in start] + [(one, True) for one in text] + [(one, False) for one in end]


@pytest.mark.parametrize(
    ("rows", "lengths", "expected"),
    [
        (154, {"clip": 77, "t5xxl": 77}, ("clip", "t5xxl")),  # SD3
        (77, {"clip": 77}, ("clip",)),
        (256, {"clip": 77, "t5xxl": 256}, ("t5xxl",)),  # Flux
        (12, {"clip": 77, "llama": 107}, ("llama",)),  # HunyuanVideo: the template's head is cut off
    ],
)
def test_whose_rows_they_are(rows, lengths, expected):
    assert encoders_of(rows, lengths, whole={"clip"}) == expected


@pytest.mark.parametrize(
    ("rows", "lengths"), [(77, {"clip": 77, "t5xxl": 77}), (12, {"llama": 40, "t5xxl": 30}), (90, {"clip": 77})]
)
def test_what_cannot_be_told_is_refused(rows, lengths):
    with pytest.raises(ValueError, match=rf"a text has {rows} rows, and it cannot be told whose: the tokens are .*"):
        encoders_of(rows, lengths, whole={"clip"})


def test_parts_follow_one_another():
    assert split_rows(10, {"clip": 4, "t5": 6}) == [("clip", slice(0, 4), 0), ("t5", slice(4, 10), 0)]
    assert split_rows(5, {"llama": 12}) == [("llama", slice(0, 5), 7)]


@pytest.mark.parametrize(("rows", "lengths"), [(9, {"clip": 4, "t5": 6}), (13, {"llama": 12})])
def test_parts_that_do_not_add_up(rows, lengths):
    with pytest.raises(ValueError, match=rf"a text has {rows} rows, but the tokens are"):
        split_rows(rows, lengths)


@pytest.mark.parametrize(
    ("head", "tail", "prompt"),
    [
        ("", "", "cat"),
        ("say ", "", "cat"),
        ("say ", "!>", "cat"),
        ("say ", "y>", "ay"),
        ("x!>", "!>", "cat!>"),
        ("xx", "xx", "cat"),
        ("xyx", "xyx", "xy"),
    ],
)
def test_the_prompt_ends_before_the_suffix(head, tail, prompt):
    suffix = suffix_length(tokens(head + tail, "<"), tokens(f"{head}a{tail}", "<"))
    assert suffix == len(tail)
    whole = tokens(head + prompt + tail, "<", "__")
    assert last_content(whole, suffix) == len(head + prompt)
    assert last_content(whole, suffix, cut=1 + len(head)) == len(prompt) - 1


def test_head_and_tail_do_not_overlap():
    """Of the empty prompt no token counts twice: what is common to the front is no part of the back."""
    assert suffix_length(tokens("xx"), tokens("xxx")) == 0
    assert suffix_length(tokens("ab"), tokens("ab")) == 0
    assert suffix_length(tokens("abab"), tokens("abXab")) == 2
    assert suffix_length(tokens("a<a", "<", "_"), tokens("aXa", "<", "_")) == 1


def test_an_empty_prompt_ends_with_the_first_row():
    assert last_content(tokens("", "<", ">>>")) == 0
    assert last_content(tokens("say !>"), suffix=2, cut=4) == 0
