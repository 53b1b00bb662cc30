"""Which token each row of a text stands for, where several encoders give the rows and templates surround the prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Token = tuple[object, bool]
"""What a token is, and whether it is of a word; start, end and padding are not."""


def encoders_of(rows: int, lengths: Mapping[str, int], whole: Collection[str] = ()) -> tuple[str, ...]:
    """The encoders whose rows, one after the other, are a text of so many rows; ``lengths`` are their tokens.

    All of them, or one; a single one may have lost its first rows, a template's, unless it is among ``whole``.
    Raises ``ValueError`` when that cannot be told.
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
    """By encoder, in order: its rows, and how many of its first tokens have none.

    Raises ``ValueError`` when there are more rows than tokens, or fewer although there are several encoders.
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
    """How many words' tokens a template puts behind the prompt, from the empty prompt and one of a word."""
    one, other = ([what for what, word in tokens if word] for tokens in (empty, filled))
    ahead = _common(one, other)
    return min(_common(one[::-1], other[::-1]), len(one) - ahead)


def last_content(tokens: Sequence[Token], suffix: int = 0, cut: int = 0) -> int:
    """The row of the last token of the prompt, before the template's suffix, when ``cut`` first rows are missing.

    0 when there is none.
    """
    places = [place for place, (_, word) in enumerate(tokens) if word]
    kept = places[: len(places) - suffix]
    return max(0, kept[-1] - cut) if kept else 0


def _common(one: Sequence, other: Sequence) -> int:
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count
