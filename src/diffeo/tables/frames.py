"""A table's columns as pandas has them."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_series(column: Any) -> Any:
    """A column of a table as a pandas ``Series`` of the same type.

    Whole numbers and booleans with gaps stay such; dates, times of day and decimals stay Arrow's. All else is
    what pandas makes of Arrow's: categories, text, instants, durations, floats with NaN.
    """
    import pandas
    from pyarrow import types

    if isinstance(column, np.ndarray):
        return pandas.Series(column)
    kind = column.type
    if types.is_integer(kind):
        return column.to_pandas(types_mapper=lambda _: _nullable(kind))
    if types.is_boolean(kind):
        return column.to_pandas(types_mapper=lambda _: pandas.BooleanDtype())
    if types.is_date(kind) or types.is_time(kind) or types.is_decimal(kind):
        return pandas.Series(column, dtype=pandas.ArrowDtype(kind))
    return column.to_pandas()


def _nullable(kind: Any) -> Any:
    import pandas

    return pandas.array([], dtype=str(kind).replace("i", "I", 1).replace("uI", "UI")).dtype
