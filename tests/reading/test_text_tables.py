"""Text tables as people have them: what their first lines, their characters and their words stand for."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, date, datetime, time
from pathlib import Path

import numpy as np
import pytest

from diffeo.errors import DataError
from diffeo.tables import Table


def read(folder: Path, text: str | bytes, suffix: str = "csv") -> Table:
    path = folder / f"t.{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Table.read(path)


def column(folder: Path, *values: str, delimiter: str = ",") -> tuple[str, list]:
    """The type and the values of a column of these, as a CSV file has them, beside one that counts."""
    rows = "".join(f"{value}{delimiter}{i}\n" for i, value in enumerate(values))
    table = read(folder, f"a{delimiter}b\n{rows}")
    held = table.column("a")
    return table.dtypes[0], held.tolist() if isinstance(held, np.ndarray) else held.to_pylist()


# -- the first lines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("# made by hand\na,b\n1,2\n3,4\n", ["a", "b"], [1, 2]),
        ("# made by hand, in May\na,b\n1,2\n3,4\n", ["a", "b"], [1, 2]),
        ("\n# one\n#\n\na,b\n1,2\n3,4\n", ["a", "b"], [1, 2]),
        ("# one\na\n1\n", ["a"], [1]),
        ("#a,b\n1,2\n3,4\n", ["#a", "b"], [1, 2]),
        ("# about\n#a,b\n1,2\n3,4\n", ["#a", "b"], [1, 2]),
        ("#a\n1\n", ["#a"], [1]),
        (",a,b\n1,2,3\n2,3,5\n", ["index", "a", "b"], [1, 2, 3]),
        ('"",index\nx,2\ny,3\n', ["index_", "index"], ["x", 2]),
        ("a,,c\n1,2,3\n", ["a", "column_2", "c"], [1, 2, 3]),
        ("a,b,\n1,2,\n3,4,\n", ["a", "b"], [1, 2]),
        ("a,b\n1,2,\n3,4,\n", ["a", "b"], [1, 2]),
        ("mpg cyl\tx\n21\t6\n", ["mpg cyl", "x"], [21, 6]),
        ('"mpg","cyl"\n"Mazda RX4",21,6\n"Fiat",22,4\n', ["index", "mpg", "cyl"], ["Mazda RX4", 21, 6]),
        ("# R\nmpg,cyl\n1,21,6\n2,22,4\n", ["index", "mpg", "cyl"], [1, 21, 6]),
        ('"a\nb",c\n1,2\n', ["a\nb", "c"], [1, 2]),
        ('"a\nb",c\nx,1,2\ny,3,4\n', ["index", "a\nb", "c"], ["x", 1, 2]),
        ("a|b\n1|2\n", ["a", "b"], [1, 2]),
        ('a,b\n"x\ny, ""z""",2\n', ["a", "b"], ['x\ny, "z"', 2]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_headers(text: str, names: list[str], first: list, ends: str, tmp_path: Path):
    table = read(tmp_path, text.replace("\n", ends) if '"a\n' not in text and '"x\n' not in text else text)
    assert list(table.names) == names
    assert [np.asarray(table.column(name))[0] for name in names] == first


def test_a_nameless_column_is_found_in_every_kind_of_table(tmp_path: Path):
    table = Table.of({"": ["x", "y"], "a": [1, 2], " ": [3, 4]})
    assert table.names == ("index", "a", "column_3")
    table.write(tmp_path / "t.parquet")
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"a": [1.5, 2.5]}, index=["x", "y"]).to_csv(tmp_path / "t.csv")
    table = Table.read(tmp_path / "t.csv")
    assert table.names == ("index", "a")
    assert table.column("index").to_pylist() == ["x", "y"]


# -- characters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_characters(encoding: str, suffix: str, tmp_path: Path):
    euro = "€" if encoding != "latin-1" else "¥"
    text = f"größe,{euro}\nKöln,1\nnaïve,2\n"
    stored = text.encode(encoding)
    if encoding in ("utf-16-le", "utf-16-be"):
        stored = "\ufeff".encode(encoding) + stored
    table = read(tmp_path, gzip.compress(stored) if suffix == "csv.gz" else stored, suffix)
    assert table.names == ("größe", euro)
    assert table.column("größe").to_pylist() == ["Köln", "naïve"]
    assert table.column(euro).tolist() == [1, 2]


