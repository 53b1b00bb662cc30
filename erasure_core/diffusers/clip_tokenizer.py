"""The tokenizer of Stable Diffusion 1.x (OpenAI CLIP, MIT): 49,408 entries, rebuilt from its merges."""

from __future__ import annotations

import inspect
import json
import tempfile
from pathlib import Path

MERGES = Path(__file__).with_name("merges.txt")
WINDOW = 77
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def merges() -> list[str]:
    """Return the pairs of entries that are merged, in CLIP's order, each as two words."""
    return MERGES.read_text(encoding="utf-8").splitlines()[1:]


def vocabulary() -> dict[str, int]:
    """Return the id of every entry, in CLIP's order: bytes, bytes that end a word, merged pairs, begin and end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    entries = [*letters, *(letter + "</w>" for letter in letters)]
    entries += [pair.replace(" ", "") for pair in merges()]
    return {entry: index for index, entry in enumerate([*entries, BEGIN, END])}


def clip_tokenizer():
    """Return a new ``CLIPTokenizer`` of transformers, which before 5.0 reads its vocabulary from files only."""
    from transformers import CLIPTokenizer

    options = {"model_max_length": WINDOW, "clean_up_tokenization_spaces": False}  # unsaid, 4.45 warns of the second
    if "vocab_file" in inspect.signature(CLIPTokenizer.__init__).parameters:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "vocab.json"
            file.write_text(json.dumps(vocabulary()), encoding="utf-8")
            return CLIPTokenizer(str(file), str(MERGES), **options)
    pairs = [tuple(pair.split(" ")) for pair in merges()]
    return CLIPTokenizer(vocab=vocabulary(), merges=pairs, **options)
