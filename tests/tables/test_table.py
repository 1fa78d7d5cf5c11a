"""``Table`` and ``Schema``: what is read, what is refused and how, what is inferred."""

from __future__ import annotations

import datetime
import math
import os
import stat
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import feather, parquet

from diffeo._files import check_output, replacing
from diffeo.encodings.kinds import Bounded, Circular, Constant, Continuous, Integer, Lattice, Positive
from diffeo.errors import ConfigError, Cure, DataError
from diffeo.tables.lattices import find_grid
from diffeo.tables.schema import Schema
from diffeo.tables.table import Table

TABLE = Table.from_values(
    ["count", "price", "flag", "small"],
    np.array([[1, 0.1, 1, 0.5], [2, 1e-30, 0, 0.25], [-3, 12345.678901234567, 1, 0.3]]),
    ["int16", "float64", "bool", "float32"],
)
NAMED = ["csv", "tsv", "txt", "parquet", "pq", "feather", "arrow", "ipc", "npz"]


@pytest.mark.parametrize("suffix", NAMED)
def test_files_come_back_as_they_were(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    TABLE.write(path)
    back = Table.read(path)
    assert back.names == TABLE.names
    if suffix in ("csv", "tsv", "txt"):  # text knows no storage types
        assert back.dtypes == ("int64", "float64", "bool", "float64")
        np.testing.assert_allclose(back.values, TABLE.values, rtol=1e-7)
        assert np.array_equal(back.column("price"), TABLE.column("price"))
    else:
        assert back.dtypes == TABLE.dtypes
        assert np.array_equal(back.values, TABLE.values)
    assert os.listdir(tmp_path) == [path.name]


def test_npy_loses_the_names_only(tmp_path):
    TABLE.select(["price", "count"]).write(tmp_path / "t.npy")
    back = Table.read(tmp_path / "t.npy")
    assert back.names == ("x0", "x1")
    assert np.array_equal(back.values, TABLE.values[:, [1, 0]])


def test_csv_on_standard_output(capfdbinary):
    TABLE.select(["count", "price"]).write("-")
    assert capfdbinary.readouterr().out == b"count,price\n1,0.1\n2,1e-30\n-3,12345.678901234567\n"


@pytest.mark.parametrize(
    ("text", "names", "values"),
    [
        ("a,b\n1,2.5\n", ["a", "b"], [[1, 2.5]]),
        ("a;b\n1;2.5\n", ["a", "b"], [[1, 2.5]]),
        ("a\tb\r\n1\t2.5\r\n", ["a", "b"], [[1, 2.5]]),
        ("\ufeffa,b\n1,2.5", ["a", "b"], [[1, 2.5]]),
        ('"a, b",c\n1,2e3\n', ["a, b", "c"], [[1, 2000]]),
        ("0,1\n5,6\n", ["0", "1"], [[5, 6]]),
        ("x, y\n5,6\n", ["x", " y"], [[5, 6]]),
        ('Field1;Field2;"Field,3,3,3"\n1;2;3\n', ["Field1", "Field2", "Field,3,3,3"], [[1, 2, 3]]),
        ('"a,""b"", c";d\n1;2\n', ['a,"b", c', "d"], [[1, 2]]),
        ("a,b\ntrue,1\nfalse,0\n", ["a", "b"], [[1, 1], [0, 0]]),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_csv_dialects(tmp_path, text, names, values, suffix):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(text.encode())
    table = Table.read(path)
    assert list(table.names) == names
    np.testing.assert_array_equal(table.values, values)


def test_tabs_part_a_tsv_whatever_its_names_hold(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("size, in m, net\tage\n1\t2\n")
    assert Table.read(path).names == ("size, in m, net", "age")


def test_one_name_is_one_column():
    table = Table.from_columns({"a": [1], "b": [2], "ab": [3]})
    assert table.drop("ab").names == ("a", "b")
    assert table.select("ab").names == ("ab",)
    assert Table.of({"a": [1], "b": [2], "ab": [3]}, drop="ab").names == ("a", "b")
    assert Table.of(table, only="ab").names == ("ab",)
    assert Table.from_values("ab", np.zeros((2, 1))).names == ("ab",)
    with pytest.raises(DataError, match="no column 'ba' in this table; it has a, b, ab"):
        table.drop("ba")


def test_names_are_found_as_they_are_meant():
    table = Table.of({"x": [1], " y": [2], 1: [3], 2: [4]})
    assert table.names == ("x", " y", "1", "2")
    assert table.own(["y", " y", 1, np.int64(2), " x"]) == [" y", " y", "1", "2", "x"]
    assert (table.column("y")[0], table.column(1)[0]) == (2, 3)
    assert table.drop([1, "y"]).names == ("x", "2")
    both = Table.of({"y": [1], " y": [2]})
    assert [both.column(name)[0] for name in ("y", " y", "  y")] == [1, 2, 1]
    declared = Schema.infer(Table.of({" y": [0.5, 0.7], 1: [1.5, 2.7]}), {"y": "positive", 1: "positive"})
    assert [e.declared for e in declared.entries] == [True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"is empty"),
        (b"a,b\n", r"no rows"),
        (b"a,a\n1,2\n", r"two columns are named 'a'"),
        (b"a,b\n1,2\n3\n", r"line 3 has 1 values, but the header names 2 columns; correct"),
        (b"a,b\n1,2\n3,4,5\n", r"line 3 has 3 values, but the header names 2 columns; correct"),
        (b"1.5,2.5\n1,2\n", r"first line holds numbers.*add a header"),
        (b"a,b\n1,2\n1,inf\n", r"'b' has an infinite value in row 2; leave it empty, or drop"),
        (b"a,b\n1,2\n\x00\n", r"it holds bytes of 0, so it is not text"),
    ],
)
def test_bad_csv_says_where_and_what_to_do(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    with pytest.raises(DataError, match=message) as caught:
        Table.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,red\n2,blue\n", r"'b' holds text or categories \('red', say\); code it .* drop=\['b'\]"),
        ("a,b\n1,2\n2,\n3,\n", r"'b' has a missing value in row 2 \(2 such rows\); fill"),
        ("a,b\n1,NA\n", r"'b' has a missing value in row 1"),
        ("a\n2020-01-02\n", r"'a' holds dates or times; convert"),
        ("a\n2020-01-02 10:11:12\n", r"'a' holds dates or times; convert"),
        ("a\n2020-01-01 00:00:00 Europe/Berlin\n", r"'a' holds dates or times; convert"),
        ("a\n9007199254740993\n", r"'a' holds 9007199254740993 in row 1: integers beyond 2\^53"),
    ],
)
def test_what_is_read_but_is_no_matrix_of_numbers(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    table = Table.read(tmp_path / "t.csv")
    with pytest.raises(DataError, match=message):
        _ = table.values


def test_the_cure_of_a_column_survives_the_name_of_its_file(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,inf\n")
    with pytest.raises(DataError, match=r"t\.csv: .* To leave it out: drop=\['b'\]\.$") as caught:
        Table.read(tmp_path / "t.csv")
    assert caught.value.cure == Cure("drop", ["b"])


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow", "npy", "npz"])
@pytest.mark.parametrize("how", ["cut", "short", "foreign", "text", "empty"])
def test_damaged_and_foreign_files_are_refused(tmp_path, suffix, how):
    path = tmp_path / f"t.{suffix}"
    Table.from_values(["a", "b"], np.random.default_rng(0).normal(size=(500, 2))).write(path)
    data = path.read_bytes()
    other = tmp_path / "other.parquet"
    TABLE.write(other)
    foreign = other.read_bytes() if suffix != "parquet" else b"PK\x03\x04" + data
    path.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "short": data[:7],
            "foreign": foreign,
            "text": b"a,b\n1,2\n",
            "empty": b"",
        }[how]
    )
    with pytest.raises(DataError, match=r"t\.\w+ (is empty|cannot be read as \w+: it is truncated)"):
        Table.read(path)


def test_pickles_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    for name, save in (("t.npy", np.save), ("t.npz", np.savez)):
        save(tmp_path / name, np.array([Bomb()], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="holds Python objects, which are never read"):
            Table.read(tmp_path / name)
    assert not (tmp_path / "boom").exists()


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999, 4), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    (tmp_path / "t.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
    )
    with pytest.raises(DataError, match="cannot be read"):
        Table.read(tmp_path / "t.npy")


def test_missing_files_unknown_suffixes_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError):
        Table.read(tmp_path / "none.csv")
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"unknown kind of table '.xlsx'; use CSV"):
        Table.read(tmp_path / "t.xlsx")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        Table.read(tmp_path / "d.csv")


