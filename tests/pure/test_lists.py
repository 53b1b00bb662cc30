"""Lists of concepts as users have them in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasure_core import Concept, ConceptError
from erasure_core.concepts.lists import list_text, load_concepts, place_of

PEOPLE = 'id,concept\n1,van gogh\n2,monet -> art\n\n3,\n4,"klimt, gustav"\n5,"a ""b"""\n'
WANTED = [Concept("van gogh"), Concept("monet", "art"), Concept("klimt, gustav"), Concept('a "b"')]


@pytest.mark.parametrize(
    ("name", "text", "column"),
    [
        ("list.csv", PEOPLE, "concept"),
        ("list.csv", "\ufeff" + PEOPLE.replace("\n", "\r\n"), "concept"),
        ("list.csv", PEOPLE.replace("\n", "\r"), "concept"),
        ("list.CSV", PEOPLE.replace(",", ";").replace("klimt;", "klimt,"), "concept"),
        ("list.tsv", PEOPLE.replace(",", "\t").replace("klimt\t", "klimt,"), "concept"),
        ("list.csv", PEOPLE.replace("id,concept", 'id, "concept" '), " concept"),
    ],
)
def test_a_column_of_a_table(name: str, text: str, column: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert load_concepts(f"{tmp_path / name}:{column}") == WANTED


def test_a_table_with_commas_in_another_column(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("Name;occupation, if any\nvan gogh;painter, late\n")
    assert load_concepts(f"{path}:Name") == [Concept("van gogh")]
    assert load_concepts(f"{path}:occupation, if any", separator=",") == [Concept("painter"), Concept("late")]


@pytest.mark.parametrize(
    ("name", "text", "column", "message"),
    [
        ("a.csv", PEOPLE, "", "a.csv has the columns 'id', 'concept'; say which .*a.csv:id, or 'column' in the node"),
        ("a.csv", PEOPLE, "artist", "a.csv has no column 'artist'; it has 'id', 'concept'$"),
        ("a.csv", "a,a\n1,2", "a", "a.csv has more than one column 'a'; it has 'a', 'a'"),
        ("a.csv", "", "a", "a.csv has no column 'a'; it has none"),
        ("a.csv", "Name\ncat\n", "", "a.csv begins with 'Name', which looks like the name of its column; say so"),
        ("a.csv", "id,name\n1,cat => dog", "name", "line 2 of .*a.csv, 'cat => dog', has the unknown separator"),
        ("a.csv", "id,name\n1,\n2,", "name", "no concept is named in .*a.csv"),
        ("a.csv", f"id,name\n1,{'x' * 200_000}", "name", "a.csv cannot be read as a table: field larger .* line 2"),
        ("a.csv", b"id,name\n1,\xff", "name", "a.csv is not UTF-8 text"),
        ("a.txt", "cat", "name", r"a.txt is no table \(.csv or .tsv\), so it has no column 'name'"),
        ("a.txt", "id,name\n1,cat", "", None),
    ],
)
def test_columns_that_cannot_be_read(
    name: str, text: str | bytes, column: str, message: str | None, tmp_path: Path, caplog
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    if message is None:
        assert len(load_concepts(path)) == 2 and "looks like a list" in caplog.text
        return
    with pytest.raises(ConceptError, match=message):
        load_concepts(f"{path}:{column}" if column else path)


def test_a_table_of_one_column_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('cat\n"dog -> fox"\n\n# no\n')
    assert load_concepts(path) == [Concept("cat"), Concept("dog", "fox")]
    path.write_text("concept\ncat\n")
    assert load_concepts(f"{path}:concept") == [Concept("cat")]


@pytest.mark.parametrize(
    "text",
    ["Subject\ncat\ndog", "subject\ncat\ndog", "artist_name\ncat", "Things I dislike\ncat\ndog -> fox", "mine:\ncat"],
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_a_first_line_that_may_name_its_column_is_told_of(text: str, name: str, tmp_path: Path, caplog) -> None:
    (tmp_path / name).write_text(f"\n# all\n{text}\n")
    assert load_concepts(tmp_path / name)
    assert f"begins with '{text.splitlines()[0]}', which may be the name of its column" in caplog.messages[0]


@pytest.mark.parametrize("text", ["cat\ndog", "Van Gogh\nMonet\ncat", "Subject", "class\n"])
def test_a_list_without_a_name_is_not_told_of(text: str, tmp_path: Path, caplog) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert load_concepts(tmp_path / "a.csv") and not caplog.messages


@pytest.mark.parametrize("data", [b"PK\x03\x04\x14", b"\xd0\xcf\x11\xe0\xa1", b"%PDF-1.7", b"{\\rtf1 cat}"])
@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "a.txt"])
def test_what_is_no_text_is_to_be_saved_as_csv(data: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    for source in (tmp_path / name, f"{tmp_path / name}:name"):
        with pytest.raises(ConceptError, match=f"{name} is a.*, not text; save it as CSV in UTF-8, or"):
            load_concepts(source)


@pytest.mark.parametrize(
    ("source", "path", "column"),
    [
        (r"C:\x.csv", r"C:\x.csv", ""),
        ("C:/x.csv", "C:/x.csv", ""),
        (r"C:\x.csv:name", r"C:\x.csv", "name"),
        (r"C:\list.txt", r"C:\list.txt", ""),
        ("x.csv:first name", "x.csv", "first name"),
        ("x.TSV:name", "x.TSV", "name"),
        ("x.txt:name", "x.txt:name", ""),
        ("x.csv", "x.csv", ""),
    ],
)
def test_where_a_column_is(source: str, path: str, column: str) -> None:
    assert place_of(source) == (Path(path), column)


def test_a_file_whose_name_has_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "a.csv:b.csv"
    path.write_text("cat")
    assert place_of(path) == (path, "") and load_concepts(path) == [Concept("cat")]


@given(st.binary(max_size=60), st.text(max_size=3), st.sampled_from(["a.csv", "a.tsv", "a.txt"]))
def test_any_file_gives_a_text_or_a_readable_error(data: bytes, column: str, name: str) -> None:
    try:
        assert isinstance(list_text(data, name, column), str)
    except ConceptError as error:
        assert str(error).encode()