def test_a_character_is_known_wherever_parts_of_the_file_end(tmp_path: Path):
    words = ["a" * 9, "ö" * 5, "€" * 3] * 70_000  # of 11 bytes or so, in parts of 2^20
    table = read(tmp_path, "w\n" + "\n".join(words) + "\n")
    assert table.column("w").to_pylist() == words
    latin = [word.replace("€", "é") for word in words]
    table = read(tmp_path, ("w\n" + "\n".join(latin) + "\n").encode("latin-1"))
    assert table.column("w").to_pylist() == latin


# -- gaps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mark", ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "?", "<NA>", " ", " ? "]
)
def test_gaps_of_any_column(mark: str, tmp_path: Path):
    assert column(tmp_path, "1", mark, "3") == ("int64", [1, None, 3])
    assert column(tmp_path, "1.5", mark, "3") == ("float64", [1.5, None, 3])
    assert column(tmp_path, "true", mark, "False") == ("bool", [True, None, False])
    assert column(tmp_path, "2020-01-02", mark) == ("date32[day]", [date(2020, 1, 2), None])
    kind, (word, gap) = column(tmp_path, "x", mark)
    assert (kind, word) == ("string", "x")
    assert gap is None or mark == " ? "  # spaces around a word are its own


@pytest.mark.parametrize(
    "mark", ["-", "--", ".", "..", "None", "missing", "Unknown", "#DIV/0!", '"NA"', '""', "*"]
)
def test_words_that_are_gaps_among_numbers_and_dates_only(mark: str, tmp_path: Path):
    assert column(tmp_path, "1", mark, "3") == ("int64", [1, None, 3])
    assert column(tmp_path, "-1.5e3", mark, " 3") == ("float64", [-1500, None, 3])
    assert column(tmp_path, "True", mark) == ("bool", [True, None])
    assert column(tmp_path, "Mar-2018", mark) == ("date32[day]", [date(2018, 3, 1), None])
    assert column(tmp_path, "x", mark)[1] == ["x", mark.strip('"') or None]
    assert column(tmp_path, mark, mark)[1] == [mark.strip('"') or None] * 2


def test_one_word_makes_text_of_numbers(tmp_path: Path):
    assert column(tmp_path, *["1"] * 20, "oops") == ("string", ["1"] * 20 + ["oops"])
    assert column(tmp_path, "1,000".replace(",", "_"), "2") == ("string", ["1_000", "2"])


def test_words_in_quotes_are_words(tmp_path: Path):
    rows = [["NA", "1"], ["ZA", ""], ["?", "3"]]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["country", "n"], *rows])
    table = read(tmp_path, text.getvalue())
    assert table.column("country").to_pylist() == ["NA", "ZA", "?"]  # Namibia, as R would write it
    assert table.column("n").to_pylist() == [1, None, 3]


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (["1,5", "-2,25", ""], ["float64", [1.5, -2.25, None]]),
        (["1,5", "2", "NA"], ["float64", [1.5, 2.0, None]]),
        (["1.234,5", "2", "-12.345.678,25"], ["float64", [1234.5, 2.0, -12345678.25]]),
        (["1,5", "2.5"], ["string", ["1,5", "2.5"]]),
        (["1,5", "x"], ["string", ["1,5", "x"]]),
        (["1,2,3", "4"], ["string", ["1,2,3", "4"]]),
    ],
)
def test_decimal_commas(values: list[str], held: list, tmp_path: Path):
    assert list(column(tmp_path, *values, delimiter=";")) == held
    assert list(column(tmp_path, *values, delimiter="\t")) == held
    quoted = [f'"{v}"' if v else "" for v in values]
    if held[0] != "string":  # a comma that is no delimiter may part thousands
        assert column(tmp_path, *quoted)[0] == "string"


