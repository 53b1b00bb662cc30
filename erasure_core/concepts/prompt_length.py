"""The error for a prompt that is too long for a text encoder, whoever hosts it."""

from __future__ import annotations

from ..quoting import excerpt

MOST_CHARACTERS = 60  # characters of the prompt that the message quotes


def too_long(prompt: str, tokens: int, most: int) -> ValueError:
    """Return the error to raise for a prompt that is longer than the text encoder's window.

    ``tokens`` is the number of tokens in ``prompt`` and ``most`` the number that the encoder takes (75 for CLIP), both
    without start and end.
    """
    quote = excerpt(prompt, MOST_CHARACTERS)
    return ValueError(f"'{quote}' is {tokens} tokens long, the text encoder takes {most}; shorten it")
