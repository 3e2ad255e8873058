"""Rows of solutions in Parquet files."""

from __future__ import annotations

from typing import Any


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("odec: pyarrow is not installed, which Parquet needs; pip install odec[parquet].") from None
    return pyarrow


def parquet_writer():
    """write(solution, path): a column `t` and one for each component, by name, a row for each time.

    Raises
    ------
    ImportError : pyarrow is not installed
    """
    pyarrow = _pyarrow()

    def write(solution, path):
        columns = [pyarrow.array(column) for column in (solution.ts, *solution.flat_rows.T)]
        pyarrow.parquet.write_table(pyarrow.table(columns, names=["t", *solution.names]), path)

    return write