# -- dates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (["2020/01/31", "2020/2/1"], [date(2020, 1, 31), date(2020, 2, 1)]),
        (["2020.01.31", "2020.12.01"], [date(2020, 1, 31), date(2020, 12, 1)]),
        (["2020-1-5", "2020-02-29"], [date(2020, 1, 5), date(2020, 2, 29)]),
        (["2020-01", "2021-12"], [date(2020, 1, 1), date(2021, 12, 1)]),
        (["31.01.2020", "1.2.2020"], [date(2020, 1, 31), date(2020, 2, 1)]),
        (["Mar-2018", "dec-2017"], [date(2018, 3, 1), date(2017, 12, 1)]),
        (["March 2018", "May 2017"], [date(2018, 3, 1), date(2017, 5, 1)]),
        (["5 Sept 2018", "13-Sep-2017"], [date(2018, 9, 5), date(2017, 9, 13)]),
        (['"Mar 5, 2018"', '"September 30, 2017"'], [date(2018, 3, 5), date(2017, 9, 30)]),
        (["1/2/2020", "13/2/2020"], [date(2020, 2, 1), date(2020, 2, 13)]),
        (["1/2/2020", "2/13/2020"], [date(2020, 1, 2), date(2020, 2, 13)]),
        (["01-02-1999", "31-12-1999"], [date(1999, 2, 1), date(1999, 12, 31)]),
        (["1/31/2020 1:05 PM", "1/1/2020 12:00 am"], [datetime(2020, 1, 31, 13, 5), datetime(2020, 1, 1)]),
        (["31.1.2020 13:05", "1.1.2020"], [datetime(2020, 1, 31, 13, 5), datetime(2020, 1, 1)]),
        (["2020/1/3 3:05:06.2", "2020/1/1"], [datetime(2020, 1, 3, 3, 5, 6, 200_000), datetime(2020, 1, 1)]),
        (["2020-01-31T13:05:06", "2020-02-01"], [datetime(2020, 1, 31, 13, 5, 6), datetime(2020, 2, 1)]),
        (["2020-01-31 13:05:06+01:00"], [datetime(2020, 1, 31, 12, 5, 6, tzinfo=UTC)]),
        (["2020-01-31T13:05:06Z"], [datetime(2020, 1, 31, 13, 5, 6, tzinfo=UTC)]),
        (["9:30", "23:59:58"], [time(9, 30), time(23, 59, 58)]),
        (["9:30 PM", "12:15 AM"], [time(21, 30), time(0, 15)]),
        (["01:02:03.5", "01:02:03"], [time(1, 2, 3, 500000), time(1, 2, 3)]),
    ],
)  # fmt: skip
def test_dates(values: list[str], held: list, tmp_path: Path):
    assert column(tmp_path, *values)[1] == held
    assert column(tmp_path, values[0], "", *values[1:])[1] == [held[0], None, *held[1:]]


@pytest.mark.parametrize(
    "values",
    [
        ["1/2/2020", "3/4/2020"],  # nothing tells which is the day
        ["13/13/2020", "1/1/2020"],
        ["13/1/2020", "1/13/2020"],
        ["31.04.2020", "1.1.2020"],
        ["29.02.2019"],
        ["Foo-2018", "Mar-2018"],
        ["2020-13", "2020-01"],
        ["25:00", "1:00"],
        ["13:00 PM", "1:00 PM"],
        ["9:30:71"],
        ["2020/01/01", "01.01.2020"],
        ["May", "June"],
        ["1.1.20"],
    ],
)
def test_what_is_no_date_of_one_form_is_text(values: list[str], tmp_path: Path):
    assert column(tmp_path, *values) == ("string", values)


def test_text_that_is_not_text_is_refused(tmp_path: Path):
    for damaged in (b"PK\x03\x04\0\0a,b\n1,2\n", b"a,b\n1,2\n\0\0\n", b"\xff\n\0"):
        with pytest.raises(DataError, match=r"t\.csv: it holds bytes of 0, so it is not text"):
            read(tmp_path, damaged)