def test_npz_layouts(tmp_path):
    x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    cases = {
        "one": ({"anything": x}, ("x0", "x1")),
        "main": ({"X": x, "y": y, "mask": np.zeros((2, 2, 2))}, ("x0", "x1")),
        "flat": ({"a": y, "b": y * 2.5}, ("a", "b")),
    }
    for name, (arrays, names) in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert Table.read(tmp_path / f"{name}.npz").names == names
    for arrays in ({"a": x, "b": x}, {"a": y, "b": y[:2]}, {"a": np.zeros((2, 2, 2))}):
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(DataError, match=r"holds a \(|an array of shape"):
            Table.read(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0], [2.0]]), r"holds list<\w+: double>, not one value a row"),
        (pa.array([{"x": 1}] * 2), "holds struct"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "holds map"),
        (pa.array([b"a", b"b"]), "holds bytes; convert them to text"),
        (pa.array([b"ab"], pa.binary(2)), "holds bytes"),
        (pa.array([1.0, math.inf, -math.inf]), r"infinite value in row 2 \(2 such rows\)"),
    ],
)
def test_arrow_columns_that_no_table_holds(tmp_path, column, message):
    table = pa.table({"a": column, "b": pa.array([1] * len(column))})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=f"'a' .*{message}") as caught:
        Table.read(tmp_path / "t.parquet")
    assert caught.value.cure == Cure("drop", ["a"])
    assert Table.read(tmp_path / "t.parquet", drop=["a"]).names == ("b",)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a", "b"]).dictionary_encode(), "text or categories"),
        (pa.array([1.0, None]), "missing value in row 2"),
        (pa.array([1, None, 3, None]), r"missing value in row 2 \(2 such"),
        (pa.array([None, None]), "missing value in row 1"),
        (pa.array([datetime.datetime(2020, 1, 1)] * 2), "dates or times"),
        (pa.array([datetime.time(1, 2)] * 2), "dates or times"),
        (pa.array([1.0, math.nan]), "missing value in row 2"),
        (pa.array(["1", "2"]), "text or categories"),
        (pa.array([2**60], pa.uint64()), "beyond 2"),
        (pa.array([-(2**60)]), "beyond 2"),
    ],
)
def test_arrow_columns_that_are_no_numbers(column, message):
    with pytest.raises(DataError, match=f"'a' .*{message}"):
        _ = Table.of({"a": column}).values


