"""Reads typed tables: Parquet in batches, and sheets of Excel. Both need the extra `dspex-server[files]`."""

from __future__ import annotations

import base64
import math
import zipfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from workers.cli.inputs.delimited import cells_of, check_columns, header_of
from workers.cli.inputs.excel_errors import ExcelError, excel_errors
from workers.cli.inputs.rows import Fitting, Row, UnreadableInputs, refused

BATCH = 512
MAX_SHEET_BYTES = 512 * 1024 * 1024
"""The largest decompressed workbook in bytes, as a whole sheet is read into memory."""


class ParquetTable:
    """The rows of a Parquet file. Null is no value.

    Raises:
        UnreadableInputs: the file is not Parquet, or its columns do not fit.
    """

    def __init__(self, path: Path, fitting: Fitting, *, name: str) -> None:
        with _extra(name):
            import pyarrow
            import pyarrow.parquet
        self.said: list[str] = []
        self._name = name
        self._fitting = fitting
        self._broken = (pyarrow.ArrowException, OSError)
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
            columns = list(self._file.schema_arrow.names)
        except self._broken as error:
            raise UnreadableInputs(f"--inputs: {name} is not Parquet: {_first_line(error)}") from None
        twice = next((column for column in columns if columns.count(column) > 1), None)
        if twice is not None:
            raise UnreadableInputs(f"--inputs: {name} has the column {twice!r} twice: rename one of them")
        check_columns(columns, fitting, name)
        self.total: int = self._file.metadata.num_rows

    def __iter__(self) -> Iterator[Row]:
        number = 0
        try:
            for batch in self._file.iter_batches(batch_size=BATCH):
                for values in batch.to_pylist():
                    number += 1
                    plain = {name: _plain(value) for name, value in values.items()}
                    yield self._fitting.of_values(number, plain, null_is_none=True)
        except self._broken as error:
            text = f"--inputs: {self._name} cannot be read after row {number}: {_first_line(error)}"
            raise UnreadableInputs(text) from None


class Sheet:
    """The rows of a sheet of Excel (or ODS). A cell is read like its text in CSV.

    Raises:
        UnreadableInputs: the file is not a workbook, is too large, or its columns do not fit.
    """

    def __init__(self, path: Path, fitting: Fitting, *, name: str, sheet: str | None) -> None:
        with _extra(name):
            import python_calamine
        self.said: list[str] = []
        self._fitting = fitting
        _check_size(path, name)
        try:
            book = python_calamine.load_workbook(str(path))
            names = list(book.sheet_names)
            if sheet is not None and sheet not in names:
                raise UnreadableInputs(f"--sheet: {name} has no sheet {sheet!r}; it has {', '.join(names)}")
            if sheet is None and len(names) > 1:
                self.said.append(f"{name}: of its {len(names)} sheets, {names[0]!r} is read (--sheet for another)")
            rows: list[list[Any]] = book.get_sheet_by_name(sheet or names[0]).to_python(skip_empty_area=False)
            for row, column, error in excel_errors(path, sheet or names[0]):
                if row < len(rows) and column < len(rows[row]):
                    rows[row][column] = error
        except (python_calamine.CalamineError, zipfile.BadZipFile, OSError, ValueError, IndexError) as broken:
            raise UnreadableInputs(f"--inputs: {name} is not a workbook: {_first_line(broken)}") from None
        while rows and not any(cell != "" for cell in rows[-1]):
            rows.pop()
        first = next((number for number, row in enumerate(rows) if any(cell != "" for cell in row)), None)
        if first is None:
            raise UnreadableInputs(f"--inputs: {name} is empty: it needs a first row with the names of its columns")
        self._header = header_of([_text(cell) for cell in rows[first]], fitting, name)
        self._rows, self._first = rows[first + 1 :], first + 2
        self.total = len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        for number, row in enumerate(self._rows, self._first):
            if any(cell != "" for cell in row):
                values = self._error_of(number, row) or cells_of(self._header, [_text(cell) for cell in row], number)
                yield values if isinstance(values, Row) else self._fitting.of_text(number, values)

    def _error_of(self, number: int, row: list[Any]) -> Row | None:
        """The refused row, if an input is an error of Excel."""
        for column, cell in zip(self._header.names, row, strict=False):
            name = None if column is None else self._fitting.input_of(column)
            if isinstance(cell, ExcelError) and name is not None:
                return refused(number, f"is {cell}, an error of Excel", name)
        return None


@contextmanager
def _extra(name: str) -> Generator[None]:
    try:
        yield
    except ImportError as error:
        text = f"--inputs: {name} needs the extra `files` ({error.name} is missing): pip install 'dspex-server[files]'"
        raise UnreadableInputs(text) from None


def _check_size(path: Path, name: str) -> None:
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            size = sum(part.file_size for part in packed.infolist())
    if size > MAX_SHEET_BYTES:
        most = MAX_SHEET_BYTES // 1024**2
        raise UnreadableInputs(f"--inputs: {name} has {size // 1024**2} MiB unpacked, at most {most}: save it as CSV")


def _plain(value: Any) -> Any:
    """Convert a value of Parquet to JSON."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return None if math.isnan(value) else value  # pandas writes missing values as NaN
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return str(value)


def _text(cell: Any) -> str:
    """The text that a cell of Excel would have in CSV."""
    match cell:
        case bool():
            return str(cell).lower()
        case float() if cell.is_integer() and abs(cell) < 2**53:
            return str(int(cell))
        case datetime() | date() | time():
            return cell.isoformat()
        case timedelta():
            return str(cell)
    return str(cell)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
