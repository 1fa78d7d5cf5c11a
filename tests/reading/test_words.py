"""The reason that is given for a table that is not read is the right one, and what is trivial is read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from diffeo.errors import DataError
from diffeo.tables import Table


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a,b\n1,2\n# end\n", "line 3 is a comment; remove"),
        (b"\n# one\n\n", "it holds no columns, only empty lines and comments"),
        (b"#", "it holds no columns"),
        (b"# one\n\na,b\n1,2\n3\n", "line 5 has 1 values, but the header names 2 columns; correct"),
        (b"a,b\n1,2,3\n2,3,4\n5,6\n", "line 4 has 2 values, but a row has 3; correct"),
    ],
)
def test_reasons(text: bytes, says: str, tmp_path: Path):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(DataError, match=says):
        Table.read(tmp_path / "t.csv")


def test_a_nameless_column_can_be_dropped_and_is_no_matter_where_it_is_not_asked_for(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text(",a,b\n1,2,3\n2,3,5\n")
    assert Table.read(path).names == ("index", "a", "b")
    assert Table.read(path, drop=["index"]).names == ("a", "b")
    assert Table.read(path, only=["b"]).names == ("b",)


def test_packed_text_is_read_and_standard_input_named(tmp_path: Path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n3,4\n"))
    assert Table.read(tmp_path / "t.csv.gz").values.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="a table is read from a file, and - is not one"):
        Table.read("-")