def test_arrow_streams_decimals_and_old_feather(tmp_path):
    table = pa.table({"a": pa.array([1, 2], pa.int8()), "b": pa.array([1.25, 2.5]).cast(pa.decimal128(5, 2))})
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    feather.write_feather(table, tmp_path / "f.feather", compression="zstd")
    for name in ("s.arrow", "f.feather"):
        back = Table.read(tmp_path / name)
        assert back.dtypes == ("int8", "decimal128(5, 2)")
        np.testing.assert_array_equal(back.values, [[1, 1.25], [2, 2.5]])


def test_decimals_are_numbers_to_a_schema():
    prices = pa.array([Decimal(f"{cents / 100:.2f}") for cents in range(150, 190)] * 2)
    table = Table.of({"price": prices, "n": np.arange(80) % 7})
    schema = Schema.infer(table)
    price = schema.entries[0]
    assert (price.name, str(price.kind), price.dtype) == ("price", "lattice(0.01)", "float64")
    assert schema.encoding(table).columns[0].kind == schema.entries[0].kind


class Frame:
    """Looks like a DataFrame."""

    def __init__(self, columns: list, data: dict):
        self.columns, self._data = columns, data

    def __getitem__(self, key):
        return self._data[key]


def test_tables_of_things():
    assert Table.of(TABLE) is TABLE
    assert Table.of({"a": [1, 2], "b": torch.tensor([0.5, 1.5])}).dtypes == ("int64", "float32")
    assert Table.of(np.zeros((3, 2), np.float32)).dtypes == ("float32", "float32")
    assert Table.of(torch.arange(3)).names == ("x0",)
    assert Table.of(pa.table({"a": [1, 2]})).dtypes == ("int64",)
    frame = Frame(["a", 7], {"a": np.array([1.0, 2.0]), 7: np.array([1, 2], dtype=object)})
    assert Table.of(frame).names == ("a", "7")
    assert Table.of(Frame(["b"], {"b": np.array([None, 1.0], dtype=object)})).column("b").to_pylist() == [
        None,
        1,
    ]
    with pytest.raises(DataError, match="two columns are named 'a'"):
        Table.of(Frame(["a", "a"], {"a": np.zeros((2, 2))}))
    with pytest.raises(DataError, match="different lengths"):
        Table.of({"a": [1], "b": [1, 2]})
    with pytest.raises(DataError, match="complex128"):
        Table.of({"a": np.zeros(2, complex)})
    with pytest.raises(DataError, match=r"\(2, 2, 2\)"):
        Table.of(np.zeros((2, 2, 2)))


