"""The reason that is given for a table that is not read is the right one, and what is trivial is read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from diffeo.errors import Cure, DataError
from diffeo.tables import Table


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"# made by hand\na,b\n1,2\n", "line 1 is a comment, not the columns' names"),
        (b"# one\na\n1\n", "line 1 is a comment"),
        (b"a,b\n1,2\n# end\n", "line 3 is a comment; remove"),
        ("größe,b\n1,2\n".encode("latin-1"), "line 1 is not UTF-8 text \\(in Latin-1 it is 'größe,b'\\)"),
        ("a,b\n1,2\n".encode("utf-16"), "the text is UTF-16; save it as UTF-8"),
        (b"a,b\n1,2,3\n2,3,4\n", "line 2 has 3 values.*R's names of rows, write it with row.names=FALSE"),
        (b"t,b\n2020-01-01 00:00:00 Europe/Berlin,1\n", "'t' holds dates or times; convert"),
        (b"t,b\n12:00:00+01:00,1\n", "'t' holds dates or times; convert"),
    ],
)
def test_reasons(text: bytes, says: str, tmp_path: Path):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(DataError, match=says):
        Table.read(tmp_path / "t.csv")


def test_a_nameless_column_can_be_dropped_and_is_no_matter_where_it_is_not_asked_for(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text(",a,b\n1,2,3\n2,3,5\n")
    with pytest.raises(DataError, match=r"column 1 has no name.*drop=\[''\]") as caught:
        Table.read(path)
    assert caught.value.cure == Cure("drop", [""])
    assert Table.read(path, drop=[""]).names == ("a", "b")
    assert Table.read(path, only=["b"]).names == ("b",)


def test_packed_text_is_read_and_standard_input_named(tmp_path: Path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n3,4\n"))
    assert Table.read(tmp_path / "t.csv.gz").values.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="a table is read from a file, and - is not one"):
        Table.read("-")
