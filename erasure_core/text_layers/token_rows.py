"""The token of each row of a text, when several encoders give the rows and templates surround the prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Token = tuple[object, bool]
"""A token's identity, and whether it is part of a word; start, end and padding are not."""


def encoders_of(rows: int, lengths: Mapping[str, int], whole: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the encoders whose rows, one after the other, make up a text of ``rows`` rows.

    ``lengths`` are the numbers of tokens by encoder. The answer is all encoders, or a single one, whose first rows (of
    a template) may be cut off unless it is among ``whole``; by default it may be any. Raises ``ValueError`` when no
    answer fits, or several do.
    """
    if sum(lengths.values()) == rows:
        return tuple(lengths)
    for fitting in (
        [name for name, length in lengths.items() if length == rows],
        [name for name, length in lengths.items() if length > rows and name not in whole],
    ):
        if len(fitting) == 1:
            return tuple(fitting)
        if fitting:
            break
    counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
    raise ValueError(f"a text has {rows} rows, and it cannot be told whose: the tokens are {counted}")


def split_rows(rows: int, lengths: Mapping[str, int]) -> list[tuple[str, slice, int]]:
    """Split the rows of a text among its encoders: name, slice of rows, and number of first tokens without a row.

    ``lengths`` are the numbers of tokens by encoder, in the order of the rows. Raises ``ValueError`` when there are
    more rows than tokens, or when rows are missing although there are several encoders.
    """
    cut = sum(lengths.values()) - rows
    if cut < 0 or (cut and len(lengths) > 1):
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"a text has {rows} rows, but the tokens are {counted}")
    parts, start = [], 0
    for name, length in lengths.items():
        parts.append((name, slice(start, start + length - cut), cut))
        start += length - cut
    return parts


def suffix_length(empty: Sequence[Token], filled: Sequence[Token]) -> int:
    """Return how many tokens of words a template puts after the prompt.

    ``empty`` and ``filled`` are the tokens for the empty prompt and for a prompt of one word.
    """
    one, other = ([what for what, word in tokens if word] for tokens in (empty, filled))
    ahead = _common(one, other)
    return min(_common(one[::-1], other[::-1]), len(one) - ahead)


def last_content(tokens: Sequence[Token], suffix: int = 0, cut: int = 0) -> int:
    """Return the row of the prompt's last token, or 0 for a prompt without words.

    ``suffix`` is the number of tokens of words that a template puts after the prompt, ``cut`` the number of first
    tokens without a row; both are 0 for an encoder without a template.
    """
    places = [place for place, (_, word) in enumerate(tokens) if word]
    prompt = places[: len(places) - suffix]
    return max(0, prompt[-1] - cut) if prompt else 0


def _common(one: Sequence, other: Sequence) -> int:
    """Return the number of first items that two sequences have in common."""
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count