def test_what_a_mask_hides_is_missing():
    hidden = np.ma.array([[1, 2], [3, 90], [5, 6]], mask=[[0, 0], [0, 1], [0, 0]])
    for data in (hidden, {"x0": [1, 3, 5], "x1": hidden[:, 1]}):
        column = Table.of(data).column("x1")
        assert (column.type, column.to_pylist()) == (pa.int64(), [2, None, 6])
    assert Table.of(hidden[::2]).values.tolist() == [[1, 2], [5, 6]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_tensors_of_types_that_numpy_lacks(dtype):
    table = Table.of(torch.tensor([[1.5, 2.0], [0.5, -1.0]]).to(dtype))
    assert table.values.tolist() == [[1.5, 2.0], [0.5, -1.0]]
    assert table.dtypes[0] in ("float16", "float32")


def test_all_columns_that_cannot_be_used_are_named_at_once():
    far, nested = np.array([1.0, math.inf]), pa.array([[1], [2]])
    columns = {"a b": far, "c": np.arange(2), "d": nested, "e": np.zeros(2, complex)}
    with pytest.raises(DataError) as caught:
        Table.of(columns)
    assert str(caught.value) == (
        "3 columns cannot be used: 'a b' has an infinite value in row 2; 'd' holds list<item: int64>, not "
        "one value a row; 'e' holds complex128, not real numbers. Mend them, or leave them out: "
        "drop=['a b', 'd', 'e']."
    )
    assert caught.value.cure == Cure("drop", ["a b", "d", "e"])
    assert Table.of(columns, drop=["a b", "d", "e"]).names == ("c",)
    assert Table.of(columns, only=["c"]).names == ("c",)
    with pytest.raises(DataError, match=r"column 'a b' has an infinite .* or drop row or column\.$"):
        Table.of(columns, only=["c", "a b"])
    with pytest.raises(DataError, match="no column 'z' in this table; it has a b, c, d, e"):
        Table.of(columns, drop=["z"])
    many = {f"c{i}": far for i in range(30)} | {"n": np.arange(2)}
    with pytest.raises(DataError, match=r"30 columns .*'c19' has [^;]*; and 10 more\. .*'c19'\]\.$"):
        Table.of(many)
    words = Table.of(
        {"word": ["x", "y"], "n": [1, 2], "gap": [1, None], "day": [datetime.date(2020, 1, 2)] * 2}
    )
    with pytest.raises(DataError) as caught:
        _ = words.values
    assert str(caught.value) == (
        "3 columns cannot be used: 'word' holds text or categories ('x', say); 'gap' has a missing value in "
        "row 2; 'day' holds dates or times. Mend them, or leave them out: drop=['word', 'gap', 'day']."
    )


def test_tables_as_data_frames(monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = TABLE.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert [str(dtype) for dtype in frame.dtypes] == list(TABLE.dtypes)
    back = Table.of(frame.assign(word="x"), drop=["word"])
    assert (back.names, back.dtypes) == (TABLE.names, TABLE.dtypes)
    assert np.array_equal(back.values, TABLE.values)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pandas is not installed: pip install pandas"):
        TABLE.to_pandas()


def test_parts_of_a_table():
    part = TABLE.select(["small", "count"])
    assert part.names == ("small", "count")
    assert part.dtypes == ("float32", "int16")
    assert TABLE.drop(["price", "flag"]).names == ("count", "small")
    assert len(TABLE.rows(slice(0, 2))) == 2
    assert TABLE.column("count").tolist() == [1, 2, -3]
    for wrong in (TABLE.select, TABLE.drop):
        with pytest.raises(DataError, match="no column 'nope' in this table; it has count, price"):
            wrong(["count", "nope"])


def test_values_that_do_not_fit_their_type_stay_floats():
    values = np.array([[1.5, 300.0, 7.0, 1.0], [2.0, 1.0, -8.0, 0.0]])
    table = Table.from_values(["a", "b", "c", "d"], values, ["int64", "uint8", "int8", "bool"])
    assert table.dtypes == ("float64", "float64", "int8", "bool")
    assert np.array_equal(table.values, values)
    with pytest.raises(DataError, match=r"2 names need values of \(rows, 2\), not \(2, 4\)"):
        Table.from_values(["a", "b"], values)


def test_a_table_keeps_each_column_as_it_is():
    words = np.array(["x", "y"])
    table = Table({"word": words, "score": np.array([-math.inf, 1.0]), "n": np.arange(2, dtype=np.int8)})
    assert table.dtypes == ("str32", "float64", "int8")
    assert table.column("word") is words
    assert table.select(["n", "score"]).values.tolist() == [[0, -math.inf], [1, 1]]
    assert table.rows([1]).beside(Table({"z": np.zeros(1)})).column("word").tolist() == ["y"]
    with pytest.raises(DataError, match=r"different lengths: \[1, 2\]"):
        Table({"a": np.zeros(1), "b": np.zeros(2)})
    with pytest.raises(DataError, match=r"column 'a' has shape \(1, 2\)"):
        Table({"a": np.zeros((1, 2))})


def test_a_table_is_apart_from_what_it_was_made_of():
    column = np.arange(3.0)
    table = Table.of({"a": column})
    column[0] = 9
    assert table.column("a")[0] == 0
    table.values[0, 0] = 9
    assert table.column("a")[0] == 0


# -- writing ------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("old")

    def interrupted():
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["t.csv"]


def test_writing_keeps_links_devices_and_the_umask(tmp_path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    link.symlink_to(real)
    TABLE.write(link)
    assert link.is_symlink()
    assert len(Table.read(real)) == 3
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~umask
    with replacing("/dev/null") as file:
        file.write(b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_outputs_are_refused_early(tmp_path):
    for path, message in [
        (tmp_path / "no" / "t.csv", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "t.xls", "unknown kind"),
    ]:
        with pytest.raises(DataError, match=message):
            check_output(path, (".csv",))
    with pytest.raises(DataError, match="standard output"):
        check_output("-")
    check_output("-", (".csv",))
    check_output(tmp_path / "anything.at.all")


# -- schema -------------------------------------------------------------------------------------


def kinds(declared: dict | None = None, dtype: str = "float64", **columns) -> dict:
    table = Table({name: column.astype(dtype) for name, column in columns.items()})
    return {e.name: e.kind for e in Schema.infer(table, declared).entries}


def grid(step: float, offset: float, rows: int = 400, cells: int = 60) -> np.ndarray:
    return offset + step * np.random.default_rng(0).integers(0, cells, rows)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("step", "offset"),
    [(0.1, 0.0), (0.05, 0.01), (0.002, 0.0), (2.5, 1.0), (0.25, 100.0), (1 / 3, 0.1), (0.0731, -2.2)],
)
def test_lattices_are_found_in_either_precision(dtype, step, offset):
    kind = kinds(dtype=dtype, a=grid(step, offset))["a"]
    assert type(kind) is Lattice
    assert kind.step == pytest.approx(step, rel=1e-5)
    error = (kind.offset - offset) / step
    assert error == pytest.approx(round(error), abs=1e-3)


def test_computed_decimals_are_on_their_grid():
    values = np.arange(400) * 0.37 % 1  # off by some 1e-14, so that equal decimals differ
    kind = kinds(a=np.r_[values, values])["a"]
    assert (kind.step, kind.offset) == (0.01, 0.0)


def test_a_standardized_integer_column_is_a_lattice():
    counts = np.random.default_rng(1).poisson(30, 1000)
    kind = kinds(a=(counts - counts.mean()) / counts.std())["a"]
    assert type(kind) is Lattice
    assert kind.step == pytest.approx(1 / counts.std(), rel=1e-9)


def test_kinds_that_rows_show():
    rng = np.random.default_rng(2)
    got = kinds(
        normal=rng.normal(size=300),
        whole=rng.permutation(300).astype(float),
        tens=rng.integers(0, 30, 300) * 10.0,
        binary=rng.integers(0, 2, 300) * 2.0,
        same=np.full(300, 2.5),
        digits=np.round(rng.uniform(0, 1, 300), 6),  # decimal, but hardly a value repeats
        third=np.where(np.arange(300) < 120, 0.5, rng.normal(size=300)),  # an atom on a density
    )
    assert got == {
        "normal": Continuous(),
        "whole": Integer(),
        "tens": Lattice(10.0, 0.0),
        "binary": Integer(),  # two values do not show a step of 2
        "same": Constant(2.5),
        "digits": Continuous(),
        "third": Continuous(),
    }


def test_large_floats_are_not_taken_for_integers():
    values = np.random.default_rng(3).lognormal(30, 1, 300).astype(np.float32)
    assert (values == np.round(values)).all()
    assert kinds(dtype="float32", a=values) == {"a": Continuous()}
    assert kinds(a=1.7e9 + np.arange(300.0)) == {"a": Integer()}


def test_duplicated_rows_of_a_density_are_no_lattice():
    values = np.repeat(np.random.default_rng(4).normal(size=150), 2)
    schema = Schema.infer(Table.of({"a": values}))
    assert schema.entries[0].kind == Continuous()
    assert "no regular grid" in schema.entries[0].note


@pytest.mark.parametrize(
    ("values", "grid"),
    [
        ([0, 1e-8, 1e-7, 1, 10], (1e-8, 0.0)),
        ([1, 1.0000004, 2, 5], (1e-7, 0.0)),
        ([0, 1e-8], (1e-8, 0.0)),
        ([1e-9, 3e-9, 5e-9], (1e-9, 0.0)),
        ([1e-12, 4e-12], (1e-12, 0.0)),
        ([0, 5e-324], None),
        ([-1.7e308, 1.7e308], None),
    ],
)
def test_distinct_values_stay_distinct_on_a_grid(values, grid):
    assert find_grid(np.array(values), 2.2e-16) == grid
    kind = kinds(a=np.repeat(values, 20))["a"]
    assert kind == (Continuous() if grid is None else Lattice(*grid))
    if grid is not None:
        assert len(set(np.round(np.array(values) / grid[0]))) == len(values)


def test_float32_tells_values_apart_as_finely_as_it_stores_them():
    for values in ([0, 1e-8, 1e-7, 1, 10], [1, 1.0000004, 2, 5]):
        single = np.array(values, np.float32).astype(float)
        assert find_grid(single, 1.2e-7) is None  # finer than rounding at 10, but two values all the same


def doubts(**columns) -> list[str]:
    return [e.doubt for e in Schema.infer(Table(columns)).entries]


def test_few_rows_that_force_a_fine_grid_are_named():
    rng = np.random.default_rng(7)
    ages = rng.integers(20, 80, 1000).astype(float)
    few, many = ages.copy(), ages.copy()
    few[:4], many[:40] = 0.17, 0.17
    says = "4 rows make the step 0.01; all others lie on 1, and are smeared"
    assert doubts(a=few, b=ages, c=np.round(rng.normal(50, 9, 1000), 1)) == [says, "", ""]
    assert "looks like codes" in doubts(a=many)[0]


def test_codes_are_told_from_counts():
    rng = np.random.default_rng(8)
    found = doubts(
        far=np.where(rng.random(1000) < 0.8, 0, 1000),
        wide=rng.choice(rng.integers(10_000, 99_999, 30), 1000),
        counts=rng.poisson(4, 1000),
        rare=rng.poisson(0.01, 1000),
        heavy=np.round(rng.lognormal(5, 1.5, 1000)),
        ages=rng.integers(20, 80, 1000),
        tens=10 * rng.integers(0, 40, 1000),
        squares=np.arange(1000) ** 2,
        sentinel=np.where(rng.random(1000) < 0.09, -9999, rng.integers(5, 20, 1000)),
    )
    assert found[0] == "looks like codes: 2 values on 1,001 points, and draws fall between"
    assert found[1].startswith("looks like codes: 30 values on ")
    assert found[2:-1] == [""] * 6
    assert found[-1].endswith("% of rows are exactly -9999, far from the rest")


def test_heaps_on_a_density_are_named():
    rng = np.random.default_rng(9)
    heap = rng.random(1000) < 0.3
    found = doubts(
        zeros=np.where(heap, 0, rng.lognormal(0, 1, 1000)),
        missing=np.where(heap, -9999, rng.normal(10, 1, 1000)),
        plain=rng.normal(size=1000),
        rounded=np.round(rng.normal(size=1000), 3),
    )
    share = f"{heap.mean():.0%} of rows are exactly"
    assert found == [f"{share} 0", f"{share} -9999", "", ""]


def test_bounds_of_whole_numbers_are_suggested():
    rng = np.random.default_rng(10)
    columns = {
        "day": rng.integers(1, 32, 1000),
        "visits": rng.poisson(1.0, 1000),
        "iq": np.round(rng.normal(100, 15, 1000)),
    }
    entries = Schema.infer(Table(columns)).entries
    assert [e.suggestion for e in entries] == ["integer(1, 31)", "integer(0)", ""]
    assert kinds({"day": "integer(1, 31)"}, **columns)["day"] == Integer(1, 31)


def test_find_grid_does_not_confuse_rounding_with_a_grid():
    eps = float(np.finfo(np.float32).eps)
    values = np.random.default_rng(5).normal(100, 1, 50).astype(np.float32).astype(float)
    assert find_grid(values, eps) is None
    assert find_grid(np.array([1.0]), eps) is None
    assert find_grid(np.array([0.3, 0.7]), 1e-16) == (0.1, 0.0)


def test_declared_kinds_override_and_are_checked():
    rng = np.random.default_rng(6)
    columns = {
        "p": rng.lognormal(size=100),
        "u": rng.uniform(size=100),
        "n": np.arange(100.0),
        "c": np.ones(100),
    }
    declared = {"p": "positive", "u": "bounded(0, 1)", "n": "continuous", "c": "positive"}
    assert kinds(declared, **columns) == {
        "p": Positive(),
        "u": Bounded(0, 1),
        "n": Continuous(),
        "c": Constant(1.0),
    }
    assert kinds({"u": "circular(0,1)"}, **columns)["u"] == Circular(0, 1)
    with pytest.raises(DataError, match=r"column 'n' is positive, but row 1 holds 0;"):
        kinds({"n": "positive"}, **columns)
    with pytest.raises(DataError, match=r"column 'p' is integer, but row 1"):
        kinds({"p": "integer"}, **columns)
    with pytest.raises(DataError, match="no column 'q' in this table; it has p, u, n, c"):
        kinds({"q": "positive"}, **columns)
    with pytest.raises(ConfigError, match="'log' is not a kind of column; there are: continuous"):
        kinds({"p": "log"}, **columns)


def test_a_table_in_which_nothing_varies_is_refused():
    with pytest.raises(DataError, match="no column varies over the 3 rows"):
        kinds(a=np.ones(3), b=np.zeros(3))
    with pytest.raises(DataError, match="no column is left to model"):
        Schema.infer(TABLE.drop(TABLE.names))


def test_suggestions_are_hints_only():
    rng = np.random.default_rng(7)
    columns = {
        "money": rng.lognormal(size=3000),
        "share": rng.uniform(0, 1, 3000),
        "bearing": rng.uniform(0, 360, 3000),
        "height": rng.normal(170, 10, 3000),
    }
    schema = Schema.infer(Table.of(columns))
    assert all(e.kind == Continuous() for e in schema.entries)
    assert {e.name: e.suggestion for e in schema.entries} == {
        "money": "positive",
        "share": "bounded(0, 1)",
        "bearing": "circular(0, 360)",
        "height": "",
    }
    assert len(schema.lines()) == 5
    assert schema.lines()[1].endswith("perhaps positive")
    few = Table.of({"wind_direction": rng.uniform(0, 360, 60), "price": rng.uniform(0, 360, 60)})
    direction, price = (e.suggestion for e in Schema.infer(few).entries)
    assert direction == "circular(0, 360)"
    assert "circular" not in price


def test_the_encoding_is_standardized_by_the_rows_it_is_given():
    table = Table.of({"a": np.r_[np.arange(10.0) + 0.123, 1e6], "g": np.arange(11)})
    schema = Schema.infer(table.drop(["g"]))
    columns = schema.encoding(table.rows(slice(0, 10)), given=["g"], draws=4)
    assert columns.columns[0].loc == pytest.approx(4.623)
    assert columns.given == ("g",)
    assert columns.names == ("a",)


def entry(values, name="a"):
    return Schema.infer(Table.from_columns({name: values, "other": np.arange(len(values)) ** 2})).entries[0]


def test_wide_whole_numbers_are_not_taken_for_codes():
    """Salaries, populations, weights: most values once, with gaps everywhere."""
    rng = np.random.default_rng(10)
    for n in (100, 2000):
        for values in (rng.lognormal(11, 0.5, n), rng.lognormal(9, 2, n), rng.pareto(1, n) * 1000):
            assert entry(np.round(values)).doubt == ""
        assert entry(rng.integers(12_000, 1_400_000, n)).doubt == ""


def test_caps_and_codes_for_missing_values_are_named():
    rng = np.random.default_rng(11)
    house = np.minimum(np.round(rng.lognormal(12, 0.5, 2000)), 300_001)
    share = (house == 300_001).mean()
    assert entry(house).doubt == f"{share:.0%} of rows are exactly 300001"
    assert entry(rng.integers(1, 11, 2000)).doubt == ""  # grades, the highest often
    few = rng.normal(50, 10, 2000)
    few[:3] = -999
    assert entry(few).doubt == "3 rows are -999, perhaps a code for missing values"
    ages = rng.integers(18, 80, 2000)
    ages[:5] = 9999
    assert entry(ages).doubt == "5 rows are 9999, perhaps a code for missing values"
    assert entry(rng.integers(-1, 5, 2000)).doubt == ""
    assert entry(np.round(rng.normal(-980, 10, 2000))).doubt == ""


def test_identifiers_and_columns_of_two_values_are_named():
    rng = np.random.default_rng(12)
    says = "looks like an identifier, each row its own: drop it"
    assert entry(rng.permutation(2000) + 5).doubt == says
    numbers = rng.choice(10**8, 2000, replace=False)
    assert entry(numbers, "customer_id").doubt == says
    assert entry(numbers, "grid").doubt == ""
    assert entry(numbers, "population").doubt == ""
    assert entry(rng.integers(0, 1000, 2000), "id").doubt == ""
    assert entry(rng.integers(0, 2, 2000)).note == "only two values"
    assert entry(np.where(rng.random(2000) < 0.5, 1.25, 2.75)).note == "only two values"


def test_no_column_is_left_when_all_would_be_dropped():
    with pytest.raises(DataError) as caught:
        _ = Table.of({"a": ["x", "y"], "b": ["u", "v"]}).values
    assert str(caught.value) == (
        "no column can be used: 'a' holds text or categories ('x', say); 'b' holds text or categories "
        "('u', say). Mend them, or code as numbers what is to be modeled."
    )
    assert caught.value.cure is None
    with pytest.raises(DataError, match=r"drop=\['a'\]"):
        _ = Table.of({"a": ["x", "y"], "b": [1, 2]}).values
