"""Lists of concepts in files: a text file with one concept a line, or a column of a table (``list.csv:name``)."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from ..files.bounded_text import read_list
from ..quoting import excerpt, quoted
from .names import singular, words
from .parse import Concept, ConceptError, decode, parse_concepts

log = logging.getLogger(__name__)
TABLES = (".csv", ".tsv")
DELIMITERS = ",;\t|"
HEADERS = {"concept", "concepts", "name", "names", "prompt", "prompts", "artist", "artists", "style", "title", "label"}
HEADINGS = {
    *HEADERS, "subject", "object", "item", "keyword", "tag", "term", "entity", "class", "category", "text", "word",
    "target", "character", "celebrity", "description", "caption", "list", "id",
}  # fmt: skip
"""Last words of a first line that may be a heading and not a concept; a concept may be called so too, so we warn."""


def load_concepts(source: str | Path, *, separator: str | None = None) -> list[Concept]:
    """Return the concepts of a file (``list.txt``) or of a column of a table (``list.csv:name``).

    ``separator`` splits lines further, as "," does; by default a line is one concept. Raises ``OSError`` for a file
    that cannot be read and ``ConceptError`` as ``parse_concepts`` and ``list_text`` do.
    """
    path, column = place_of(source)
    return parse_concepts(list_text(read_list(path), str(path), column), str(path), separator=separator)


def place_of(source: str | Path) -> tuple[Path, str]:
    """Return the file and the column that ``list.csv:name`` names; the column is "" if none is named."""
    before, colon, column = str(source).rpartition(":")
    if colon and not Path(source).exists() and (before.lower().endswith(TABLES) or Path(before).is_file()):
        return Path(before), column
    return Path(source), ""


def list_text(data: bytes, what: str, column: str = "") -> str:
    """Return the text of a list with one name a line; line n of a table is the cell of ``column`` in its row n.

    ``data`` is the content of the file and ``what`` its name, which errors quote and whose ending (.csv, .tsv) makes
    it a table. The first row of a table holds the names of its columns; a table with a single column needs no such
    row. Raises ``ConceptError`` for a column that is missing or not named.
    """
    text = decode(data, what)
    if not what.lower().endswith(TABLES):
        if column:
            raise ConceptError(f"{what} is no table (.csv or .tsv), so it has no column '{excerpt(column)}'")
        _warn_of_a_heading(text.splitlines(), what)
        return text
    return "\n".join(" ".join(cell.split()) for cell in _cells(text, what, column.strip()))


def _cells(text: str, what: str, column: str) -> list[str]:
    tables = [_rows(text, what, delimiter) for delimiter in DELIMITERS]
    fitting = [rows for rows in tables if column and column in _names(rows)]
    rows = max(fitting or tables, key=lambda rows: len(_names(rows)))
    names = _names(rows)
    if not column and max(map(len, rows), default=0) < 2:
        if names and names[0].casefold() in HEADERS:
            raise ConceptError(
                f"{what} begins with '{names[0]}', which looks like the name of its column; say so ({what}:{names[0]}, "
                "or 'column' in the node), or take it out"
            )
        cells = [row[0] if row else "" for row in rows]
        _warn_of_a_heading(cells, what)
        return cells
    if not column:
        raise ConceptError(
            f"{what} has the columns {quoted(names)}; say which one holds the concepts ({what}:{excerpt(names[0])}, or "
            "'column' in the node)"
        )
    if names.count(column) != 1:
        how = "no" if column not in names else "more than one"
        raise ConceptError(f"{what} has {how} column '{excerpt(column)}'; it has {quoted(names) or 'none'}")
    place = names.index(column)
    return ["", *(row[place] if len(row) > place else "" for row in rows[1:])]


def _warn_of_a_heading(cells: list[str], what: str) -> None:
    """Warn if the first line may be a heading: by its last word, by a colon, or as the only line with a capital."""
    first, *others = [cell.strip() for cell in cells if cell.strip() and not cell.strip().startswith("#")] or [""]
    last = (words(first) or ("",))[-1]
    only_capital = first[:1].isupper() and all(cell == cell.lower() for cell in others)
    if others and (last in HEADINGS or singular(last) in HEADINGS or first.endswith(":") or only_capital):
        log.warning(
            "%s begins with '%s', which may be the name of its column and is read as a concept; take it out if it is.",
            what, excerpt(first),
        )  # fmt: skip


def _rows(text: str, what: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True)
    try:
        return list(reader)
    except csv.Error as error:
        raise ConceptError(f"{what} cannot be read as a table: {error}, near line {reader.line_num}") from error


def _names(rows: list[list[str]]) -> list[str]:
    return [name.strip() for name in rows[0]] if rows else []
