"""The command ``suggest``: list other names that reach a concept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..concepts.aliases import LIMIT, MINIMUM, Alias, aliases_of, spellings_of
from ..concepts.parse import name_of
from ..concepts.suggest import suggest as ranked
from ..drawing.table import table
from ..quoting import excerpt, quoted
from .options import filled, number, whole
from .progress import Progress
from .shared import add_model, open_model

TABLE_ENCODER = "Stable Diffusion 1.4"


def suggest(args: argparse.Namespace) -> None:
    """List other names that reach a concept, for you to erase them too."""
    name = name_of(args.concept, "the concept")
    if not args.model:
        near = aliases_of(name, args.minimum, args.limit)
        print(_told(name, near, f"the text encoder of {TABLE_ENCODER}", args.minimum))
        unknown = [one for one in spellings_of(name) if not aliases_of(one)]
        if unknown:
            print(f"not in the table: {quoted(unknown)}; --model measures these too")
        return
    model = open_model(args)
    with Progress("suggest") as bar:
        bar(0, 1, name)
        near = ranked(model, name, minimum=args.minimum, limit=args.limit)
    print(_told(name, near, args.model, args.minimum))


def _told(name: str, near: Sequence[Alias], encoder: str, minimum: float) -> str:
    """Return what to print: a table of the names, and how to erase them."""
    if not near:
        return f"by {excerpt(encoder)}, no other name known here is as near to '{excerpt(name)}' as {minimum:g}"
    rows = [[alias, f"{similarity:.2f}"] for alias, similarity in near]
    also = f"'erase' also erases those that your model reads alike with: --concept {_argument(name)} --aliases"
    return f"{table((f'{excerpt(name)}, by {excerpt(encoder)}', 'similarity'), rows)}\n{also}"


def _argument(name: str) -> str:
    return f'"{name}"' if " " in name else name


def add_suggest(commands) -> None:
    command = commands.add_parser("suggest", help=suggest.__doc__)
    command.add_argument("concept", type=filled, help="one concept, in words")
    add_model(command, f"measures the names with this model, not with {TABLE_ENCODER}'s table", required=False)
    command.add_argument("--minimum", type=number(-1, 1), default=MINIMUM, help="the least similarity of a name")
    command.add_argument("--limit", type=whole(1), default=LIMIT, help="the most names")
    command.set_defaults(command=suggest)
